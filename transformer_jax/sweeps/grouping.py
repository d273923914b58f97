"""From the runs of a sweep to tasks: which share a program, and which of those are trained together as lanes."""

import dataclasses
import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer_jax.config import Config
from transformer_jax.run.directory import CONFIG, is_settled
from transformer_jax.run.resolve import common_config, differing
from transformer_jax.sweeps.reuse import ORIGIN, known_result
from transformer_jax.sweeps.worker import Task


@dataclasses.dataclass(frozen=True)
class Planned:
    """A run of a sweep.

    Attributes:
      key: which experiment it is, see `run_key`.
      parameters: how many it has.
      number: of its seed among those of its row, from 0.
    """

    row: str
    config: Config
    workdir: Path
    key: str
    parameters: int = 1
    number: int = 0

    @property
    def name(self) -> str:
        return _name(self.workdir)

    @property
    def is_open(self) -> bool:
        return not is_settled(self.workdir)

    @property
    def was_started(self) -> bool:
        return (self.workdir / CONFIG).is_file()

    @property
    def result(self) -> Mapping[str, Any] | None:
        """The content of result.json, if there is one that can be read."""
        return known_result(self.workdir)


def group_by_program(runs: Iterable[Planned]) -> list[list[Planned]]:
    """Runs that one compiled program can train: they differ in seed and traceable numbers alone."""
    programs: dict[Config, list[Planned]] = {}
    for run in runs:
        programs.setdefault(common_config(run.config), []).append(run)
    return list(programs.values())


def representatives(runs: Sequence[Planned]) -> list[Planned]:
    """One run for each experiment: of those that are the same by several names, the one that is furthest."""
    chosen: dict[str, Planned] = {}
    for run in runs:
        known = chosen.setdefault(run.key, run)
        if (run.result is not None, run.was_started) > (known.result is not None, known.was_started):
            chosen[run.key] = run
    return list(chosen.values())


def make_tasks(
    programs: Sequence[Sequence[Planned]], groups: Collection[Sequence[str]], lanes: int, workers: int
) -> tuple[list[Task], list[list[str]]]:
    """What is left to do, as tasks for `workers` processes.

    Args:
      groups: names of the runs that were started together before: they stay together.
      lanes: runs trained together from now on; 1: one after another. What was started alone stays alone.

    Returns:
      The tasks, and the groups that they train.
    """
    tasks: list[tuple[int, Task]] = []
    waiting = sum(run.is_open for program in programs for run in program)
    for program in programs:
        together = _started_together(program, groups)
        placed = {run.name for group in together for run in group}
        rest = [run for run in program if run.is_open and run.name not in placed]
        fresh = [] if lanes == 1 else [run for run in rest if not run.was_started]
        new = _split(fresh, math.ceil(len(fresh) / lanes))
        together += [group for group in new if len(group) > 1]
        placed |= {run.name for group in together for run in group}
        alone = [run for run in rest if run.name not in placed]
        # Long programs are shared among the processes, so that none of them is left alone at the end.
        parts = _split(alone, max(1, round(len(alone) * workers / max(waiting, 1))))
        traced = differing([run.config for run in program])
        for group, lanes_of_task in [*((group, len(group)) for group in together), *((part, 1) for part in parts)]:
            name = f"{len(tasks):03d}-{group[0].row}"
            task = Task(name, [r.config for r in group], [r.workdir for r in group], traced, lanes_of_task)
            tasks.append((sum(run.parameters * run.config.train.steps for run in group), task))
    # The longest first: a long one that came last would keep one process busy while the others are done.
    ordered = [task for _, task in sorted(tasks, key=lambda entry: -entry[0])]
    return ordered, [[_name(workdir) for workdir in task.workdirs] for task in ordered if task.lanes > 1]


def _started_together(program: Sequence[Planned], groups: Collection[Sequence[str]]) -> list[Sequence[Planned]]:
    """The groups to resume: something is open in them, and what is not has its result from these very lanes."""
    by_name = {run.name: run for run in program}
    found: list[Sequence[Planned]] = []
    for names in groups:
        group = [by_name[name] for name in names if name in by_name]
        whole = len(group) == len(names) and all(run.is_open or _is_of_lanes(run, len(names)) for run in group)
        if whole and any(run.is_open for run in group) and any(run.was_started for run in group):
            found.append(group)
    return found


def _is_of_lanes(run: Planned, lanes: int) -> bool:
    executed = (run.result or {}).get("executed")
    return isinstance(executed, dict) and executed.get("lanes") == lanes and ORIGIN not in (run.result or {})


def _name(workdir: Path) -> str:
    return f"{workdir.parent.name}/{workdir.name}"


def _split(runs: Sequence[Planned], parts: int) -> list[Sequence[Planned]]:
    """Into so many parts of (nearly) equal size, in order; none is empty."""
    bounds = [len(runs) * k // max(parts, 1) for k in range(parts + 1)]
    return [runs[low:high] for low, high in itertools.pairwise(bounds) if high > low]
