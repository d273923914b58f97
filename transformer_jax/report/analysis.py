"""Everything the report says, computed once: the writers only print it."""

import dataclasses
import statistics as averages
from collections.abc import Mapping
from typing import Any

from transformer_jax.report.comparison import Comparison, base_pairs, compare, partner_pairs
from transformer_jax.report.results import Sweep, skipped_text
from transformer_jax.report.statistics import Summary, summarize
from transformer_jax.report.wording import FINDINGS, Units, count, make_units

METHODS = (
    "All rows are trained with the same seeds, so differences are paired: row minus base, seed by seed, over the "
    "seeds finished in both. Mean ± sd is the sample standard deviation over seeds. The 95 % interval and p of a "
    "difference are those of the two-sided paired t test; p is corrected by Holm's method over all comparisons of "
    "the report, the interval is not. A difference is called one when the corrected p is at most 0.05. From 6 "
    "seeds the exact sign-flip permutation test and, from 10 seeds, a BCa bootstrap over seeds stand beside it. "
    "Effect size is the mean difference over its standard deviation. “Seeds needed” gives the paired t test 80 % "
    "power at level 0.05 (noncentral t), before correction, and rests on the standard deviation seen here: from "
    "few seeds it is a rough guide."
)


@dataclasses.dataclass(frozen=True)
class Analysis:
    """`comparisons` are against the base, `partners` against the row of equal size; all are one family for Holm."""

    sweep: Sweep
    units: Units
    summaries: Mapping[str, Summary]
    comparisons: tuple[Comparison, ...]
    partners: tuple[Comparison, ...]
    notes: tuple[str, ...]

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
            "notes": list(self.notes),
        }


def analyse(sweep: Sweep) -> Analysis:
    summaries = {row: summarize(list(sweep.values(row).values())) for row in sweep.rows}
    spreads = [summary.sd for summary in summaries.values() if summary.sd]
    units = make_units(sweep.metric, sweep.percent, summaries[sweep.base].mean, spreads)
    to_base, to_partner = base_pairs(sweep), partner_pairs(sweep)
    pairs = list(dict.fromkeys([*to_base, *to_partner]))
    compared = dict(zip(pairs, compare(sweep, pairs, units), strict=True))
    return Analysis(
        sweep=sweep,
        units=units,
        summaries=summaries,
        comparisons=tuple(compared[pair] for pair in to_base),
        partners=tuple(compared[pair] for pair in to_partner),
        notes=tuple(notes(sweep)),
    )


def facts(analysis: Analysis) -> dict[str, str]:
    """What the sweep was, in a few words each."""
    sweep = analysis.sweep
    known = {
        "metric": analysis.units.label + (", higher is better" if sweep.higher_is_better else ", lower is better"),
        "rows": str(len(sweep.rows)),
        "seeds": ", ".join(map(str, sweep.seeds)),
        "config": sweep.config,
        "scale": sweep.scale,
        "commit": sweep.commit,
    }
    return {name: value for name, value in known.items() if value}


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


def parameter_difference(sweep: Sweep, row: str, against: str) -> tuple[int, float] | None:
    """Parameters of `row` minus those of `against`, absolute and in percent of `against`."""
    ours, theirs = sweep.rows[row].parameters, sweep.rows[against].parameters
    if ours is None or not theirs:
        return None
    return ours - theirs, 100 * (ours - theirs) / theirs


def notes(sweep: Sweep) -> list[str]:
    """What a reader must know before trusting the comparison."""
    found = list(sweep.problems)
    if len(sweep.seeds) == 1 and len(sweep.rows) > 1:
        found.append("One seed: a difference cannot be told from the luck of the seed, so nothing can be said.")
    if len(sweep.seeds) == 2:
        found.append("Two seeds: the 95 % interval is nine standard deviations of the difference to either side.")
    for row in sweep.rows:
        if twin := sweep.twin_of(row):
            found.append(f"At this scale {row} is {twin} by another name.")
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
