"""Everything the report says, computed once: the writers only print it."""

import dataclasses
import statistics as averages
from collections.abc import Mapping
from typing import Any

from transformer_jax.report.comparison import (
    Comparison,
    base_pairs,
    compare,
    own_pairs,
    partner_pairs,
    typical_correlation,
)
from transformer_jax.report.convergence import convergence_notes, convergence_text
from transformer_jax.report.methods import TEST_NAMES
from transformer_jax.report.results import Sweep, skipped_text
from transformer_jax.report.rounds import Progress
from transformer_jax.report.statistics import Summary, summarize
from transformer_jax.report.wording import FINDINGS, Units, count, make_units

NLL = "nll"
"""Shown beside every other metric, as it is the least noisy."""


@dataclasses.dataclass(frozen=True)
class Analysis:
    """`comparisons` are against the base, `partners` against the row of equal size, `own` at each row's own learning
    rate against the base at its own; all are one family for Holm.

    `beside` is a metric that is shown next to the sweep's own, with its summaries; None where none was measured.
    """

    sweep: Sweep
    units: Units
    summaries: Mapping[str, Summary]
    comparisons: tuple[Comparison, ...]
    partners: tuple[Comparison, ...]
    own: tuple[Comparison, ...]
    progress: Progress
    notes: tuple[str, ...]
    beside: str | None
    beside_summaries: Mapping[str, Summary]

    @property
    def summary(self) -> str:
        return summary_sentence(self)

    def comparison(self, row: str) -> Comparison | None:
        return next((c for c in self.comparisons if c.row == row), None)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; numbers as stored (a percentage is a fraction), None where nothing was measured."""
        return {
            "name": self.sweep.name,
            "question": self.sweep.question,
            "metric": self.sweep.metric,
            "higher_is_better": self.sweep.higher_is_better,
            "test": self.sweep.test,
            "margin": self.sweep.margin,
            "summary": self.summary,
            "rows": {
                row: dataclasses.asdict(self.summaries[row])
                | {
                    "parameters": self.sweep.rows[row].parameters,
                    "values": {str(seed): value for seed, value in self.sweep.values(row).items()},
                    "status": {str(run.seed): run.status for run in self.sweep.runs_of(row)},
                    "skipped": {str(run.seed): run.skipped for run in self.sweep.runs_of(row)},
                    "seconds": mean_seconds(self.sweep, row),
                }
                for row in self.sweep.rows
            },
            "comparisons": [dataclasses.asdict(c) for c in self.comparisons],
            "partners": [dataclasses.asdict(c) for c in self.partners],
            "own": [dataclasses.asdict(c) for c in self.own],
            "notes": list(self.notes),
        }


def analyse(sweep: Sweep) -> Analysis:
    summaries = _summaries(sweep, sweep.metric)
    beside = _metric_beside(sweep)
    units = make_units(sweep.metric, sweep.percent, [summary.sd for summary in summaries.values() if summary.sd])
    progress, compared = compare(sweep, units, beside)
    return Analysis(
        sweep=sweep,
        units=units,
        summaries=summaries,
        comparisons=tuple(compared[pair] for pair in base_pairs(sweep)),
        partners=tuple(compared[pair] for pair in partner_pairs(sweep)),
        own=tuple(compared[pair] for pair in own_pairs(sweep)),
        progress=progress,
        notes=tuple(notes(sweep, progress)),
        beside=beside,
        beside_summaries={} if beside is None else _summaries(sweep, beside),
    )


def _summaries(sweep: Sweep, metric: str) -> dict[str, Summary]:
    return {row: summarize(list(sweep.values(row, metric).values())) for row in sweep.rows}


def _metric_beside(sweep: Sweep) -> str | None:
    split, _, metric = sweep.metric.partition("/")
    beside = f"{split}/{NLL}"
    return beside if metric != NLL and any(sweep.values(row, beside) for row in sweep.rows) else None


def facts(analysis: Analysis) -> dict[str, str]:
    """What the sweep was, in a few words each."""
    sweep = analysis.sweep
    correlation = typical_correlation(analysis.comparisons)
    of_seeds = "" if correlation is None else f"{correlation:.2f}".replace("-", "\N{MINUS SIGN}")
    known = {
        "metric": analysis.units.label + (", higher is better" if sweep.higher_is_better else ", lower is better"),
        "margin": "" if sweep.margin is None else analysis.units.amount(sweep.margin),
        "test": TEST_NAMES[sweep.test] if analysis.comparisons else "",
        "median correlation of a row and the base over seeds": of_seeds,
        "family": _family(sweep),
        "rounds of seeds": ", ".join(map(str, sweep.rounds)),
        "rows": str(len(sweep.rows)),
        "seeds": ", ".join(map(str, sweep.seeds)),
        "config": sweep.config,
        "scale": sweep.scale,
        "commit": sweep.commit,
        sweep.base: convergence_text(sweep),
    }
    return {name: value for name, value in known.items() if value}


def _family(sweep: Sweep) -> str:
    size = count(sweep.family_size, "comparison") if sweep.family_size else ""
    return ", at most ".join(filter(None, (sweep.family, size)))


def summary_sentence(analysis: Analysis) -> str:
    """The findings against the base in one sentence, the rows grouped by finding."""
    sweep, units = analysis.sweep, analysis.units
    base = analysis.summaries[sweep.base]
    shown = f"{units.plus_minus(base.mean, base.sd)} ({count(base.n, 'seed')})" if base.n else "not measured"
    parts = [f"{units.label}: {sweep.base} {shown}"]
    for finding, word in FINDINGS.items():
        rows = [c for c in analysis.comparisons if c.finding == finding]
        if finding in ("better", "worse"):
            named = [f"{c.row} ({units.difference(c.test.mean)})" for c in rows if c.test]
        else:
            named = [c.row for c in rows]
        if named:
            parts.append(f"{word}: {', '.join(named)}")
    return "; ".join(parts) + "."


def mean_seconds(sweep: Sweep, row: str) -> float | None:
    """Mean wall time of a finished run."""
    seconds = [run.seconds for run in sweep.runs_of(row) if run.status == "finished" and run.seconds is not None]
    return averages.fmean(seconds) if seconds else None


def notes(sweep: Sweep, progress: Progress) -> list[str]:
    """What a reader must know before trusting the comparison."""
    found = list(sweep.problems)
    if sweep.rounds and not progress.is_over:
        found.append(f"Round {progress.round} of {len(sweep.rounds)} is not over: nothing is settled before it is.")
    if len(sweep.seeds) == 1 and len(sweep.rows) > 1:
        found.append("One seed: a difference cannot be told from the luck of the seed, so nothing can be said.")
    if len(sweep.seeds) == 2:
        found.append("Two seeds: the 95 % interval is nine standard deviations of the difference to either side.")
    for row in sweep.rows:
        if twin := sweep.twin_of(row):
            found.append(f"At this scale {row} is {twin} by another name.")
    found += convergence_notes(sweep)
    statuses = [run.status for run in sweep.runs]
    unfinished = {name: statuses.count(name) for name in dict.fromkeys(statuses) if name != "finished"}
    if unfinished:
        listed = ", ".join(f"{number} {name}" for name, number in unfinished.items())
        found.append(f"{statuses.count('finished')} of {count(len(statuses), 'run')} finished; the others: {listed}.")
    if "diverged" in unfinished:
        found.append("Diverged runs have no score and enter no mean: a row with some looks better than it is.")
    texts = {row: skipped_text([run.result for run in sweep.runs_of(row)]) for row in sweep.rows}
    if skipped := ", ".join(f"{row} {text}" for row, text in texts.items() if text):
        found.append(f"Steps that were not finite were left out: {skipped}.")
    executed = sweep.environment()
    conditions = {
        "commit": sweep.commits(),
        "device": executed.get("device_kind", {}),
        "JAX version": executed.get("jax", {}),
    }
    for what, values in conditions.items():
        if len(values) > 1:
            listed = ", ".join(f"{value} ({count(number, 'run')})" for value, number in values.items())
            found.append(f"The runs differ in {what}: {listed}.")
    return found
