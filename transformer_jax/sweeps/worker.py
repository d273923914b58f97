"""A process of a sweep: takes tasks one after another, and compiles one program for all runs of a task.

python -m transformer_jax.sweeps.worker DIRECTORY CPU,CPU,...

Each line of its standard input names a task of the directory; it lives until that input ends.
"""

import contextlib
import dataclasses
import os
import queue
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path

from transformer_jax.checked_json import read_json
from transformer_jax.compilation import keep_freed_memory, use_cpus, use_persistent_cache
from transformer_jax.config import Config, freeze, to_dict
from transformer_jax.errors import UserError
from transformer_jax.run.compile import Program, compile_program
from transformer_jax.run.directory import ERROR, write_json
from transformer_jax.run.interruption import STOPPED, Interruption
from transformer_jax.run.resolve import load_assets
from transformer_jax.run.train import train_lanes

TASKS = "tasks"
"""The directory of a sweep, or of a job array, in which tasks are written for those who take them."""
UNFORESEEN = 70
"""Exit status after an error that was not foreseen: what comes next deserves a new process (EX_SOFTWARE)."""


@dataclasses.dataclass(frozen=True)
class Task:
    """Runs of one program: configs that differ in seed and the `traced` fields, and their directories.

    Attributes:
      lanes: 1: they are trained one after another; else all of them together, and this is how many.
    """

    name: str
    configs: Sequence[Config]
    workdirs: Sequence[Path]
    traced: Sequence[str] = ()
    lanes: int = 1

    def label(self, indices: Sequence[int]) -> str:
        """Rows and seeds of those of its runs, as progress shows them."""
        seeds: dict[str, list[str]] = {}
        for k in indices:
            seeds.setdefault(self.workdirs[k].parent.name, []).append(str(self.configs[k].seed))
        if len(seeds) > 2:
            return f"{len(indices)} runs of {', '.join(seeds)}"
        return "; ".join(f"{row} seed {','.join(found)}" for row, found in seeds.items())

    def only(self, indices: Sequence[int]) -> "Task":
        """The task with those of its runs."""
        configs, workdirs = [self.configs[k] for k in indices], [self.workdirs[k] for k in indices]
        return dataclasses.replace(self, configs=configs, workdirs=workdirs, lanes=min(self.lanes, len(indices)))


def write_task(directory: Path, task: Task) -> Path:
    """As JSON; its path."""
    runs = [{"config": to_dict(c), "workdir": str(w)} for c, w in zip(task.configs, task.workdirs, strict=True)]
    rest = {"name": task.name, "traced": list(task.traced), "lanes": task.lanes}
    path = directory / f"{task.name}.json"
    write_json(path, {**rest, "runs": runs})
    return path


def read_task(path: Path) -> Task:
    """What `write_task` wrote."""
    content = read_json(path)
    runs = content["runs"]
    configs, workdirs = [freeze(run["config"]) for run in runs], [Path(run["workdir"]) for run in runs]
    return Task(content["name"], configs, workdirs, content["traced"], content["lanes"])


def run_task(task: Task) -> None:
    """Trains the runs of a task; those that fail leave error.json, and the others whole.

    Raises:
      SystemExit: one failed as no UserError says, so nobody knows what state this process, or its device, is in.
    """
    every = range(len(task.configs))
    program = None
    for together in [every] if task.lanes > 1 else [[index] for index in every]:
        program = _attempt(task, together, program)


def _attempt(task: Task, indices: Sequence[int], program: Program | None) -> Program | None:
    """Trains those runs together; the program, for the next."""
    configs, workdirs = [task.configs[i] for i in indices], [task.workdirs[i] for i in indices]
    label = task.label(indices)

    def say(line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # the sweep has died: no fault of this run
            print(f"[{label}] {line}", flush=True)

    try:
        if program is None:
            program = compile_program(configs[0], task.lanes, load_assets(workdirs[0], configs[0]), task.traced)
        train_lanes(configs, workdirs, program=program, say=say)
    except Interruption:
        raise
    except Exception as error:
        message = str(error).strip() or type(error).__name__
        say(f"failed: {message.splitlines()[0]}")
        detail = "" if isinstance(error, UserError) else traceback.format_exc()
        for workdir in workdirs:
            write_json(workdir / ERROR, {"type": type(error).__name__, "message": message, "traceback": detail})
        if not isinstance(error, UserError):
            raise SystemExit(UNFORESEEN) from error
    return program


def lines_of_parent() -> "queue.SimpleQueue[str]":
    """The lines of standard input, as they come.

    Where it ends, so does this process, without a word: the sweep has no more for it, or has died, and a run that is
    cut off can be resumed.
    """
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line.rstrip("\n"))
        os._exit(STOPPED)

    threading.Thread(target=read, daemon=True).start()
    return lines


def main(arguments: Sequence[str]) -> int:
    """Exit status: 75 when it is told to end, else 70."""
    names = lines_of_parent()
    use_cpus([int(cpu) for cpu in arguments[1].split(",") if cpu])
    keep_freed_memory()
    use_persistent_cache()
    try:
        while True:
            run_task(read_task(Path(arguments[0]) / names.get()))
    except Interruption:
        return STOPPED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
