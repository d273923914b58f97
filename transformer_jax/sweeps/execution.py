"""How a sweep is executed: runs one after another or together as lanes, as measured, and how long it will take."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer_jax.compilation import available_cpus
from transformer_jax.config import Config
from transformer_jax.data import Dataset
from transformer_jax.errors import UserError
from transformer_jax.report.wording import count, seconds_text
from transformer_jax.run.compile import check_lanes
from transformer_jax.sweeps.calibration import Timing, calibrate
from transformer_jax.sweeps.grouping import Planned

MOST_LANES = 16
"""Tried together: a device is full by then, or has little more to gain."""
FEWEST_STEPS = 100
"""Runs with fewer steps are neither timed nor compiled with full optimisation."""


@dataclasses.dataclass(frozen=True)
class Execution:
    """What is kept in sweep.json, so that a sweep that is resumed is executed in the same way.

    Attributes:
      lanes: runs trained together, from 1; None: not chosen yet.
      groups: names of the runs that are trained together, for each program that trains several.
    """

    lanes: int | None = None
    groups: Sequence[Sequence[str]] = ()

    @classmethod
    def read(cls, content: Any, path: Path) -> "Execution":
        """From sweep.json; UserError if it is not what this program writes."""
        try:
            lanes, groups = content["lanes"], [[str(name) for name in group] for group in content["groups"]]
            if not isinstance(lanes, int | None) or isinstance(lanes, bool) or (lanes or 0) < 0 or not all(groups):
                raise ValueError
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f'{path}: its "execution" is damaged. Give this sweep another --workdir.') from error
        return cls(lanes or None, groups)  # earlier versions wrote 0 for None


def is_short(config: Config) -> bool:
    """Whether a run takes so few steps that preparing them well would take longer than they do."""
    return config.train.steps < FEWEST_STEPS


def choose_lanes(
    programs: Sequence[Sequence[Planned]],
    wanted: int | None,
    workers: int,
    datasets: Mapping[Any, Dataset],
    directory: Path,
    environment: Mapping[str, str],
    say: Callable[[str], None],
) -> int:
    """How many runs are trained together; says what was measured, and how long the sweep will take.

    Args:
      programs: the runs, by program; the one with most runs is timed.
      wanted: so many lanes; None: as many as are faster than one run after another, or 1.
      directory: of the tasks.
      environment: variables of that process.
    """
    timed = max(programs, key=_open)
    if is_short(timed[0].config):
        lanes = wanted or 1
        steps = count(timed[0].config.train.steps, "step")
        say(f"Runs of {steps} are too short to be timed and, on a CPU, to be compiled well: {_how(lanes)}.")
        return lanes
    tried = wanted or _worth_trying(timed, workers)
    timing = calibrate(timed[0].config, tried, directory, available_cpus()[::workers], environment, say)
    if timing is None:
        return wanted or 1
    lanes = wanted or timing.best_lanes
    alone, together = 1000 * timing.step, 1000 * timing.step_together / timing.lanes
    measured = f"A step takes {alone:.1f} ms alone"
    if timing.lanes > 1:
        measured += f" and {together:.1f} ms for each of {timing.lanes} lanes together"
    time = seconds_text(_seconds(timing, timed[0], lanes, programs, workers, datasets))
    say(f"{measured}: {_how(lanes)}, estimated {time}.")
    return lanes


def _worth_trying(program: Sequence[Planned], workers: int) -> int:
    """Lanes: not so many that a process stands idle; 1 where there can be none."""
    try:
        check_lanes(program[0].config)
    except UserError:
        return 1
    return min(MOST_LANES, math.ceil(_open(program) / workers))


def _how(lanes: int) -> str:
    return "one run after another" if lanes == 1 else f"{lanes} runs together in one program"


def _seconds(
    timing: Timing,
    timed: Planned,
    lanes: int,
    programs: Sequence[Sequence[Planned]],
    workers: int,
    datasets: Mapping[Any, Dataset],
) -> float:
    """Estimated seconds of the sweep: one compilation a program, and steps that cost in proportion to parameters."""
    runs = [run for program in programs for run in program if run.is_open]
    sizes = {data: {name: len(split) for name, split in dataset.splits.items()} for data, dataset in datasets.items()}
    trained = sum(
        timing.of_run(run.config, sizes[run.config.data], lanes, run.parameters / timed.parameters) for run in runs
    )
    started = timing.start * sum(_open(program) > 0 for program in programs)
    return (started + trained) / min(workers, math.ceil(len(runs) / lanes))


def _open(program: Sequence[Planned]) -> int:
    return sum(run.is_open for run in program)
