"""How a sweep is executed: runs one after another or together as lanes, as measured, and how long it will take."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer_jax.compilation import available_cpus
from transformer_jax.data import Dataset
from transformer_jax.errors import UserError
from transformer_jax.sweeps.calibration import Timing, calibrate
from transformer_jax.sweeps.grouping import Planned
from transformer_jax.sweeps.wording import seconds_text

MOST_LANES = 16
"""Tried together: a device is full by then, or has little more to gain."""


@dataclasses.dataclass(frozen=True)
class Execution:
    """Kept in sweep.json, so that a sweep that is gone on with keeps it.

    Attributes:
      lanes: runs trained together; 0: not chosen yet.
      groups: names of the runs of each population.
    """

    lanes: int = 0
    groups: Sequence[Sequence[str]] = ()

    @classmethod
    def read(cls, content: Any, path: Path) -> "Execution":
        """From sweep.json; UserError if it is not what this program writes."""
        try:
            lanes, groups = content["lanes"], [[str(name) for name in group] for group in content["groups"]]
            if not isinstance(lanes, int) or lanes < 0 or not all(groups):
                raise ValueError
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f'{path}: its "execution" is damaged. Give this sweep another --workdir.') from error
        return cls(lanes, groups)


def choose_lanes(
    execution: Execution,
    programs: Sequence[Sequence[Planned]],
    asked: int | None,
    workers: int,
    datasets: Mapping[Any, Dataset],
    directory: Path,
    environment: Mapping[str, str],
    say: Callable[[str], None],
) -> Execution:
    """With the lanes that were `asked` for, were chosen before, or are faster; says which, why, and how long it takes.

    Args:
      programs: the runs, by program.
      directory: for the file that the calibrating process reads.
      environment: variables of that process.
    """
    largest = max(programs, key=_open)
    chosen = asked or execution.lanes
    tried = chosen or min(MOST_LANES, math.ceil(_open(largest) / workers))  # so that no process stands idle
    cpus = available_cpus()[::workers]
    timing = calibrate(largest[0].config, tried, directory / "calibration.json", cpus, environment)
    lanes, why = _choice(timing, chosen, "as asked for" if asked else "as before")
    how = "one run after another" if lanes == 1 else f"up to {lanes} runs together in one program"
    time = "" if timing is None else f", estimated {seconds_text(_seconds(timing, programs, lanes, workers, datasets))}"
    say(f"Calibration: {why}. {how[0].upper()}{how[1:]}, in {workers} process{'es' * (workers > 1)}{time}.")
    return dataclasses.replace(execution, lanes=lanes)


def _choice(timing: Timing | None, chosen: int, whose: str) -> tuple[int, str]:
    if timing is None:
        return chosen or 1, "it failed, as the runs may"
    if timing.lanes == 1:
        return chosen or 1, f"{1000 * timing.step:.1f} ms a step"
    together = 1000 * timing.step_together / timing.lanes
    why = f"{1000 * timing.step:.1f} ms a step alone, {together:.1f} ms for each of {timing.lanes} lanes together"
    return (chosen, f"{why}; {whose}") if chosen else (timing.best_lanes, why)


def _seconds(
    timing: Timing, programs: Sequence[Sequence[Planned]], lanes: int, workers: int, datasets: Mapping[Any, Dataset]
) -> float:
    """Every program compiles once; all runs are taken to cost what the timed one does."""
    started = [timing.start for program in programs if _open(program)]
    runs = [run for program in programs for run in program if run.is_open]
    trained = [
        timing.of_run(run.config, {name: len(s) for name, s in datasets[run.config.data].splits.items()}, lanes)
        for run in runs
    ]
    at_once = min(workers, len(runs) if lanes == 1 else math.ceil(len(runs) / lanes))
    return (sum(started) + sum(trained)) / at_once


def _open(program: Sequence[Planned]) -> int:
    return sum(run.is_open for run in program)
