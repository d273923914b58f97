"""Are K seeds in one program faster than K runs one after another?

    ./launch.sh benchmark populations --config=configs/scan_short.py

Each round times one step of a population of K lanes and one step of a run alone, in turn, so that what else the machine
does falls on both alike; a figure is the median over the rounds of time per lane and step.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from transformer_jax.config import Config, with_values
from transformer_jax.program import Program

LANES, ROUNDS = (1, 4, 16), 15


def run(config: Config, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """For each number of lanes: milliseconds a lane and step, one after another and together, and the gain."""
    alone = _Stepper(config, 1, population=False)
    rows = []
    for lanes in LANES:
        together = _Stepper(config, lanes, population=True)
        rounds = [(alone.milliseconds(), together.milliseconds() / lanes) for _ in range(ROUNDS + 1)]
        apart, joint = np.median(rounds[1:], axis=0).tolist()  # the first round compiles
        rows.append({"lanes": lanes, "one_after_another_ms": apart, "together_ms": joint, "gain": apart / joint})
        say(f"{lanes:>3} lanes: {apart:8.2f} ms alone, {joint:8.2f} ms together, {apart / joint:.2f} times as fast")
    return rows


class _Stepper:
    """A program that takes steps on the batch of its first step."""

    def __init__(self, config: Config, lanes: int, *, population: bool):
        self._program = Program(config, lanes if population else None)
        configs = [with_values(self._program.config, {"seed": seed}) for seed in range(lanes)]
        self._lane = self._program.lane(configs)
        self._state = self._program.layout.put(self._program.init(self._lane))
        self._batch = self._program.batch(0, range(lanes))

    def milliseconds(self) -> float:
        """Of one step, done when its result is there."""
        begun = time.perf_counter()
        self._state, sums = self._program.step(self._state, self._batch, self._lane)
        jax.block_until_ready((self._state, sums))
        return 1000 * (time.perf_counter() - begun)
