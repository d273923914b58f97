"""Whether a training had reached its end when it ended: what its last fifth still brought, from the curves alone."""

import dataclasses
import statistics
from collections.abc import Mapping

import numpy as np

from transformer_jax.report.results import Sweep

CURVE = "nll"
"""Of the validation split: every task measures it, and it falls as long as anything is learnt."""
LAST_SHARE = 0.2
BOUND = 0.01
"""Nats a token, about 1 % of perplexity: a row that gains more in its last fifth has not converged."""


@dataclasses.dataclass(frozen=True)
class Convergence:
    """How a row ended, as means over its finished runs: the last nll, and how far it fell in the last fifth."""

    nll: float
    gain: float

    @property
    def reached(self) -> bool:
        return self.gain <= BOUND


def late_gain(points: Mapping[int, float]) -> float | None:
    """By how much a loss (step -> value) fell over the last fifth of training; below 0 where it rose.

    Where it was not measured at four fifths, the straight line between the points around it says what it was; None
    where nothing was measured before.
    """
    steps = sorted(points)
    if not steps or steps[0] > (begin := (1 - LAST_SHARE) * steps[-1]):
        return None
    return float(np.interp(begin, steps, [points[step] for step in steps])) - points[steps[-1]]


def convergence_of(sweep: Sweep, row: str) -> Convergence | None:
    """None where no finished run of the row has a curve that is long enough."""
    curves = [run.curves.get(CURVE, {}) for run in sweep.runs_of(row) if run.status == "finished"]
    found = [(points[max(points)], gain) for points in curves if (gain := late_gain(points)) is not None]
    return Convergence(*map(statistics.fmean, zip(*found, strict=True))) if found else None


def convergence_text(sweep: Sweep) -> str:
    """Whether the base has converged, and by which number; "" where that was not measured."""
    base = convergence_of(sweep, sweep.base)
    if base is None:
        return ""
    return f"{'converged' if base.reached else 'not converged'} ({_change(base)} nats in the last fifth of training)"


def convergence_notes(sweep: Sweep) -> list[str]:
    """Warnings of the rows that have not converged."""
    rows = [row for row in sweep.rows if sweep.twin_of(row) is None]
    found = {row: known for row in rows if (known := convergence_of(sweep, row)) and not known.reached}
    if not found:
        return []
    listed = ", ".join(f"{row} ({_change(known)})" for row, known in found.items())
    return [
        f"Not converged, as validation nll still fell by more than {BOUND:g} nats in the last fifth of training: "
        f"{listed}. A difference to such a row may be one of speed, not of what is reached."
    ]


def _change(known: Convergence) -> str:
    return f"{-known.gain:+.3f}".replace("-", "\N{MINUS SIGN}")
