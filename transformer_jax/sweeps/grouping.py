"""From the runs of a sweep to tasks: which share a program, and which of those are trained together as lanes."""

import dataclasses
import itertools
import math
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from transformer_jax.config import Config
from transformer_jax.program import common_config, differing
from transformer_jax.run_directory import CONFIG, is_settled
from transformer_jax.sweeps.worker import Task


@dataclasses.dataclass(frozen=True)
class Planned:
    """A run of a sweep. `key` says which experiment it is, see `run_key`."""

    row: str
    config: Config
    workdir: Path
    key: str

    @property
    def name(self) -> str:
        return f"{self.row}/{self.workdir.name}"

    @property
    def is_open(self) -> bool:
        return not is_settled(self.workdir)

    @property
    def has_begun(self) -> bool:
        return (self.workdir / CONFIG).is_file()


def group_by_program(runs: Iterable[Planned]) -> list[list[Planned]]:
    """Runs that one compiled program can train: they differ in seed and traceable numbers alone."""
    programs: dict[Config, list[Planned]] = {}
    for run in runs:
        programs.setdefault(common_config(run.config), []).append(run)
    return list(programs.values())


def make_tasks(
    programs: Sequence[Sequence[Planned]], groups: Collection[Sequence[str]], lanes: int, workers: int
) -> tuple[list[Task], list[list[str]]]:
    """What is left to do, as tasks for `workers` processes.

    Args:
      groups: names of the runs of every population that was begun before: it goes on with the same lanes.
      lanes: runs trained together from now on; 1: one after another. What has begun alone goes on alone.

    Returns:
      The tasks, and the groups with the new ones.
    """
    tasks: list[Task] = []
    all_groups = [list(group) for group in groups]
    waiting = sum(run.is_open for program in programs for run in program)
    for program in programs:
        by_name = {run.name: run for run in program}
        together = [[by_name[name] for name in group] for group in groups if by_name.keys() >= set(group)]
        placed = {run.name for group in together for run in group}
        rest = [run for run in program if run.is_open and run.name not in placed]
        alone = [run for run in rest if lanes == 1 or run.has_begun]
        fresh = [run for run in rest if run not in alone]
        new = _split(fresh, math.ceil(len(fresh) / lanes))
        all_groups += [[run.name for run in group] for group in new]
        traced = differing([run.config for run in program])
        # Long programs are shared among the processes, so that none of them is left alone at the end.
        parts = _split(alone, max(1, round(len(alone) * workers / max(waiting, 1))))
        for group, population in [
            *((group, True) for group in together if any(run.is_open for run in group)),
            *((group, True) for group in new),
            *((part, False) for part in parts),
        ]:
            name = f"{len(tasks):03d}-{group[0].row}"
            tasks.append(Task(name, [r.config for r in group], [r.workdir for r in group], traced, population))
    return tasks, all_groups


def _split(runs: Sequence[Planned], parts: int) -> list[Sequence[Planned]]:
    """Into so many parts of (nearly) equal size, in order; none is empty."""
    bounds = [len(runs) * k // max(parts, 1) for k in range(parts + 1)]
    return [runs[low:high] for low, high in itertools.pairwise(bounds) if high > low]
