"""The comparisons of a sweep: every row against the base, and against its partner of equal size, paired by seed."""

import dataclasses
from collections.abc import Sequence

from transformer_jax.report import statistics
from transformer_jax.report.results import Sweep, skipped_text
from transformer_jax.report.statistics import Interval, PairedT, SignFlip
from transformer_jax.report.wording import Units, finding, verdict


@dataclasses.dataclass(frozen=True)
class Comparison:
    """`row` minus `against` over the seeds finished in both.

    `p` is corrected by Holm over the comparisons made together, `test.p` is not. `seeds_needed` is the number of seeds
    that would show a true difference of `Units.step` with 80 % power.
    """

    row: str
    against: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    test: PairedT | None
    p: float | None
    sign_flip: SignFlip | None
    bootstrap: Interval | None
    seeds_needed: int | None
    finding: str
    verdict: str


def base_pairs(sweep: Sweep) -> list[tuple[str, str]]:
    return [(row, sweep.base) for row in sweep.rows if row != sweep.base and sweep.twin_of(row) is None]


def partner_pairs(sweep: Sweep) -> list[tuple[str, str]]:
    return [(row.name, row.partner) for row in sweep.rows.values() if row.partner is not None]


def compare(sweep: Sweep, pairs: Sequence[tuple[str, str]], units: Units) -> list[Comparison]:
    """Compare each pair (row, against); the pairs are one family for Holm's correction."""
    shared = [_shared_seeds(sweep, row, against) for row, against in pairs]
    differences = [
        statistics.paired_differences(
            [sweep.values(row)[seed] for seed in seeds], [sweep.values(against)[seed] for seed in seeds]
        )
        for (row, against), seeds in zip(pairs, shared, strict=True)
    ]
    tests = [statistics.paired_t(d) if d.size else None for d in differences]
    adjusted = statistics.holm([test.p if test else None for test in tests])
    comparisons = []
    for (row, against), seeds, d, test, p in zip(pairs, shared, differences, tests, adjusted, strict=True):
        needed = statistics.seeds_needed(units.step, test.sd) if test and test.sd else None
        comparisons.append(
            Comparison(
                row=row,
                against=against,
                seeds=seeds,
                differences=tuple(map(float, d)),
                test=test,
                p=p,
                sign_flip=statistics.sign_flip(d),
                bootstrap=statistics.bootstrap_interval(d),
                seeds_needed=needed,
                finding=finding(test, p, sweep.higher_is_better),
                verdict=verdict(test, p, sweep.higher_is_better, needed, units) + _losses(sweep, row),
            )
        )
    return comparisons


def _shared_seeds(sweep: Sweep, row: str, against: str) -> tuple[int, ...]:
    return tuple(sorted(sweep.values(row).keys() & sweep.values(against).keys()))


def _losses(sweep: Sweep, row: str) -> str:
    """Seeds that diverged or failed, and steps that the others skipped, belong into the verdict: the rest is a choice
    made by success."""
    statuses = [run.status for run in sweep.runs_of(row)]
    lost = [f"{statuses.count(s)} of {len(statuses)} {s}" for s in ("diverged", "failed") if s in statuses]
    lost += filter(None, [skipped_text([run.result for run in sweep.runs_of(row) if run.status == "finished"])])
    return f" ({', '.join(lost)})" if lost else ""
