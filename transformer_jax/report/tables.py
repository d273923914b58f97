"""The tables of the report as plain cells; `formats.py` and `page.py` print them in their languages."""

import dataclasses
import re
from collections.abc import Sequence

from transformer_jax.report.analysis import Analysis, mean_seconds
from transformer_jax.report.comparison import Comparison, failing_seeds
from transformer_jax.report.results import Run, Sweep, finite, parameter_difference
from transformer_jax.report.statistics import MeanTest, Summary, exact_share, summarize
from transformer_jax.report.wording import FINDINGS, MISSING, PROPER_NAMES, make_units, p_text, seconds_text
from transformer_jax.strict_json import to_json

# Title, and the digits that the paper gives.
PAPER_COLUMNS = {
    "ppl": ("PPL (paper)", ".2f"),
    "bleu": ("BLEU (paper)", ".1f"),
    "parameters_millions": ("Params, M (paper)", "g"),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """`link` is a path relative to the report; `finding` a key of FINDINGS, `code` asks for a fixed pitch."""

    text: str
    link: str | None = None
    finding: str | None = None
    code: bool = False


@dataclasses.dataclass(frozen=True)
class Column:
    title: str
    numeric: bool = True

    @property
    def alignment(self) -> str:
        """The class of its cells in the page."""
        return "number" if self.numeric else "words"


@dataclasses.dataclass(frozen=True)
class Table:
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def without(self, titles: str) -> "Table":
        """The table less the columns whose title matches a regular expression."""
        kept = [i for i, column in enumerate(self.columns) if not re.fullmatch(titles, column.title)]
        return Table(tuple(self.columns[i] for i in kept), tuple(tuple(row[i] for i in kept) for row in self.rows))


def results_table(analysis: Analysis) -> Table:
    """A line a row: size, mean, difference to base, verdict, the metric beside, the paper's numbers, every seed, time,
    change."""
    sweep = analysis.sweep
    compared = len(sweep.rows) > 1
    paper = [key for key in PAPER_COLUMNS if any(row.paper.get(key) is not None for row in sweep.rows.values())]
    columns = [Column("Variant", False)]
    columns += [Column("Parameters")]
    columns += [Column("Δ parameters")] if compared else []
    columns += [Column("Mean ± sd")]
    if compared:
        titles = (f"Δ to {sweep.base}", "95 % interval", "p (corrected)")
        columns += [*map(Column, titles), Column("Verdict", False)]
    columns += _columns_beside(analysis, compared)
    columns += [Column(PAPER_COLUMNS[key][0]) for key in paper]
    columns += [*(Column(f"seed {seed}") for seed in sweep.seeds), Column("Time a run")]
    columns += [Column("Change", False)] if compared else []
    lines = []
    for row in sweep.rows:
        line = [Cell(row, code=True)]
        line += _parameters(sweep, row)[: 2 if compared else 1]
        summary = analysis.summaries[row]
        line.append(Cell(analysis.units.plus_minus(summary.mean, summary.sd)))
        if comparison := analysis.comparison(row):
            line += _difference(analysis, comparison)
        elif compared:
            twin = sweep.twin_of(row)
            line += [*[Cell(MISSING)] * 3, Cell(f"is {twin}" if twin else MISSING)]
        line += _cells_beside(analysis, row, compared)
        line += [Cell(_number(sweep.rows[row].paper.get(key), PAPER_COLUMNS[key][1])) for key in paper]
        runs = {run.seed: run for run in sweep.runs_of(row)}
        line += [_seed_value(analysis, runs[seed]) if seed in runs else Cell(MISSING) for seed in sweep.seeds]
        line.append(Cell(seconds_text(mean_seconds(sweep, row))))
        line += [_change(sweep, row)] if compared else []
        lines.append(tuple(line))
    return Table(tuple(columns), tuple(lines))


def _columns_beside(analysis: Analysis, compared: bool) -> list[Column]:
    if analysis.beside is None:
        return []
    split, _, name = analysis.beside.partition("/")
    return [Column(_metric_title(name, split)), *([Column(f"Δ {name} (exploratory)")] if compared else [])]


def _cells_beside(analysis: Analysis, row: str, compared: bool) -> list[Cell]:
    if analysis.beside is None:
        return []
    summary, comparison = analysis.beside_summaries[row], analysis.comparison(row)
    difference = _test_text(analysis.beside, comparison.beside) if comparison and comparison.beside else MISSING
    return [Cell(_summary_text(analysis.beside, summary)), *([Cell(difference)] if compared else [])]


def _test_text(metric: str, test: MeanTest) -> str:
    units = make_units(metric, False, [test.sd / test.n**0.5] if test.sd else [])
    interval = "" if test.interval is None else f" {units.interval(test.interval)}"
    return units.difference(test.mean) + interval


def partner_table(analysis: Analysis) -> Table | None:
    """Rows against their partners of equal size, with the difference in parameters that is left."""
    if not analysis.partners:
        return None
    titles = ("Parameters left over", "Δ to partner", "95 % interval", "p (corrected)")
    columns = (Column("Variant", False), Column("Partner", False), *map(Column, titles), Column("Verdict", False))
    lines = []
    for c in analysis.partners:
        residual = parameter_difference(analysis.sweep, c.row, c.against)
        left = Cell(MISSING if residual is None else f"{_signed(residual[0])} ({_percent(residual[1])})")
        lines.append((Cell(c.row, code=True), Cell(c.against, code=True), left, *_difference(analysis, c)))
    return Table(columns, tuple(lines))


def own_table(analysis: Analysis) -> Table | None:
    """Each row at the base's setting and at its own learning rate, there against the base at its own."""
    if not analysis.own:
        return None
    sweep, units = analysis.sweep, analysis.units
    compared = {c.row: c for c in analysis.own}
    titles = ("Mean ± sd at the base's setting", "at its own", "Δ at their own", "95 % interval", "p (corrected)")
    columns = (Column("Variant", False), Column("Its own", False), *map(Column, titles), Column("Verdict", False))
    lines = []
    for row in sweep.rows.values():
        if row.own_of is None:
            continue
        before = sweep.rows[row.own_of].overrides
        change = [f"{path} = {_plain(value)}" for path, value in row.overrides.items() if before.get(path) != value]
        means = [analysis.summaries[name] for name in (row.own_of, row.name)]
        line = [Cell(row.own_of, code=True), Cell("\n".join(change), code=True)]
        line += [Cell(units.plus_minus(summary.mean, summary.sd)) for summary in means]
        known = compared.get(row.name)
        lines.append((*line, *(_difference(analysis, known) if known else [Cell(MISSING)] * 4)))
    return Table(columns, tuple(lines))


def failing_table(sweep: Sweep) -> Table | None:
    """How many seeds of each row have failed to learn the task, where the sweep says what that is."""
    if sweep.failing is None:
        return None
    columns = (Column("Variant", False), *map(Column, ("Seeds failed", "Share, %", "95 % interval")))
    lines = []
    for row in sweep.rows:
        if counted := failing_seeds(sweep, row):
            interval = exact_share(*counted)
            shown = f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
            texts = (f"{counted[0]} of {counted[1]}", f"{100 * counted[0] / counted[1]:.0f}", shown)
            lines.append((Cell(row, code=True), *map(Cell, texts)))
    return Table(columns, tuple(lines)) if lines else None


def details_table(analysis: Analysis) -> Table | None:
    """What stands behind the verdicts: both tests, effect size, correlation, the tests that assume less, the seeds."""
    by_pair = {(c.row, c.against): c for c in (*analysis.comparisons, *analysis.partners, *analysis.own)}
    comparisons = [c for c in by_pair.values() if c.test is not None and c.test.n > 1]
    if not comparisons:
        return None
    columns = [Column("Variant", False), Column("Against", False)]
    columns += map(Column, ("Seeds", "t", "df", "p (alone)"))
    columns += [Column("p of equality (corrected)")] if analysis.sweep.margin is not None else []
    columns += map(Column, ("Effect size d", "Correlation over seeds"))
    permuted = any(c.sign_flip for c in comparisons)
    resampled = any(c.bootstrap for c in comparisons)
    columns += [Column("p (permutation)"), Column("smallest possible")] if permuted else []
    columns += [Column("95 % bootstrap interval")] if resampled else []
    columns += [Column("Settled after round")] if analysis.sweep.rounds else []
    columns.append(Column("Seeds to settle"))
    return Table(tuple(columns), tuple(_details(analysis, c, permuted, resampled) for c in comparisons))


def _details(analysis: Analysis, c: Comparison, permuted: bool, resampled: bool) -> tuple[Cell, ...]:
    assert c.test is not None
    texts = [str(c.test.n), _fixed(c.test.t), MISSING if c.test.df is None else f"{c.test.df:.3g}", p_text(c.test.p)]
    texts += [p_text(c.p_equal)] if analysis.sweep.margin is not None else []
    texts += [_fixed(c.test.effect_size), _fixed(c.correlation)]
    if permuted:
        texts += [p_text(c.sign_flip.p), p_text(c.sign_flip.smallest_p)] if c.sign_flip else [MISSING, MISSING]
    if resampled:
        texts.append(analysis.units.interval(c.bootstrap))
    texts += [MISSING if c.round is None else str(c.round)] if analysis.sweep.rounds else []
    texts.append(MISSING if c.seeds_needed is None else f"{c.seeds_needed:,}")
    return (Cell(c.row, code=True), Cell(c.against, code=True), *map(Cell, texts))


def metrics_table(sweep: Sweep) -> Table | None:
    """Mean ± sd of every number of the test split, or of the validation split where nothing was tested."""
    finished = [run for run in sweep.runs if run.status == "finished"]
    for split in ("test", "valid"):
        names = dict.fromkeys(
            name for run in finished for name, value in _scores(run, split) if finite(value) is not None
        )
        if names:
            columns = (Column("Variant", False), *(Column(_metric_title(name, split)) for name in names))
            lines = (
                (Cell(row, code=True), *(Cell(_mean_text(sweep, row, f"{split}/{name}")) for name in names))
                for row in sweep.rows
            )
            return Table(columns, tuple(lines))
    return None


def unfinished_table(sweep: Sweep) -> Table | None:
    """Runs without a result, and runs with something to say about their files."""
    runs = [run for run in sweep.runs if run.status != "finished" or run.message]
    if not runs:
        return None
    columns = (Column("Variant", False), Column("Seed"), Column("Status", False), Column("What is known", False))
    status = {"missing": "not run", "running": "running or interrupted"}
    lines = (
        (
            Cell(run.row, code=True),
            Cell(str(run.seed), link=None if run.status == "missing" else run.path),
            Cell(status.get(run.status, run.status)),
            Cell(run.message or MISSING),
        )
        for run in runs
    )
    return Table(columns, tuple(lines))


def environment_table(sweep: Sweep) -> Table | None:
    """How the runs were executed: every value that occurs."""
    found = {"commit": sweep.commits() or ({sweep.commit: 0} if sweep.commit else {}), **sweep.environment()}
    lines = [(Cell(name.replace("_", " ")), Cell(", ".join(values))) for name, values in found.items() if values]
    return Table((Column("What", False), Column("Value", False)), tuple(lines)) if lines else None


def _change(sweep: Sweep, row: str) -> Cell:
    text = change_text(sweep, row)
    return Cell(text, code=True) if text else Cell(MISSING)


def change_text(sweep: Sweep, row: str) -> str:
    """The overrides of a row, one a line."""
    return "\n".join(f"{path} = {_plain(value)}" for path, value in sweep.rows[row].overrides.items())


def _parameters(sweep: Sweep, row: str) -> list[Cell]:
    parameters = sweep.rows[row].parameters
    difference = parameter_difference(sweep, row, sweep.base) if row != sweep.base else None
    return [
        Cell(MISSING if parameters is None else f"{parameters:,}"),
        Cell(MISSING if difference is None else "0" if not difference[0] else _percent(difference[1])),
    ]


def _seed_value(analysis: Analysis, run: Run) -> Cell:
    if run.value is not None:
        return Cell(analysis.units.value(run.value), link=run.path)
    if run.status == "missing":
        return Cell(MISSING)
    return Cell("not measured" if run.status == "finished" else run.status, link=run.path)


def _difference(analysis: Analysis, comparison: Comparison) -> list[Cell]:
    test, units = comparison.test, analysis.units
    return [
        Cell(units.difference(test.mean if test else None)),
        Cell(units.interval(test.interval if test else None)),
        Cell(p_text(comparison.p)),
        Cell(FINDINGS[comparison.finding], finding=comparison.finding),
    ]


def _scores(run: Run, split: str) -> Sequence[tuple[str, object]]:
    metrics = run.result.get("metrics")
    fields = metrics.get(split) if isinstance(metrics, dict) else None
    return list(fields.items()) if isinstance(fields, dict) else []


def _mean_text(sweep: Sweep, row: str, metric: str) -> str:
    return _summary_text(metric, summarize(list(sweep.values(row, metric).values())))


def _summary_text(metric: str, summary: Summary) -> str:
    return make_units(metric, False, [summary.sd] if summary.sd else []).plus_minus(summary.mean, summary.sd)


def _metric_title(name: str, split: str) -> str:
    return f"{PROPER_NAMES.get(name, name.replace('_', ' '))} ({split})"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else to_json(value)


def _number(value: object, digits: str) -> str:
    number = finite(value)
    return MISSING if number is None else f"{number:{digits}}"


def _fixed(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _signed(value: int) -> str:
    return f"{value:+,}".replace("-", "\N{MINUS SIGN}") if value else "0"


def _percent(value: float) -> str:
    """More digits the smaller the difference: of partners it should be at most 0.1 %."""
    text = f"{value:+.1f}" if abs(value) >= 1 else f"{value:+.2f}" if abs(value) >= 0.1 else f"{value:+.4f}"
    return ("0" if not value else text.replace("-", "\N{MINUS SIGN}")) + " %"
