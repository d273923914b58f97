"""How many seeds would settle what is open, if the truth is what was seen."""

import math
from collections.abc import Callable

from scipy import special

from transformer_jax.report.statistics import LEVEL, MeanTest

TARGET = 0.8
MOST_SEEDS = 10_000


def power(seeds: int, effect_size: float, level: float = LEVEL, df: float | None = None) -> float:
    """Chance that a two-sided t test sees a true mean / sd of `effect_size` (noncentral t).

    Args:
      df: degrees of freedom of so many seeds; None: those of the paired test.
    """
    df = seeds - 1 if df is None else df
    critical = -special.stdtrit(df, level / 2)
    noncentrality = abs(effect_size) * math.sqrt(seeds)
    above = 1.0 - special.nctdtr(df, noncentrality, critical)
    return float(above + special.nctdtr(df, noncentrality, -critical))


def power_of_equality(
    seeds: int, effect_size: float, margin: float, level: float = LEVEL, df: float | None = None
) -> float:
    """Chance, at least, that two one-sided tests show a true mean / sd of `effect_size` to lie within a wider `margin`.

    Each test fails with some chance; the sum of both is counted.
    """
    df = seeds - 1 if df is None else df
    critical = -special.stdtrit(df, level)
    distances = margin + effect_size, margin - effect_size
    fails = sum(float(special.nctdtr(df, distance * math.sqrt(seeds), critical)) for distance in distances)
    return max(0.0, 1.0 - fails)


def seeds_needed(test: MeanTest, margin: float | None, level: float = LEVEL) -> int | None:
    """The fewest seeds that settle a comparison with 80 % power, if difference and spread are those of `test`.

    It is settled by seeing the difference, or by showing it to lie within the margin, whichever takes fewer. None
    where there is no spread, or no number up to 10,000 is enough.
    """
    if not test.sd or test.df is None:
        return None
    effect, per_seed = test.mean / test.sd, test.df / (test.n - 1)
    wanted = [_fewest(lambda n: power(n, effect, level, per_seed * (n - 1)) >= TARGET)] if effect else []
    if margin is not None and abs(test.mean) < margin:
        bound = margin / test.sd
        wanted.append(_fewest(lambda n: power_of_equality(n, effect, bound, level, per_seed * (n - 1)) >= TARGET))
    return min((n for n in wanted if n is not None), default=None)


def _fewest(is_enough: Callable[[int], bool]) -> int | None:
    low, high = 1, 2  # too few (one seed cannot be tested), and tried
    while not is_enough(high):
        if high == MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
