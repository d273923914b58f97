"""Numbers and findings in words: one place decides how many digits are shown and what counts as a difference."""

import dataclasses
import math
from collections.abc import Sequence

from transformer_jax.report.rounds import Outcome
from transformer_jax.report.statistics import LEVEL, Interval, MeanTest

MISSING = "-"
PROPER_NAMES = {"bleu": "BLEU", "tokenised_bleu": "tokenised BLEU", "chrf": "chrF"}
# What a comparison came to, and the word for it.
FINDINGS = {
    "better": "better",
    "worse": "worse",
    "equal": "equal within the margin",
    "open": "open",
    "same": "same results",
    "untested": "no test possible",
    "unmeasured": "not measured",
}


@dataclasses.dataclass(frozen=True)
class Units:
    """How the metric is printed: stored numbers are multiplied by `factor` and shown with `decimals` and `unit`."""

    label: str
    factor: float
    decimals: int
    unit: str

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

    def amount(self, x: float) -> str:
        """A round number that somebody chose, with its unit: "1 point", "0.3 BLEU"."""
        size = f"{x * self.factor:g}"
        return f"{size} {'point' if self.unit == 'points' and size == '1' else self.unit}"


def make_units(metric: str, percent: bool, spreads: Sequence[float]) -> Units:
    """Two significant digits of the typical spread."""
    split, _, field = metric.partition("/")
    name = PROPER_NAMES.get(field, field.replace("_", " "))
    points = percent or field in PROPER_NAMES
    factor = 100.0 if percent else 1.0
    spread = sorted(spreads)[len(spreads) // 2] * factor if spreads else 0.0
    decimals = 1 - math.floor(math.log10(spread)) if spread > 0 else (1 if points else 3)
    return Units(
        label=f"{name} ({split})" + (", %" if percent else ""),
        factor=factor,
        decimals=min(max(decimals, 1), 2 if points else 5),
        unit="points" if percent else name,
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


def verdict(outcome: Outcome, needed: int | None, units: Units, margin: float | None) -> str:
    """What was found as a sentence; ± is half the 95 % interval."""
    test, kind = outcome.test, outcome.finding
    if test is None:
        return "not measured: no seed finished in both"
    seeds, size = count(test.n, "seed"), units.difference(test.mean)
    if test.n == 1:
        return f"one seed ({size} {units.unit}): nothing can be said"
    if kind == "same":
        return f"the same result with each of {seeds}"
    if test.interval is None:
        return f"{size} {units.unit} with each of {seeds}: without spread there is no t test"
    half = units.value(test.interval.half_width)
    if kind in ("better", "worse"):
        return f"{kind} by {units.value(abs(test.mean))} ± {half} {units.unit}, {p_words(outcome.p)}, {seeds}"
    if kind == "equal" and margin is not None:
        though = f"; a difference all the same, {p_words(outcome.p)}" if (outcome.p or 1.0) <= LEVEL else ""
        within = f"equal within {units.amount(margin)}: {size} ± {half} {units.unit}"
        return f"{within}, {p_words(outcome.p_equal)}, {seeds}{though}"
    said = f"{kind}: {size} ± {half} {units.unit}, {_open_words(test, outcome.p)}"
    if margin is not None:
        said += f", of equality within {units.amount(margin)} {p_words(outcome.p_equal)}"
    return f"{said}, {seeds}; {_outlook(test.n, needed)}"


def p_words(p: float | None) -> str:
    """ "p = 0.013", "p < 0.001"."""
    return f"p {p_text(p)}" if p_text(p).startswith("<") else f"p = {p_text(p)}"


def _open_words(test: MeanTest, p: float | None) -> str:
    if test.p is not None and test.p <= LEVEL:
        return f"{p_words(test.p)} alone but {p_text(p)} corrected"
    return p_words(p)


def _outlook(seeds: int, needed: int | None) -> str:
    if needed is None:
        return "if that is the truth, more than 10,000 seeds would be needed to settle it"
    return f"if that is the truth, about {max(needed, seeds + 1):,} seeds would settle it"


def _minus(text: str) -> str:
    """A true minus sign, and none before a zero."""
    if not any(digit in text for digit in "123456789"):
        return text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")
