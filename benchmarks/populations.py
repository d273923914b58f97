"""Are K seeds in one program faster than K runs one after another?

    ./launch.sh benchmark populations --config=configs/scan_short.py

Each round times one step of a population of K lanes and one step of a run alone, in turn, so that what else the machine
does falls on both alike; a figure is the median over the rounds of time per lane and step.
"""

from collections.abc import Callable
from typing import Any

from transformer_jax.config import Config
from transformer_jax.sweeps.calibration import Stepper, interleaved

OF = ("config",)
LANES, ROUNDS = (1, 4, 16), 15


def run(config: Config, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """For each number of lanes: milliseconds a lane and step, one after another and together, and the gain."""
    alone = Stepper(config)
    rows = []
    for lanes in LANES:
        apart, together = (1000 * seconds for seconds in interleaved(alone, Stepper(config, lanes), rounds=ROUNDS))
        joint = together / lanes
        rows.append({"lanes": lanes, "one_after_another_ms": apart, "together_ms": joint, "gain": apart / joint})
        say(f"{lanes:>3} lanes: {apart:8.2f} ms alone, {joint:8.2f} ms together, {apart / joint:.2f} times as fast")
    return rows
