"""The report in Markdown, CSV and LaTeX."""

import csv
import io
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from transformer_jax.report.analysis import Analysis, facts, mean_seconds
from transformer_jax.report.comparison import Comparison
from transformer_jax.report.methods import TEST_NAMES, methods
from transformer_jax.report.results import parameter_difference
from transformer_jax.report.tables import (
    Cell,
    Column,
    Table,
    details_table,
    environment_table,
    failing_table,
    metrics_table,
    own_table,
    partner_table,
    results_table,
    unfinished_table,
)
from transformer_jax.report.wording import count

LATEX_SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "\N{MINUS SIGN}": "$-$", "±": r"$\pm$", "Δ": r"$\Delta$",
}  # fmt: skip
# Columns of the results table that a paper has no room for.
NOT_IN_LATEX = r"Change|seed -?\d+|Time a run"


def to_markdown(analysis: Analysis) -> str:
    sweep = analysis.sweep
    sections = [f"# {_plain_markdown(sweep.name)}"]
    sections += [f"**{name}** {_plain_markdown(text)}" for name, text in _aims(analysis) if text]
    sections.append("; ".join(f"{name}: {_plain_markdown(value)}" for name, value in facts(analysis).items()))
    sections.append(_plain_markdown(analysis.summary))
    sections.append("\n".join(f"- {_plain_markdown(note)}" for note in analysis.notes))
    sections.append(f"## Results: {_plain_markdown(analysis.units.label)}\n\n{markdown_table(results_table(analysis))}")
    sections.append(
        "\n".join(
            f"- {_code(row)}: {_plain_markdown(text)}" for row, text in verdict_lines(analysis, analysis.comparisons)
        )
    )
    tables = {
        "Against partners of equal size": partner_table(analysis),
        "Each row at its own learning rate": own_table(analysis),
        "Seeds that failed": failing_table(sweep),
        "Statistics in detail": details_table(analysis),
        "All metrics (exploratory)": metrics_table(sweep),
        "Runs without a result": unfinished_table(sweep),
        "Environment": environment_table(sweep),
    }
    sections += [f"## {title}\n\n{markdown_table(table)}" for title, table in tables.items() if table]
    sections += ["## How the statistics were made", *map(_plain_markdown, methods(sweep, analysis.units))]
    return "\n\n".join(filter(None, sections)) + "\n"


def verdict_lines(analysis: Analysis, comparisons: Sequence[Comparison]) -> list[tuple[str, str]]:
    """(row, verdict and the row's note) in the order of the rows."""
    lines = []
    for comparison in comparisons:
        note = analysis.sweep.rows[comparison.row].note
        lines.append((comparison.row, comparison.verdict + (f" ({note})" if note else "")))
    return lines


def to_csv(analysis: Analysis) -> str:
    """One line a row with numbers as stored, unrounded; empty where nothing was measured.

    A text that a spreadsheet would take for a formula, and run, begins with an apostrophe.
    """
    sweep = analysis.sweep
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ["row", "overrides", "parameters", "parameters_minus_base", "metric", *(f"seed_{s}" for s in sweep.seeds)]
    names += ["n", "mean", "sd", "low_95", "high_95", "pairs", "difference", "difference_low_95", "difference_high_95"]
    names += ["p", "p_corrected", "p_equal_corrected", "effect_size", "correlation", "finding", "verdict"]
    names += ["exploratory_metric", "exploratory_mean", "exploratory_sd", "exploratory_difference"]
    writer.writerow([*names, "mean_seconds"])
    for row, definition in sweep.rows.items():
        residual = parameter_difference(sweep, row, sweep.base)
        values, summary, comparison = sweep.values(row), analysis.summaries[row], analysis.comparison(row)
        test = comparison.test if comparison else None
        between = test.interval if test else None
        beside = analysis.beside_summaries.get(row)
        cells = (
            [row, "; ".join(f"{path}={value}" for path, value in definition.overrides.items()), definition.parameters]
            + [residual[0] if residual else None, sweep.metric, *(values.get(seed) for seed in sweep.seeds)]
            + [summary.n, summary.mean, summary.sd]
            + ([summary.interval.low, summary.interval.high] if summary.interval else [None, None])
            + ([test.n, test.mean] if test else [None, None])
            + ([between.low, between.high] if between else [None, None])
            + ([test.p] if test else [None])
            + ([comparison.p] if comparison else [None])
            + ([comparison.p_equal] if comparison else [None])
            + ([test.effect_size] if test else [None])
            + ([comparison.correlation] if comparison else [None])
            + ([comparison.finding, comparison.verdict] if comparison else [None, None])
            + ([analysis.beside, beside.mean, beside.sd] if beside else [None, None, None])
            + ([comparison.beside.mean] if comparison and comparison.beside else [None])
            + [mean_seconds(sweep, row)]
        )
        writer.writerow([_no_formula(cell) for cell in cells])
    return out.getvalue()


