"""What an element of a job array does: it trains the runs of its task, as a sweep on this machine would."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from transformer_jax.errors import UserError
from transformer_jax.run.directory import CHECKPOINTS, ERROR, RESULT, is_settled
from transformer_jax.run.interruption import STOPPED, Interruption
from transformer_jax.sweeps.jobs import Job, call, read_job
from transformer_jax.sweeps.pool import run_tasks
from transformer_jax.sweeps.worker import TASKS, Task, read_task


def run_element(directory: str, name: str, element: int, time_limit: float | None) -> None:
    """Trains those runs of a task that still belong to this element of the job. What they come to stands in them.

    A job that is told to stop while it may still run, as its time is nearly over, is put into the queue again, and
    resumes from there. Where Slurm stops a job for another, it does so itself.

    Args:
      directory: of the array; its name is the token of the array.
      time_limit: see `run_tasks`.

    Raises:
      SystemExit: asked to stop, or every run failed for the same reason.
    """
    task = of_element(read_task(Path(directory) / TASKS / f"{name}.json"), Job(Path(directory).name, element))
    if not task.workdirs:
        print("Nothing is left to do for this job: its runs are settled, or were given to another.", flush=True)
        return
    begun = time.time()
    try:
        run_tasks([task], Path(directory) / f"{name}.worker", 1, time_limit, os.environ, _say)
    except Interruption:
        if _has_come_further(task.workdirs, begun) and _state() == "RUNNING":
            call("scontrol", "requeue", _own_number())
        sys.exit(STOPPED)
    except UserError as error:
        sys.exit(str(error))


def of_element(task: Task, job: Job) -> Task:
    """The task with its open runs that were not given to another job, or executor, meanwhile."""

    def is_ours(workdir: Path) -> bool:
        known = read_job(workdir)
        return known is not None and (known.token, known.element) == (job.token, job.element)

    places = range(len(task.workdirs))
    if task.lanes > 1:  # they stay together, also where one of them is settled
        wanted = any(is_ours(task.workdirs[k]) and not is_settled(task.workdirs[k]) for k in places)
        return task.only(places if wanted else [])
    return task.only([k for k in places if is_ours(task.workdirs[k]) and not is_settled(task.workdirs[k])])


def _say(line: str) -> None:
    print(line, flush=True)


def _own_number() -> str:
    array, element = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{element}" if array and element else os.environ.get("SLURM_JOB_ID", "")


def _state() -> str:
    """What Slurm says of this job; "" if it does not."""
    try:
        return call("squeue", "--noheader", "--format=%T", f"--jobs={_own_number()}").strip()
    except UserError:
        return ""


def _has_come_further(workdirs: Sequence[Path], since: float) -> bool:
    """Whether anything was saved: a job whose time is too short for that would be put into the queue for ever."""
    signs = [workdir / name for workdir in workdirs for name in (CHECKPOINTS, RESULT, ERROR)]
    return any(sign.exists() and sign.stat().st_mtime > since for sign in signs)
