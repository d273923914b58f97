"""The statistics of an ablation: two tests of a difference of means, a test of equality, and what corrects for many.

Pure functions on one-dimensional arrays, one entry a seed. Where the number of seeds does not carry a method the
function returns None, and the report prints nothing rather than a number that means nothing. Which test was adopted
from which simulation: docs/statistics.md.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import special, stats

LEVEL = 0.05  # a difference is called one when its corrected p is below this
CONFIDENCE = 1 - LEVEL
# With n seeds no sign-flip test can give less than 2 / 2^n, and 2 / 2^6 = 0.031 is the first below 0.05.
MIN_SEEDS_PERMUTATION = 6
# Resampling fewer values than this gives intervals that are known to be too narrow.
MIN_SEEDS_BOOTSTRAP = 10
# All 2^n sign patterns are tried up to n = 16, beyond that as many random ones.
MAX_SIGN_PATTERNS = 2**16
BOOTSTRAP_SAMPLES = 9999

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
class MeanTest:
    """A two-sided t test of a difference of means over n seeds.

    sd is that of one seed's difference: of the paired differences, or, of independent samples, the root of the sum of
    both variances; sd / sqrt(n) is the standard error in both, and effect_size is mean / sd. All but n and mean are
    None where they do not exist: for one seed, and (sd is 0 then) without spread. Differences that are all zero have
    p = 1.
    """

    n: int
    mean: float
    sd: float | None = None
    df: float | None = None
    interval: Interval | None = None
    t: float | None = None
    p: float | None = None

    @property
    def effect_size(self) -> float | None:
        return self.mean / self.sd if self.sd else None


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
    return Summary(x.size, mean, sd, _t_interval(mean, sd, x.size, x.size - 1, LEVEL))


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


def paired_t(differences: Values, level: float = LEVEL) -> MeanTest:
    """Paired t test of at least one difference; its 1 - level interval contains 0 exactly when p > level."""
    d = np.asarray(differences, float)
    if not d.size:
        raise ValueError("a test needs at least one seed")
    if d.size == 1:
        return MeanTest(1, float(d[0]))
    if _constant(d):
        return MeanTest(d.size, float(d[0]), 0.0, p=None if d[0] else 1.0)
    return _t_test(d.size, float(d.mean()), float(d.std(ddof=1)), d.size - 1, level)


def welch(treatment: Values, control: Values, level: float = LEVEL) -> MeanTest:
    """Welch's t test (1947) of two independent samples of one size, whose spreads may differ."""
    a, b = np.asarray(treatment, float), np.asarray(control, float)
    n = a.size
    if n < 2 or (_constant(a) and _constant(b)):
        return paired_t(paired_differences(a, b), level)
    variances = a.var(ddof=1), b.var(ddof=1)
    df = sum(variances) ** 2 * (n - 1) / sum(variance**2 for variance in variances)
    return _t_test(n, float(a.mean() - b.mean()), math.sqrt(sum(variances)), float(df), level)


TESTS: dict[str, Callable[[Values, Values, float], MeanTest]] = {
    "paired": lambda treatment, control, level: paired_t(paired_differences(treatment, control), level),
    "welch": welch,
}
"""What a scale may declare: paired, valid however the seeds' luck is shared; welch, which has more power where it is
not shared, and errs too rarely where it is."""


def equality(test: MeanTest, margin: float) -> float | None:
    """p of two one-sided t tests (Schuirmann 1987): small where the true difference lies within -margin to margin."""
    if not test.sd or test.df is None:
        return None
    error = test.sd / math.sqrt(test.n)
    above, below = (test.mean + margin) / error, (test.mean - margin) / error
    return float(max(special.stdtr(test.df, -above), special.stdtr(test.df, below)))


def correlation(treatment: Values, control: Values) -> float | None:
    """Pearson's, over seeds; None below three or without spread."""
    a, b = np.asarray(treatment, float), np.asarray(control, float)
    return None if a.size < 3 or _constant(a) or _constant(b) else float(np.corrcoef(a, b)[0, 1])


def exact_share(hits: int, n: int) -> Interval:
    """The 95 % interval of a share, of which `hits` of n were seen (Clopper and Pearson 1934): never too narrow."""
    low = float(special.betaincinv(hits, n - hits + 1, LEVEL / 2)) if hits else 0.0
    high = float(special.betaincinv(hits + 1, n - hits, 1 - LEVEL / 2)) if hits < n else 1.0
    return Interval(low, high)


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


def holm(p_values: Sequence[float | None], others: int = 0) -> list[float | None]:
    """Holm's step-down correction (Holm 1979) in the order given; None stands for a test that could not be made.

    `others` belong to the family and are not among these: each counts as if it had p = 1, which no p can exceed.
    """
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) + others - rank) * p))
        adjusted[i] = largest
    return adjusted


def _constant(x: np.ndarray) -> bool:
    return bool(np.ptp(x) == 0)


def _t_test(n: int, mean: float, sd: float, df: float, level: float) -> MeanTest:
    t = mean / (sd / math.sqrt(n))
    p = float(2 * special.stdtr(df, -abs(t)))
    return MeanTest(n, mean, sd, df, _t_interval(mean, sd, n, df, level), t, p)


def _t_interval(mean: float, sd: float, n: int, df: float, level: float) -> Interval:
    half = -float(special.stdtrit(df, level / 2)) * sd / math.sqrt(n)
    return Interval(mean - half, mean + half)
