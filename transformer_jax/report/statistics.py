"""The statistics of an ablation: variants share their seeds, so every difference is a paired one.

Pure functions on one-dimensional arrays, one entry a seed. Where the number of seeds does not carry a method the
function returns None, and the report prints nothing rather than a number that means nothing.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

LEVEL = 0.05  # a difference is called one when its corrected p is below this
CONFIDENCE = 1 - LEVEL
# With n seeds no sign-flip test can give less than 2 / 2^n, and 2 / 2^6 = 0.031 is the first below 0.05.
MIN_SEEDS_PERMUTATION = 6
# Resampling fewer values than this gives intervals that are known to be too narrow.
MIN_SEEDS_BOOTSTRAP = 10
# All 2^n sign patterns are tried up to n = 16, beyond that as many random ones.
MAX_SIGN_PATTERNS = 2**16
BOOTSTRAP_SAMPLES = 9999
MOST_SEEDS = 100_000

Values = Sequence[float] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Interval:
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclasses.dataclass(frozen=True)
class Summary:
    """n values: mean, sample standard deviation (from n = 2) and the 95 % t interval of the mean (if they spread)."""

    n: int
    mean: float | None
    sd: float | None
    interval: Interval | None


@dataclasses.dataclass(frozen=True)
class PairedT:
    """The paired t test of n differences.

    t, p, interval and effect_size (Cohen's d of paired differences, mean / sd) are None where they do not exist: for
    one pair, and for identical differences, whose spread cannot be estimated. Differences that are all zero have p = 1.
    """

    n: int
    mean: float
    sd: float | None
    interval: Interval | None
    t: float | None
    p: float | None
    effect_size: float | None


@dataclasses.dataclass(frozen=True)
class SignFlip:
    """Two-sided p of the sign-flip permutation test, and the smallest p that so few seeds can give."""

    p: float
    smallest_p: float


def summarize(values: Values) -> Summary:
    x = np.asarray(values, float)
    if not x.size:
        return Summary(0, None, None, None)
    if x.size == 1:
        return Summary(1, float(x[0]), None, None)
    if _constant(x):
        return Summary(x.size, float(x[0]), 0.0, None)
    mean, sd = float(x.mean()), float(x.std(ddof=1))
    return Summary(x.size, mean, sd, _t_interval(mean, sd, x.size))


def paired_differences(treatment: Values, control: Values) -> np.ndarray:
    """treatment - control, pair by pair, without rounding noise.

    0.9 - 0.8 and 0.8 - 0.7 are unequal in floating point; a t test would take that for a tiny spread and find a huge t.
    """
    a, b = np.asarray(treatment, float), np.asarray(control, float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"pairs need two arrays of one length, got shapes {a.shape} and {b.shape}")
    differences = a - b
    if not a.size:
        return differences
    noise = 8 * np.finfo(float).eps * max(np.abs(a).max(), np.abs(b).max())
    differences[np.abs(differences) <= noise] = 0.0
    if np.ptp(differences) <= noise:
        differences[:] = differences[0]
    return differences


def paired_t(differences: Values) -> PairedT:
    """Two-sided paired t test of at least one difference; its 95 % interval contains 0 exactly when p > 0.05."""
    d = np.asarray(differences, float)
    if not d.size:
        raise ValueError("a paired test needs at least one pair")
    if d.size == 1:
        return PairedT(1, float(d[0]), None, None, None, None, None)
    if _constant(d):
        return PairedT(d.size, float(d[0]), 0.0, None, None, None if d[0] else 1.0, None)
    mean, sd = float(d.mean()), float(d.std(ddof=1))
    test = stats.ttest_1samp(d, 0.0)
    interval = _t_interval(mean, sd, d.size)
    return PairedT(d.size, mean, sd, interval, float(test.statistic), float(test.pvalue), mean / sd)


def sign_flip(differences: Values) -> SignFlip | None:
    """Sign-flip permutation test of the mean difference; exact up to 16 seeds, None below 6.

    Without a true difference every sign was equally likely. Nothing is assumed about the shape of the distribution.
    """
    d = np.asarray(differences, float)
    if d.size < MIN_SEEDS_PERMUTATION:
        return None
    test = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=MAX_SIGN_PATTERNS, vectorized=True, axis=-1,
        random_state=np.random.default_rng(0),
    )  # fmt: skip
    patterns = 2**d.size if 2**d.size <= MAX_SIGN_PATTERNS else MAX_SIGN_PATTERNS + 1
    return SignFlip(float(test.pvalue), 2 / patterns)


def bootstrap_interval(differences: Values) -> Interval | None:
    """95 % BCa bootstrap interval of the mean difference (Efron 1987), seeds resampled.

    None below 10 seeds or without spread.
    """
    d = np.asarray(differences, float)
    if d.size < MIN_SEEDS_BOOTSTRAP or _constant(d):
        return None
    result = stats.bootstrap(
        (d,), np.mean, confidence_level=CONFIDENCE, n_resamples=BOOTSTRAP_SAMPLES, method="BCa", vectorized=True,
        random_state=np.random.default_rng(0),
    )  # fmt: skip
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (Holm 1979) in the order given; None stands for a test that could not be made."""
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        adjusted[i] = largest
    return adjusted


def power(seeds: int, effect_size: float) -> float:
    """Chance that the two-sided paired t test at level 0.05 sees a true mean / sd of `effect_size` (noncentral t)."""
    df = seeds - 1
    critical = stats.t.isf(LEVEL / 2, df)
    noncentrality = abs(effect_size) * math.sqrt(seeds)
    return float(stats.nct.sf(critical, df, noncentrality) + stats.nct.cdf(-critical, df, noncentrality))


def seeds_needed(difference: float, sd: float, target_power: float = 0.8) -> int | None:
    """The fewest seeds with which a true `difference` is seen with `target_power`, given the sd of paired differences.

    The sd is itself an estimate, and a rough one from few seeds. None beyond 100,000 seeds.
    """
    if not (difference and sd > 0):
        raise ValueError(f"needs a difference and a spread, got {difference=} and {sd=}")
    low, high = 1, 2  # too few (one seed cannot be tested), and tried
    while power(high, difference / sd) < target_power:
        if high == MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, difference / sd) >= target_power else (middle, high)
    return high


def _constant(x: np.ndarray) -> bool:
    return bool(np.ptp(x) == 0)


def _t_interval(mean: float, sd: float, n: int) -> Interval:
    half = float(stats.t.isf(LEVEL / 2, n - 1)) * sd / math.sqrt(n)
    return Interval(mean - half, mean + half)
