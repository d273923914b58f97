"""Gives the tasks of a sweep to Slurm, as job arrays through submitit: one element is one task.

It submits and returns. What becomes of the runs stands in their directories.
"""

import dataclasses
import re
import secrets
import shlex
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer_jax.errors import UserError
from transformer_jax.files import read_bytes
from transformer_jax.processes import of_this_code
from transformer_jax.report.wording import count
from transformer_jax.sweeps.array_task import run_element
from transformer_jax.sweeps.jobs import QUEUE, SLURM, Job, call
from transformer_jax.sweeps.worker import TASKS, Task, write_task

SETUP = "setup"
OURS = ("array", "job-name", "output", "error", "open-mode", "requeue", "no-requeue", "signal", "nodes", "ntasks")
"""Options of sbatch that the executor sets."""
WARNING_SECONDS = 120
"""So long before its time is over, a job is told to save."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """What a sweep asks of Slurm.

    Attributes:
      options: long options of sbatch and their values; True: it has none.
      setup: lines of shell before the program, as `module load cuda`.
      max_parallel: tasks at a time; None: as many as Slurm lets run.
    """

    options: Mapping[str, str | int | bool]
    setup: Sequence[str] = ()
    max_parallel: int | None = None


def make_cluster(profile: Path | None, flags: Mapping[str, str | int | None], max_parallel: int | None) -> Cluster:
    """What a profile asks for, and the flags, which win.

    Args:
      profile: a TOML file of long options of sbatch, and of `setup`, a list of lines; None: none.
      flags: option of sbatch -> its value; None: not given.

    Raises:
      UserError: the profile cannot be read, or holds what it may not.
    """
    content: dict[str, Any] = {}
    if profile is not None:
        try:
            content = tomllib.loads(read_bytes(profile).decode())
        except OSError as error:
            raise UserError(f"{profile}: cannot be read ({error.strerror}).") from error
        except ValueError as error:
            raise UserError(f"{profile}: is no TOML: {error}.") from error
    setup = content.pop(SETUP, [])
    if not isinstance(setup, list) or not all(isinstance(line, str) for line in setup):
        raise UserError(f"{profile}: {SETUP} must be a list of lines of shell.")
    for name, value in content.items():
        if name in OURS or not re.fullmatch(r"[a-z][a-z-]*", name):
            raise UserError(f"{profile}: {name!r} is no option of sbatch that may be set here.")
        if not isinstance(value, str | int):
            raise UserError(f"{profile}: {name} is {type(value).__name__}, but must be text, a whole number or true.")
    given = {name: value for name, value in flags.items() if value is not None}
    return Cluster({**content, **given}, setup, max_parallel)


def submit(
    tasks: Sequence[Task],
    sweep: Path,
    name: str,
    cluster: Cluster,
    time_limit: float | None,
    environment: Mapping[str, str],
    say: Callable[[str], None],
) -> None:
    """Gives the tasks to Slurm, in arrays of the size that it allows.

    Args:
      name: of the sweep, which the jobs show.
      time_limit: seconds for one run, see `run_tasks`.
      environment: variables of this process; that of the jobs imports this very code.

    Raises:
      UserError: submitit or Slurm is not there, or Slurm refuses.
    """
    largest = _largest_array()
    parts = [tasks[start : start + largest] for start in range(0, len(tasks), largest)]
    before = ""
    for part in parts:
        token = f"{re.sub(r'[^A-Za-z0-9.-]', '_', name)}-{secrets.token_hex(8)}"
        # Where so many may run at a time, a second array waits for the first.
        after = {"dependency": f"afterany:{before}"} if before and cluster.max_parallel else {}
        before = _submit_array(part, sweep.absolute(), token, cluster, after, time_limit, environment)
        runs = count(sum(len(task.workdirs) for task in part), "run")
        say(f"Submitted job {before} ({token}): {count(len(part), 'task')}, {runs}.")
    (sweep / SLURM / QUEUE).unlink(missing_ok=True)  # it is no longer true


def _largest_array() -> int:
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", call("scontrol", "show", "config"))
    return max(int(found[1]), 1) if found else 1000


def _submit_array(
    tasks: Sequence[Task],
    sweep: Path,
    token: str,
    cluster: Cluster,
    after: Mapping[str, str],
    time_limit: float | None,
    environment: Mapping[str, str],
) -> str:
    """The number of the array."""
    submitit = _submitit()
    directory = sweep / SLURM / token
    placed = []
    for element, task in enumerate(tasks):
        task = dataclasses.replace(task, workdirs=[workdir.absolute() for workdir in task.workdirs])
        write_task(directory / TASKS, task)
        for workdir in task.workdirs:
            Job(token, element).write(workdir)
            placed.append((workdir, element))
    executor = submitit.SlurmExecutor(directory)
    path = of_this_code(environment)
    options = {
        "nodes": 1,
        "ntasks": 1,
        "requeue": True,
        "signal": f"TERM@{WARNING_SECONDS}",
        **cluster.options,
        **after,
    }
    executor.update_parameters(
        job_name=token,
        time=None,  # of the partition, unless it stands among the options
        wckey=None,
        array_parallelism=cluster.max_parallel or len(tasks),
        setup=[
            *cluster.setup,
            *(f"export {name}={shlex.quote(path[name])}" for name in ("PYTHONPATH", "PYTHONSAFEPATH")),
        ],
        additional_parameters=options,
    )
    names = [task.name for task in tasks]
    elements = range(len(tasks))
    rest = [[str(directory)] * len(tasks), names, elements, [time_limit] * len(tasks)]
    try:
        submitted = executor.map_array(run_element, *rest)
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        what = (str(error).strip().splitlines() or ["no reason is given"])[-1]
        raise UserError(f"sbatch refuses the job: {what}.") from error
    number = submitted[0].job_id.partition("_")[0]
    for workdir, element in placed:
        Job(token, element, number).write(workdir)
    return number


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise UserError(
            f"--executor=slurm needs the package submitit: {sys.executable} -m pip install '.[slurm]'."
        ) from error
    return submitit
