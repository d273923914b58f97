"""Which runs of a sweep were given to Slurm, and which of their jobs are still in its queue.

A run directory says by job.json which element of which job array may train it. The name of the array is drawn anew for
each submission, and is written before there is a job: so a job is known even where the process that submitted it died,
and is told apart from another one that Slurm, after it was set up anew, gave the same number.
"""

import dataclasses
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from transformer_jax.checked_json import checked, read_json
from transformer_jax.errors import UserError
from transformer_jax.report.wording import count
from transformer_jax.run.directory import JOB, write_json
from transformer_jax.sweeps.grouping import Planned

SLURM = "slurm"
"""Of a sweep: a directory for each job array, of its tasks and of what its jobs printed."""
QUEUE = "queue.json"
SECONDS = 60.0
"""Slurm is not asked more often than that, however many jobs there are: it serves everybody on the cluster."""


@dataclasses.dataclass(frozen=True)
class Job:
    """An element of a job array.

    Attributes:
      token: the name of the array, which no other has.
      number: that of the array at Slurm; "": it is not known whether it was submitted.
    """

    token: str
    element: int
    number: str = ""

    @property
    def name(self) -> str:
        return f"{self.number or self.token}_{self.element}"

    def write(self, run: Path) -> None:
        """Into a run directory: the element may train it, and no other."""
        write_json(run / JOB, dataclasses.asdict(self))


def read_job(run: Path) -> Job | None:
    """The job that may train a run; None if it was given to none.

    Raises:
      UserError: job.json is damaged.
    """
    if not (run / JOB).is_file():
        return None
    content = checked(read_json(run / JOB), {"token": str, "element": int, "number": str}, run / JOB)
    return Job(content["token"], content["element"], content["number"])


def jobs_of(runs: Iterable[Planned]) -> dict[str, Job]:
    """Run -> its job, of the open runs that were given to Slurm."""
    found = {run.name: read_job(run.workdir) for run in runs if run.is_open}
    return {name: job for name, job in found.items() if job is not None}


Name = TypeVar("Name")


def in_queue(
    sweep: Path, jobs: Mapping[Name, Job], wait: bool = False, say: Callable[[str], None] = print
) -> dict[Name, str]:
    """Run -> the state of its job, of those that are in Slurm's queue: "PENDING", "RUNNING", "COMPLETING", ...

    Args:
      jobs: see `jobs_of`.
      wait: for an answer that is not older than this call; else one of the last minute will do.

    Raises:
      UserError: Slurm cannot be asked.
    """
    if not jobs:
        return {}
    path = sweep / SLURM / QUEUE
    age = _age(path)
    if age is not None and age < SECONDS and wait:
        say(f"Slurm was asked {age:.0f} seconds ago, and is asked once a minute: waiting.")
        time.sleep(SECONDS - age)
        age = None
    if age is None or age >= SECONDS:
        write_json(path, {"asked": time.time(), "jobs": _ask(sorted({job.token for job in jobs.values()}))})
    known = {(token, element): state for token, element, state in _read(path)["jobs"]}
    states = {name: known.get((job.token, job.element)) for name, job in jobs.items()}
    return {name: state for name, state in states.items() if state is not None}


def _age(path: Path) -> float | None:
    """Seconds since Slurm was asked, by the clock that wrote it; None if it was not, or that clock is another."""
    if not path.is_file():
        return None
    age = time.time() - _read(path)["asked"]
    return age if age >= 0 else None


def _read(path: Path) -> dict[str, Any]:
    return checked(read_json(path), {"asked": float, "jobs": list[tuple[Any, Any, Any]]}, path)


def _ask(tokens: Sequence[str]) -> list[tuple[str, int, str]]:
    """Token, element and state of every job of those names, by one question."""
    answer = call("squeue", "--noheader", "--array", "--format=%j|%K|%T", f"--name={','.join(tokens)}")
    lines = [line.split("|") for line in answer.splitlines() if line.count("|") == 2]
    return [(token, int(element) if element.isdigit() else 0, state) for token, element, state in lines]


def call(command: str, *arguments: str) -> str:
    """What a command of Slurm prints.

    Raises:
      UserError: it is not there, or fails.
    """
    if shutil.which(command) is None:
        raise UserError(f"{command} is not on this machine: give the command where Slurm is.")
    done = subprocess.run([command, *arguments], capture_output=True, text=True, errors="replace")
    if done.returncode:
        what = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise UserError(f"{command} fails: {what}.")
    return done.stdout


def cancel_jobs(sweep: Path, runs: Sequence[Planned]) -> int:
    """Cancels what is in the queue of the open runs; how many jobs. Those that run save first; all can be resumed."""
    jobs = jobs_of(runs)
    tokens = sorted({job.token for job in jobs.values()})
    if not tokens:
        return 0
    there = {(token, element) for token, element, _ in _ask(tokens)}
    for token in sorted({token for token, _ in there}):
        call("scancel", f"--name={token}")
    (sweep / SLURM / QUEUE).unlink(missing_ok=True)  # it is no longer true
    return len(there)


def last_words(sweep: Path, job: Job) -> str:
    """The last line of what a job printed as its errors; "" if there is none."""
    for path in sorted((sweep / SLURM / job.token).glob(f"*_{job.element}_0_log.err"), reverse=True):
        lines = path.read_text(errors="replace").strip().splitlines()
        if lines:
            return lines[-1]
    return ""


def describe_queue(states: Mapping[str, str]) -> str:
    """As "3 runs are in Slurm's queue (1 running, 2 pending)"."""
    kinds = sorted(set(states.values()))
    parts = ", ".join(f"{sum(state == kind for state in states.values())} {kind.lower()}" for kind in kinds)
    return f"{count(len(states), 'run')} {'is' if len(states) == 1 else 'are'} in Slurm's queue ({parts})"
