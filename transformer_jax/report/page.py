"""The report as one HTML file that needs nothing else: styles and pictures inside, no script."""

import html
from importlib import resources
from string import Template
from urllib.parse import quote

from transformer_jax.report.analysis import METHODS, Analysis, facts
from transformer_jax.report.figures import forest_plot, learning_curves
from transformer_jax.report.formats import verdict_lines
from transformer_jax.report.tables import (
    Cell,
    Table,
    change_text,
    details_table,
    environment_table,
    metrics_table,
    partner_table,
    results_table,
    unfinished_table,
)
from transformer_jax.report.wording import FINDINGS, PROPER_NAMES


def to_html(analysis: Analysis) -> str:
    """Every text of the run directories is escaped; only this module and the figures write markup."""
    room = resources.files("transformer_jax.report")
    sweep = analysis.sweep
    sections = [
        _verdicts(analysis),
        _forest(analysis),
        _section(
            "Results", f"<p>{_text(analysis.units.label)}</p>" + _table(results_table(analysis).without("Change"))
        ),
        _section(
            "Against partners of equal size",
            _lead("Rows against a row with as many parameters, or nearly as many.") + _table(partner_table(analysis)),
        )
        if analysis.partners
        else "",
        _curves(analysis),
        _optional("Statistics in detail", details_table(analysis)),
        _optional("All metrics, mean ± sd", metrics_table(sweep)),
        _optional("Runs without a result", unfinished_table(sweep)),
        _section("How the statistics were made", f"<p>{_text(METHODS)}</p>"),
        _optional("Environment", environment_table(sweep)),
    ]
    return Template(room.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        style=room.joinpath("page.css").read_text(encoding="utf-8"),
        title=_text(sweep.name),
        question=_paragraphs(sweep.question, "question"),
        hypothesis=_paragraphs(sweep.hypothesis, "hypothesis", "Hypothesis. "),
        facts=_facts(analysis),
        notes=_notes(analysis),
        sections="\n".join(filter(None, sections)),
    )


def _facts(analysis: Analysis) -> str:
    return "".join(f"<div><dt>{name}</dt><dd>{_text(value)}</dd></div>" for name, value in facts(analysis).items())


def _notes(analysis: Analysis) -> str:
    if not analysis.notes:
        return ""
    return f'<ul class="notes">{"".join(f"<li>{_text(note)}</li>" for note in analysis.notes)}</ul>'


def _verdicts(analysis: Analysis) -> str:
    lines = []
    for comparison, (row, text) in zip(
        analysis.comparisons, verdict_lines(analysis, analysis.comparisons), strict=True
    ):
        kind = comparison.finding
        badge = f'<span class="badge {kind}">{FINDINGS[kind]}</span>'
        change = _text(change_text(analysis.sweep, row)).replace(".", ".<wbr>").replace("\n", "<br>")
        name = f"<div><code>{_text(row)}</code><small><code>{change}</code></small></div>"
        lines.append(f"<li>{name} {badge} <span>{_text(text)}</span></li>")
    verdicts = f'<ul class="verdicts">{"".join(lines)}</ul>' if lines else ""
    return _section("Findings", f'<p class="summary">{_text(analysis.summary)}</p>{verdicts}')


def _forest(analysis: Analysis) -> str:
    if not analysis.comparisons:
        return ""
    base = analysis.sweep.base
    picture = forest_plot(analysis.comparisons, analysis.units, base, number=1)
    side = "right" if analysis.sweep.higher_is_better else "left"
    caption = (
        f"Difference to {base}, paired by seed. Squares: mean, with its 95 % interval; dots: single seeds. "
        f"Better is to the {side}. An arrow marks an interval that reaches beyond. "
        "Colour only where p after Holm is at most 0.05."
    )
    return _section("Differences", _figure(picture, caption))


def _curves(analysis: Analysis) -> str:
    sweep, units = analysis.sweep, analysis.units
    field, metric = sweep.curve.partition("/")[2], sweep.metric.partition("/")[2]
    pictures = []
    if field:
        label = f"{PROPER_NAMES.get(field, field)} (valid)"
        pictures.append((learning_curves(sweep, field, label, 2), field))
    if metric != field:
        label = f"{PROPER_NAMES.get(metric, metric.replace('_', ' '))} (valid)" + (", %" if sweep.percent else "")
        pictures.append((learning_curves(sweep, metric, label, 3, units.factor), metric))
    figures = [
        _figure(picture, f"{name.replace('_', ' ')} on the validation split: mean and range (band) over the seeds.")
        for picture, name in pictures
        if picture is not None
    ]
    return _section("Learning curves", "".join(figures)) if figures else ""


def _section(title: str, content: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{content}</section>"


def _optional(title: str, table: Table | None) -> str:
    return _section(title, _table(table)) if table else ""


def _lead(text: str) -> str:
    return f"<p>{_text(text)}</p>"


def _figure(svg: str, caption: str) -> str:
    picture = svg.replace("<svg ", f'<svg role="img" aria-label="{_text(caption)}" ', 1)
    return f'<figure><div class="scroll">{picture}</div><figcaption>{_text(caption)}</figcaption></figure>'


def _table(table: Table | None) -> str:
    if table is None:
        return ""
    alignment = ["number" if column.numeric else "words" for column in table.columns]
    head = "".join(
        f'<th scope="col" class="{kind}">{_text(column.title)}</th>'
        for kind, column in zip(alignment, table.columns, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(_cell(cell, kind) for kind, cell in zip(alignment, row, strict=True)) + "</tr>"
        for row in table.rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(cell: Cell, alignment: str) -> str:
    text = _text(cell.text).replace("\n", "<br>")
    if cell.code:
        text = f"<code>{text}</code>"
    if cell.finding:
        text = f'<span class="badge {cell.finding}">{text}</span>'
    if cell.link is not None:
        text = f'<a href="{_text(quote(cell.link))}">{text}</a>'
    return f'<td class="{alignment}">{text}</td>'


def _paragraphs(text: str, kind: str, lead: str = "") -> str:
    blocks = [" ".join(block.split()) for block in text.split("\n\n") if block.strip()]
    start = f"<b>{lead}</b>" if lead else ""
    return "".join(f'<p class="{kind}">{start if i == 0 else ""}{_text(b)}</p>' for i, b in enumerate(blocks))


def _text(text: str) -> str:
    return html.escape(text)
