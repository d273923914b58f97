"""Times a program before a sweep begins: how long its runs will take, and whether lanes are faster together.

python -m transformer_jax.sweeps.calibration TASK.json LANES CPU,CPU,...     prints a Timing as JSON
"""

import dataclasses
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax

from transformer_jax.compilation import keep_freed_memory, use_cpus, use_persistent_cache
from transformer_jax.config import Config, with_values
from transformer_jax.evaluation.evaluator import Trained
from transformer_jax.processes import of_this_code
from transformer_jax.run.compile import compile_program
from transformer_jax.run.interruption import Interruption, stop_requested
from transformer_jax.strict_json import to_json
from transformer_jax.sweeps.worker import Task, lines_of_parent, read_task, write_task

ROUNDS = 10
EXAMPLES = 128  # whose evaluation is timed
MOST_SECONDS = 900  # after which it is given up
GAIN = 1.2  # what so short a measurement must show before runs are tied together


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds, measured.

    Attributes:
      start: until a run alone has compiled and done its first step and its first evaluation.
      step: of a training step of a run alone.
      score, decode: of a pair, teacher-forced and written by the model.
      lanes: how many were tried together; 1: none.
      step_together: of a training step of all of them; at 1 that of the run alone.
    """

    start: float
    step: float
    score: float
    decode: float
    lanes: int
    step_together: float

    @property
    def gain(self) -> float:
        """How many times as fast the lanes are together as one after another."""
        return self.lanes * self.step / self.step_together

    @property
    def best_lanes(self) -> int:
        return self.lanes if self.gain >= GAIN else 1

    def of_run(self, config: Config, pairs: Mapping[str, int], lanes: int, size: float) -> float:
        """Seconds of a run whose splits have so many pairs, its start left out.

        `lanes`: trained together; `size`: how many times the parameters of the timed one it has.
        """
        step = size * (self.step if lanes == 1 or self.lanes == 1 else self.step_together / self.lanes)
        evaluations = math.ceil(config.train.steps / config.train.evaluate_every)
        written = pairs.get("valid", 0) + pairs.get("test", 0)
        scored = evaluations * pairs.get("valid", 0) + written
        return config.train.steps * step + scored * self.score + written * self.decode


class Stepper:
    """A program that takes its first steps again and again; its lanes differ in the seed."""

    def __init__(self, config: Config, lanes: int = 1):
        self.program = compile_program(config, lanes)
        self._lanes = self.program.lanes([with_values(self.program.config, {"seed": n}) for n in range(lanes)])
        self._state = self.program.steps.init(self._lanes)

    def seconds(self) -> float:
        """Mean seconds a step over one dispatch, waiting for the result."""
        started = time.perf_counter()
        limit = self.program.config.train.steps_per_dispatch
        self._state, totals, count = self.program.steps.take(self._state, 0, limit, self._lanes)
        jax.block_until_ready((self._state, totals))
        return (time.perf_counter() - started) / count

    def seconds_of_measuring(self, write: bool) -> float:
        """Seconds to evaluate EXAMPLES examples of the validation split."""
        started = time.perf_counter()
        split = self.program.dataset.splits["valid"].first(EXAMPLES)
        lanes = self.program.layout.put(self._lanes)
        self.program.evaluator.measure(Trained(self._state.evaluated, lanes), split, write=write)
        return time.perf_counter() - started


def interleaved(*steppers: Stepper, rounds: int = ROUNDS) -> list[float]:
    """The median seconds of a step of each, taken in turn, so that what else the machine does falls on all alike."""
    times = [[stepper.seconds() for stepper in steppers] for _ in range(rounds + 1)][1:]  # the first round compiles
    return [statistics.median(column) for column in zip(*times, strict=True)]


def measure(config: Config, lanes: int) -> Timing:
    """Times runs of `config`: alone, and `lanes` of them together where that is above 1."""
    started = time.perf_counter()
    alone = Stepper(config)
    alone.seconds()
    alone.seconds_of_measuring(write=True)
    start = time.perf_counter() - started
    examples = min(EXAMPLES, len(alone.program.dataset.splits["valid"]))
    score, decode = (alone.seconds_of_measuring(write) / examples for write in (False, True))
    together, lanes = _most_that_fit(config, lanes)
    steps = interleaved(alone, *together)
    return Timing(start, steps[0], score, max(decode - score, 0.0), lanes, steps[-1])


def _most_that_fit(config: Config, lanes: int) -> tuple[list[Stepper], int]:
    """A stepper of so many lanes, or of half as many, and so on, where the device's memory is too small."""
    while lanes > 1:
        try:
            stepper = Stepper(config, lanes)
            stepper.seconds()
            stepper.seconds_of_measuring(write=True)
            return [stepper], lanes
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            stepper = None  # its memory is free before the next is made
            lanes //= 2
    return [], 1


def calibrate(
    config: Config,
    lanes: int,
    directory: Path,
    cpus: Sequence[int],
    environment: Mapping[str, str],
    say: Callable[[str], None],
) -> Timing | None:
    """`measure` in a process of its own, as the runs will have; None, and why, if that fails, as the runs then may.

    Raises:
      Interruption: asked to stop.
    """
    path = write_task(directory, Task("calibration", [config], [directory]))
    arguments = [str(path), str(lanes), ",".join(map(str, cpus))]
    begun = time.monotonic()
    with stop_requested() as stop, tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "transformer_jax.sweeps.calibration", *arguments],
            stdin=subprocess.PIPE,  # ends with this process, and the other with it
            stdout=output,
            stderr=errors,
            env=of_this_code(environment),
            start_new_session=True,
        )
        while process.poll() is None and not stop and time.monotonic() - begun < MOST_SECONDS:
            time.sleep(0.1)
        process.kill()
        process.communicate()
        if stop:
            raise Interruption(None)
        output.seek(0)
        errors.seek(0)
        try:
            return Timing(**json.loads(output.read().splitlines()[-1]))
        except (ValueError, TypeError, IndexError):
            why = (errors.read().strip().splitlines() or [f"it did not end in {MOST_SECONDS} seconds"])[-1]
    say(f"The calibration failed, as the runs may ({why}).")
    return None


def main(arguments: Sequence[str]) -> None:
    path, lanes, cpus = arguments
    lines_of_parent()
    use_cpus([int(cpu) for cpu in cpus.split(",") if cpu])
    keep_freed_memory()
    use_persistent_cache()
    print(to_json(dataclasses.asdict(measure(read_task(Path(path)).configs[0], int(lanes)))))


if __name__ == "__main__":
    main(sys.argv[1:])
