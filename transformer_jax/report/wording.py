"""Numbers and findings in words: one place decides how many digits are shown and what counts as a difference."""

import dataclasses
import math
from collections.abc import Sequence

from transformer_jax.report.statistics import LEVEL, Interval, PairedT

MISSING = "-"
PROPER_NAMES = {"bleu": "BLEU", "tokenised_bleu": "tokenised BLEU", "chrf": "chrF"}
# What a comparison came to, and the word for it.
FINDINGS = {
    "better": "better",
    "worse": "worse",
    "unsettled": "not settled",
    "none": "no difference seen",
    "same": "same results",
    "untested": "no test possible",
    "unmeasured": "not measured",
}


@dataclasses.dataclass(frozen=True)
class Units:
    """How the metric is printed: stored numbers are multiplied by `factor` and shown with `decimals` and `unit`.

    `step` is the difference (as stored) that "seeds needed" speaks about.
    """

    label: str
    factor: float
    decimals: int
    unit: str
    step: float

    def value(self, x: float | None) -> str:
        return MISSING if x is None else _minus(f"{x * self.factor:.{self.decimals}f}")

    def difference(self, x: float | None) -> str:
        return MISSING if x is None else _minus(f"{x * self.factor:+.{self.decimals}f}")

    def interval(self, interval: Interval | None) -> str:
        if interval is None:
            return MISSING
        return f"[{self.difference(interval.low)}, {self.difference(interval.high)}]"

    def plus_minus(self, x: float | None, spread: float | None) -> str:
        return self.value(x) if x is None or spread is None else f"{self.value(x)} ± {self.value(spread)}"

    @property
    def step_text(self) -> str:
        size = f"{self.step * self.factor:g}"
        unit = "point" if self.unit == "points" and size == "1" else self.unit
        return f"{size} {unit}"


def make_units(metric: str, percent: bool, base_mean: float | None, spreads: Sequence[float]) -> Units:
    """Two significant digits of the typical spread; "seeds needed" asks for 1 point, 1 BLEU, or 1 % of the base."""
    split, _, field = metric.partition("/")
    name = PROPER_NAMES.get(field, field.replace("_", " "))
    points = percent or field in PROPER_NAMES
    factor = 100.0 if percent else 1.0
    spread = sorted(spreads)[len(spreads) // 2] * factor if spreads else 0.0
    decimals = 1 - math.floor(math.log10(spread)) if spread > 0 else (1 if points else 3)
    step = 1 / factor if points else float(f"{abs(base_mean or 1.0) / 100:.1g}")
    return Units(
        label=f"{name} ({split})" + (", %" if percent else ""),
        factor=factor,
        decimals=min(max(decimals, 1), 2 if points else 5),
        unit="points" if percent else name,
        step=step or 0.01,
    )


def p_text(p: float | None) -> str:
    """A bare p: "0.013", "< 0.001"."""
    if p is None:
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")


def seconds_text(seconds: float | None) -> str:
    if seconds is None:
        return MISSING
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def finding(test: PairedT | None, p: float | None, higher_is_better: bool) -> str:
    """The key of FINDINGS for one comparison; `p` is corrected, the test's own p is not."""
    if test is None:
        return "unmeasured"
    if test.n == 1 or test.p is None or p is None:
        return "untested"
    if test.sd == 0:
        return "same"
    if p <= LEVEL:
        return "better" if (test.mean > 0) == higher_is_better else "worse"
    return "unsettled" if test.p <= LEVEL else "none"


def verdict(test: PairedT | None, p: float | None, higher_is_better: bool, needed: int | None, units: Units) -> str:
    """One finding as a sentence; ± is half the 95 % interval."""
    kind = finding(test, p, higher_is_better)
    if test is None:
        return "not measured: no seed finished in both"
    seeds = count(test.n, "seed")
    size = units.difference(test.mean)
    if test.n == 1:
        return f"one seed ({size} {units.unit}): nothing can be said"
    if kind == "same":
        return f"the same result with each of {seeds}"
    if test.interval is None:
        return f"{size} {units.unit} with each of {seeds}: without spread there is no t test"
    p_words = f"p {p_text(p)}" if p_text(p).startswith("<") else f"p = {p_text(p)}"
    half = units.value(test.interval.half_width)
    if kind in ("better", "worse"):
        return f"{kind} by {units.value(abs(test.mean))} ± {half} {units.unit}, {p_words}, {seeds}"
    if kind == "unsettled":
        return (
            f"not settled: {size} ± {half} {units.unit}, p = {p_text(test.p)} alone but {p_text(p)} "
            f"after Holm's correction, {seeds}"
        )
    return f"no difference seen: {size} ± {half} {units.unit}, {p_words}, {seeds}; {_outlook(test.n, needed, units)}"


def _outlook(seeds: int, needed: int | None, units: Units) -> str:
    if needed is None:
        return f"more seeds than is sensible would be needed to see {units.step_text}"
    if needed <= seeds:
        return f"{count(needed, 'seed')} would do to see {units.step_text}"
    return f"{count(needed, 'seed')} would be needed to see {units.step_text}"


def _minus(text: str) -> str:
    """A true minus sign, and none before a zero."""
    if not any(digit in text for digit in "123456789"):
        return text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")
