"""What the seeds of a sweep decide: tests of all its comparisons, corrected together, after each declared round.

A sweep whose rows all get the same seeds has one round. Else a comparison that is settled after a round is settled for
good, and a row all of whose comparisons are settled gets no more seeds. As there are several looks at the data, each
test is held to the level divided by their number, a bound whatever the dependence between them (Bonferroni). All is a
function of the results in the order of seeds and rounds, so a sweep that was interrupted decides as one that was not.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from transformer_jax.report.results import Sweep
from transformer_jax.report.statistics import LEVEL, TESTS, MeanTest, equality, holm

Pair = tuple[str, str]
SETTLED = frozenset({"better", "worse", "equal", "same", "unmeasured"})
"""Findings that more seeds are not asked about: nothing was measured where every seed of a row failed."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """`row` minus `against` over the seeds finished in both, and what that comes to.

    p and p_equal are those of a difference and of equality within the margin, corrected for the rounds and over the
    family; `round` is that after which it was settled, None while it is open.
    """

    seeds: tuple[int, ...]
    values: tuple[float, ...]
    against: tuple[float, ...]
    test: MeanTest | None
    finding: str
    p: float | None = None
    p_equal: float | None = None
    round: int | None = None


@dataclasses.dataclass(frozen=True)
class Progress:
    """`outcomes` in the order of the pairs; `round` is the one that is being trained, from 1, or was the last;
    `seeds` how many each row is to have by its end. `is_over` is false while that needs runs that are not there.
    """

    outcomes: Mapping[Pair, Outcome]
    round: int
    seeds: Mapping[str, int]
    is_over: bool

    @property
    def open(self) -> int:
        """How many comparisons are not settled."""
        return sum(outcome.finding not in SETTLED for outcome in self.outcomes.values())


def doubled(seeds: int, most: int) -> tuple[int, ...]:
    """Numbers of seeds after which a sweep is looked at: each round doubles them, for every look has its price."""
    rounds = [min(seeds, most)]
    while rounds[-1] < most:
        rounds.append(min(2 * rounds[-1], most))
    return tuple(rounds)


def settle(sweep: Sweep, pairs: Sequence[Pair]) -> Progress:
    """The outcome of each pair (row, against), which together are one family, and how far the rounds have come."""
    rounds = sweep.rounds or (len(sweep.seeds),)
    needed: set[str] = set(sweep.rows)
    seeds = dict.fromkeys(sweep.rows, rounds[0])
    outcomes: dict[Pair, Outcome] = {}
    for number, count in enumerate(rounds, 1):
        seeds |= dict.fromkeys(needed, count)
        is_over = _are_over(sweep, needed, count) if sweep.rounds else True
        outcomes = _look(sweep, pairs, outcomes, count, len(rounds), number if is_over else None)
        still_open = [pair for pair, outcome in outcomes.items() if outcome.finding not in SETTLED]
        if not is_over or not still_open:
            break
        needed = {row for pair in still_open for row in pair}
    return Progress(outcomes, number, seeds, is_over)


def _are_over(sweep: Sweep, rows: Iterable[str], count: int) -> bool:
    """Whether each of the first seeds of these rows has come to an end, whatever it is."""
    wanted = {(row, seed) for row in rows for seed in sweep.seeds[:count]}
    return len(sweep.seeds) >= count and wanted <= {
        (run.row, run.seed) for run in sweep.runs if run.status in ("finished", "diverged", "failed")
    }


def _look(
    sweep: Sweep, pairs: Sequence[Pair], before: Mapping[Pair, Outcome], count: int, looks: int, number: int | None
) -> dict[Pair, Outcome]:
    """The outcomes after a round; what was settled stays as it is. Before its end (number None) none is settled."""
    known = {pair: outcome for pair, outcome in before.items() if outcome.finding in SETTLED}
    found = {pair: known.get(pair) or _measure(sweep, pair, count, looks) for pair in pairs}
    measured = [(outcome.test, sweep.margin, looks) for outcome in found.values()]
    outcomes = {}
    for (pair, outcome), (p, p_equal) in zip(found.items(), corrected(measured, sweep.family_size), strict=True):
        if pair not in known:
            finding = finding_of(outcome.test, p, p_equal, sweep.higher_is_better)
            settled = finding in SETTLED
            if settled and number is None:
                finding, settled = "open" if outcome.test else "unmeasured", False
            outcome = dataclasses.replace(
                outcome, finding=finding, p=p, p_equal=p_equal, round=number if settled else None
            )
        outcomes[pair] = outcome
    return outcomes


def _measure(sweep: Sweep, pair: Pair, count: int, looks: int) -> Outcome:
    ours, theirs = (sweep.values(row) for row in pair)
    seeds = tuple(sorted(ours.keys() & theirs.keys() & set(sweep.seeds[:count])))
    values, against = tuple(ours[seed] for seed in seeds), tuple(theirs[seed] for seed in seeds)
    test = TESTS[sweep.test](values, against, LEVEL / looks) if seeds else None
    return Outcome(seeds, values, against, test, "open")


def corrected(
    measured: Sequence[tuple[MeanTest | None, float | None, int]], family_size: int
) -> list[tuple[float | None, float | None]]:
    """p of a difference and of equality for each (test, margin, looks): for the looks, and by Holm over the family.

    `family_size` is how many comparisons the family has, where that is more than these.
    """
    others = max(0, family_size - len(measured))
    differ = [_times(None if test is None else test.p, looks) for test, _, looks in measured]
    equal = [
        _times(None if test is None or margin is None else equality(test, margin), looks)
        for test, margin, looks in measured
    ]
    return list(zip(holm(differ, others), holm(equal, others), strict=True))


def _times(p: float | None, looks: int) -> float | None:
    return None if p is None else min(1.0, looks * p)


def finding_of(test: MeanTest | None, p: float | None, p_equal: float | None, higher_is_better: bool) -> str:
    """The key of FINDINGS; p and p_equal are corrected, the test's own p is not."""
    if test is None:
        return "unmeasured"
    if test.n == 1 or test.p is None or p is None:
        return "untested"
    if test.sd == 0:
        return "same"
    if p_equal is not None and p_equal <= LEVEL:
        return "equal"
    if p <= LEVEL:
        return "better" if (test.mean > 0) == higher_is_better else "worse"
    return "open"
