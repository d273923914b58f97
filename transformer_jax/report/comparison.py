"""The comparisons of a sweep: every row against the base and against its partner of equal size, over the same seeds."""

import dataclasses
from collections.abc import Sequence
from statistics import median

from transformer_jax.report import statistics
from transformer_jax.report.power import seeds_needed
from transformer_jax.report.results import Sweep, parameter_difference, skipped_text
from transformer_jax.report.rounds import Pair, Progress, settle
from transformer_jax.report.statistics import LEVEL, Interval, MeanTest, SignFlip
from transformer_jax.report.wording import Units, verdict

WORTH_SAYING = 1.0
"""Percent of the parameters by which a row must differ before its verdict says so."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """`row` minus `against` over the seeds finished in both.

    `p`, of a difference, and `p_equal`, of equality within the margin, are corrected for the rounds of the sweep and,
    by Holm, over the comparisons of the family; `test.p` is not. `seeds_needed` would settle it, if it is open and
    what was seen is the truth; `correlation` is that of both rows over the seeds, `beside` the difference in another
    metric, for which no verdict is given.
    """

    row: str
    against: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    test: MeanTest | None
    p: float | None
    p_equal: float | None
    correlation: float | None
    beside: MeanTest | None
    sign_flip: SignFlip | None
    bootstrap: Interval | None
    seeds_needed: int | None
    round: int | None
    finding: str
    verdict: str


def base_pairs(sweep: Sweep) -> list[Pair]:
    """Rows at the base's setting, against the base."""
    rows = [name for name, row in sweep.rows.items() if row.own_of is None and sweep.twin_of(name) is None]
    return [(row, sweep.base) for row in rows if row != sweep.base]


def partner_pairs(sweep: Sweep) -> list[Pair]:
    """Rows against those of equal size."""
    return [(r.name, r.partner) for r in sweep.rows.values() if r.partner is not None and r.own_of is None]


def own_pairs(sweep: Sweep) -> list[Pair]:
    """Rows at their own learning rate, against the base at its own."""
    return [(r.name, r.partner) for r in sweep.rows.values() if r.partner is not None and r.own_of is not None]


def all_pairs(sweep: Sweep) -> list[Pair]:
    """The family of the sweep: what is compared, once each."""
    return list(dict.fromkeys([*base_pairs(sweep), *partner_pairs(sweep), *own_pairs(sweep)]))


def compare(sweep: Sweep, units: Units, beside: str | None) -> tuple[Progress, dict[Pair, Comparison]]:
    """Every comparison of the sweep, and how far its rounds are; `beside` is a metric that is shown next to its own."""
    progress = settle(sweep, all_pairs(sweep))
    looks = len(sweep.rounds) or 1
    tried = max(progress.open, progress.open + sweep.family_size - len(progress.outcomes), 1)
    level = LEVEL / (looks * tried)
    found = {}
    for pair, outcome in progress.outcomes.items():
        differences = statistics.paired_differences(outcome.values, outcome.against)
        needed = None
        if outcome.finding == "open" and outcome.test is not None:
            needed = seeds_needed(outcome.test, sweep.margin, level)
        found[pair] = Comparison(
            row=pair[0],
            against=pair[1],
            seeds=outcome.seeds,
            differences=tuple(map(float, differences)),
            test=outcome.test,
            p=outcome.p,
            p_equal=outcome.p_equal,
            correlation=statistics.correlation(outcome.values, outcome.against),
            beside=None if beside is None else _test_of(sweep, pair, beside),
            sign_flip=statistics.sign_flip(differences),
            bootstrap=statistics.bootstrap_interval(differences),
            seeds_needed=needed,
            round=outcome.round if sweep.rounds else None,
            finding=outcome.finding,
            verdict=verdict(outcome, needed, units, sweep.margin) + _remarks(sweep, pair, outcome.finding),
        )
    return progress, found


def _test_of(sweep: Sweep, pair: Pair, metric: str) -> MeanTest | None:
    """The test of another metric, over all seeds that have it in both rows; corrected for nothing."""
    ours, theirs = (sweep.values(row, metric) for row in pair)
    seeds = sorted(ours.keys() & theirs.keys())
    values, against = [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]
    return statistics.TESTS[sweep.test](values, against, LEVEL) if seeds else None


def _remarks(sweep: Sweep, pair: Pair, finding: str) -> str:
    """What else belongs into the verdict: another size than what it is compared with, seeds that did not learn the
    task, diverged or failed, and steps that the others did not skip: the rest is a choice made by success."""
    row, _ = pair
    statuses = [run.status for run in sweep.runs_of(row)]
    said = [_size(sweep, pair), _not_learnt(sweep, row, finding)]
    said += [f"{statuses.count(s)} of {len(statuses)} {s}" for s in ("diverged", "failed") if s in statuses]
    said.append(skipped_text([run.result for run in sweep.runs_of(row) if run.status == "finished"]))
    remarks = ", ".join(filter(None, said))
    return f" ({remarks})" if remarks else ""


def _not_learnt(sweep: Sweep, row: str, finding: str) -> str:
    """Seeds that failed; where a row is called equal, also how many might without having been seen."""
    counted = failing_seeds(sweep, row) if sweep.failing is not None else None
    if counted is None or (not counted[0] and finding != "equal"):
        return ""
    failed, n = counted
    if failed:
        return f"{failed} of {n} seeds did not learn the task"
    return f"none of {n} seeds failed, but a share of up to {100 * statistics.exact_share(0, n).high:.0f} % may"


def _size(sweep: Sweep, pair: Pair) -> str:
    difference = parameter_difference(sweep, *pair)
    if difference is None or abs(difference[1]) < WORTH_SAYING:
        return ""
    return f"with {abs(difference[1]):.3g} % {'more' if difference[0] > 0 else 'fewer'} parameters"


def failing_seeds(sweep: Sweep, row: str) -> tuple[int, int] | None:
    """How many seeds of a row have not learnt the task, and of how many that is known; None if of none."""
    known = [fails for run in sweep.runs_of(row) if (fails := sweep.fails(run)) is not None]
    return (sum(known), len(known)) if known else None


def typical_correlation(comparisons: Sequence[Comparison]) -> float | None:
    """The median over the comparisons."""
    found = [c.correlation for c in comparisons if c.correlation is not None]
    return median(found) if found else None
