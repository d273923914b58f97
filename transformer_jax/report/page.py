"""The report as one HTML file that needs nothing else: styles and pictures inside, no script."""

import dataclasses

from markupsafe import Markup

from transformer_jax.report.analysis import Analysis, facts
from transformer_jax.report.figures import forest_plot, learning_curves
from transformer_jax.report.formats import verdict_lines
from transformer_jax.report.methods import methods
from transformer_jax.report.tables import (
    change_text,
    details_table,
    environment_table,
    failing_table,
    metrics_table,
    own_table,
    partner_table,
    results_table,
    unfinished_table,
)
from transformer_jax.report.templates import TEMPLATES
from transformer_jax.report.wording import FINDINGS, PROPER_NAMES


@dataclasses.dataclass(frozen=True)
class Picture:
    """An <svg> element and what it shows."""

    svg: Markup
    caption: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A row against the base."""

    row: str
    change: str
    finding: str
    text: str


def to_html(analysis: Analysis) -> str:
    """The page of a report."""
    sweep = analysis.sweep
    return TEMPLATES.get_template("page.html").render(
        analysis=analysis,
        sweep=sweep,
        facts=facts(analysis),
        findings=FINDINGS,
        methods=methods(sweep, analysis.units),
        verdicts=_verdicts(analysis),
        differences=_differences(analysis),
        curves=_curves(analysis),
        results=results_table(analysis).without("Change"),
        partners=partner_table(analysis),
        own=own_table(analysis),
        failing=failing_table(sweep),
        details=details_table(analysis),
        metrics=metrics_table(sweep),
        unfinished=unfinished_table(sweep),
        environment=environment_table(sweep),
    )


def _verdicts(analysis: Analysis) -> list[Verdict]:
    texts = verdict_lines(analysis, analysis.comparisons)
    return [
        Verdict(row, change_text(analysis.sweep, row), comparison.finding, text)
        for comparison, (row, text) in zip(analysis.comparisons, texts, strict=True)
    ]


def _differences(analysis: Analysis) -> Picture | None:
    if not analysis.comparisons:
        return None
    base = analysis.sweep.base
    side = "right" if analysis.sweep.higher_is_better else "left"
    caption = (
        f"Difference to {base}. Squares: mean, with its 95 % interval; dots: single seeds. Better is to the {side}. "
        "An arrow marks an interval that reaches beyond. Colour only where the corrected p is at most 0.05."
    )
    margin = analysis.sweep.margin
    if margin is not None:
        caption += f" Band: the margin of {analysis.units.amount(margin)}."
    return _picture(forest_plot(analysis.comparisons, analysis.units, base, margin, number=1), caption)


def _curves(analysis: Analysis) -> list[Picture]:
    sweep, units = analysis.sweep, analysis.units
    field, metric = sweep.curve.partition("/")[2], sweep.metric.partition("/")[2]
    drawn = []
    if field:
        label = f"{PROPER_NAMES.get(field, field)} (valid)"
        drawn.append((learning_curves(sweep, field, label, 2), field))
    if metric != field:
        label = f"{PROPER_NAMES.get(metric, metric.replace('_', ' '))} (valid)" + (", %" if sweep.percent else "")
        drawn.append((learning_curves(sweep, metric, label, 3, units.factor), metric))
    return [
        _picture(svg, f"{name.replace('_', ' ')} on the validation split: mean and range (band) over the seeds.")
        for svg, name in drawn
        if svg is not None
    ]


def _picture(svg: str, caption: str) -> Picture:
    """The drawing, in which Matplotlib has escaped every text, with its caption for those who cannot see it."""
    start = Markup('<svg role="img" aria-label="{}" ').format(caption)
    return Picture(Markup(svg.replace("<svg ", start, 1)), caption)