def _no_formula(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.lstrip().startswith(("=", "+", "-", "@")) else cell


def to_latex(analysis: Analysis) -> str:
    """A `table` environment for a paper; it needs the packages booktabs and inputenc/fontspec, nothing else."""
    table = results_table(analysis).without(NOT_IN_LATEX)
    alignment = "".join("r" if column.numeric else "l" for column in table.columns)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_latex(_caption(analysis))}}}",
        f"\\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', analysis.sweep.name)}}}",
        f"\\begin{{tabular}}{{{alignment}}}",
        "\\toprule",
        " & ".join(_latex(column.title) for column in table.columns) + r" \\",
        "\\midrule",
        *(" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in table.rows),
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _caption(analysis: Analysis) -> str:
    return (
        f"{analysis.units.label}: mean ± standard deviation over seeds; difference to {analysis.sweep.base} with its "
        f"95 % interval; p: {TEST_NAMES[analysis.sweep.test]}, corrected by Holm's method. "
        f"{analysis.sweep.config}, scale {analysis.sweep.scale}, {count(len(analysis.sweep.seeds), 'seed')}."
    )


def _aims(analysis: Analysis) -> tuple[tuple[str, str], ...]:
    return ("Question.", analysis.sweep.question), ("Hypothesis.", analysis.sweep.hypothesis)


def markdown_table(table: Table) -> str:
    lines = ["| " + " | ".join(_plain_markdown(column.title) for column in table.columns) + " |"]
    lines.append("|" + "|".join(_rule(column) for column in table.columns) + "|")
    lines += ["| " + " | ".join(map(_markdown_cell, row)) + " |" for row in table.rows]
    return "\n".join(lines)


def _rule(column: Column) -> str:
    return " ---: " if column.numeric else " --- "


def _markdown_cell(cell: Cell) -> str:
    if cell.code:
        return "<br>".join(_code(line) for line in cell.text.split("\n") if line.strip())
    text = _plain_markdown(cell.text)
    return text if cell.link is None else f"[{text}]({quote(cell.link)})"


def _code(text: str) -> str:
    """As code, or as escaped text if it holds one of the signs that have a meaning even in code."""
    text = " ".join(text.split())
    return f"`{text}`" if text and not re.search(r"[`|]", text) else _plain_markdown(text)


def _plain_markdown(text: str) -> str:
    """Text on one line, without a sign that Markdown or HTML would act on."""
    escaped = re.sub(r"([\\`*\[\]|#])", r"\\\1", " ".join(text.split()))
    escaped = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", escaped)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _latex_cell(cell: Cell) -> str:
    return f"\\texttt{{{_latex(cell.text)}}}" if cell.code else _latex(cell.text)


def _latex(text: str) -> str:
    return "".join(LATEX_SIGNS.get(sign, sign) for sign in " ".join(text.split()))
