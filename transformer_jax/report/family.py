"""Several sweeps that stand in one table: their comparisons are one family, and are corrected together.

A statement about one row of such a table carries the correction of the table, not that of the sweep it comes from.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformer_jax.errors import UserError
from transformer_jax.report.comparison import all_pairs
from transformer_jax.report.formats import markdown_table
from transformer_jax.report.read import read_sweep
from transformer_jax.report.results import Sweep
from transformer_jax.report.rounds import SETTLED, Outcome, Pair, corrected, finding_of, settle
from transformer_jax.report.statistics import summarize
from transformer_jax.report.tables import Cell, Column, Table
from transformer_jax.report.wording import FINDINGS, MISSING, count, make_units, p_text


@dataclasses.dataclass(frozen=True)
class Member:
    """A comparison of a sweep, with what it comes to in the family."""

    directory: str
    sweep: Sweep
    pair: Pair
    outcome: Outcome


def read_family(directories: Sequence[Path]) -> list[Member]:
    """Every comparison of the sweeps, corrected together; one that stands in several of them counts once.

    Raises:
      UserError: a directory holds no sweep, or a family is larger than its sweeps declared.
    """
    members, sizes = [], {0}
    for directory in directories:
        sweep = read_sweep(directory)
        pairs = all_pairs(sweep)
        progress = settle(sweep, pairs)
        name = directory.resolve().name
        members += [Member(name, sweep, pair, progress.outcomes[pair]) for pair in pairs]
        sizes.add(sweep.family_size)
    distinct = list({_identity(member): member for member in reversed(members)}.values())
    if 0 < max(sizes) < len(distinct):
        raise UserError(
            f"these sweeps make {len(distinct)} comparisons, but were declared to be of a family of {max(sizes)}: "
            "raise the family_size of their scale, and sweep into another --workdir."
        )
    looks = [len(member.sweep.rounds) or 1 for member in distinct]
    measured = [
        (member.outcome.test, member.sweep.margin, times) for member, times in zip(distinct, looks, strict=True)
    ]
    together = dict(zip(map(_identity, distinct), corrected(measured, max(sizes)), strict=True))
    return [_of_family(member, *together[_identity(member)]) for member in members]


def _identity(member: Member) -> tuple[Any, ...]:
    """Equal for comparisons of the same runs."""
    keys = [member.sweep.rows[row].key or (member.directory, row) for row in member.pair]
    return (*keys, member.sweep.metric, member.outcome.seeds)


def _of_family(member: Member, p: float | None, p_equal: float | None) -> Member:
    outcome = member.outcome
    finding = finding_of(outcome.test, p, p_equal, member.sweep.higher_is_better)
    if finding in SETTLED and outcome.finding not in SETTLED:
        finding = "open"  # its round is not over
    return dataclasses.replace(member, outcome=dataclasses.replace(outcome, p=p, p_equal=p_equal, finding=finding))


def summary(members: Sequence[Member]) -> str:
    """How many comparisons came to what."""
    found = Counter(member.outcome.finding for member in {_identity(member): member for member in members}.values())
    parts = [f"{found[finding]} {word}" for finding, word in FINDINGS.items() if found[finding]]
    sweeps = len({member.directory for member in members})
    return f"{count(found.total(), 'comparison')} of {count(sweeps, 'sweep')}, corrected together: {', '.join(parts)}."


def to_markdown(members: Sequence[Member]) -> str:
    """A line a comparison: difference ± half its 95 % interval, p after correction over the family, verdict."""
    titles = ("Difference", "Seeds", "p (difference)", "p (equality)")
    columns = (*(Column(title, False) for title in ("Sweep", "Variant", "Against")), *map(Column, titles))
    lines = [_line(member) for member in members]
    return f"{summary(members)}\n\n{markdown_table(Table((*columns, Column('Verdict', False)), tuple(lines)))}\n"


def _line(member: Member) -> tuple[Cell, ...]:
    sweep, outcome = member.sweep, member.outcome
    spreads = [sd for row in sweep.rows if (sd := summarize(list(sweep.values(row).values())).sd)]
    units, test = make_units(sweep.metric, sweep.percent, spreads), outcome.test
    shown = MISSING
    if test is not None:
        half = f" ± {units.value(test.interval.half_width)}" if test.interval else ""
        shown = f"{units.difference(test.mean)}{half} {units.unit}"
    texts = (shown, str(len(outcome.seeds)), p_text(outcome.p), p_text(outcome.p_equal), FINDINGS[outcome.finding])
    return (Cell(member.directory), *(Cell(row, code=True) for row in member.pair), *map(Cell, texts))


def as_dict(members: Sequence[Member]) -> dict[str, Any]:
    """JSON-ready; numbers as stored."""
    lines = [
        {"sweep": member.directory, "row": member.pair[0], "against": member.pair[1], "metric": member.sweep.metric}
        | dataclasses.asdict(member.outcome)
        for member in members
    ]
    return {"summary": summary(members), "comparisons": lines}
