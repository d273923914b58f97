"""The pictures of the report as SVG text, to stand inside the page.

Colours are CSS variables of the page, so that one picture is right in light, in dark and on paper. Matplotlib knows no
variables: it draws with the stand-in colours of INKS, which are replaced in its output. Every SVG is the same, byte for
byte, for the same results.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from transformer_jax.report.comparison import Comparison
from transformer_jax.report.results import Sweep
from transformer_jax.report.wording import Units

SERIES = tuple(f"series-{i}" for i in range(1, 8))
# Stand-in colour -> CSS variable; the shades mean nothing.
INKS = {
    name: f"#0a0b{index:02x}"
    for index, name in enumerate(("ink", "muted", "grid", "better", "worse", "neutral", *SERIES))
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: searchable, in the font of the page
    "text.parse_math": False,  # a row name may hold a dollar sign
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "text.color": INKS["ink"],
    "axes.labelcolor": INKS["muted"],
    "axes.edgecolor": INKS["grid"],
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INKS["grid"],
    "ytick.color": INKS["grid"],
    "xtick.labelcolor": INKS["muted"],
    "ytick.labelcolor": INKS["muted"],
    "grid.color": INKS["grid"],
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "figure.constrained_layout.use": True,
}
WIDTH = 8.6  # inches, at 100 pixels each in the page
FINDING_INKS = {"better": "better", "worse": "worse"}
MOST_ROWS_TOGETHER = len(SERIES) + 1
PANELS_ACROSS = 4
# A curve that spans more than this ratio is drawn on a logarithmic axis.
LOG_RATIO = 20.0

Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]  # row -> steps [points], values [seeds, points]


def forest_plot(
    comparisons: Sequence[Comparison], units: Units, against: str, margin: float | None, number: int
) -> str:
    """Difference to `against` of every row: seeds as dots, the mean with its 95 % interval, zero as a line.

    `margin` is drawn as a band; `number` is that of the picture in the page.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.0 + 0.36 * len(comparisons)))
        axes = figure.subplots()
        limits = _difference_limits(comparisons, units)
        axes.set_xlim(*limits)
        axes.set_ylim(len(comparisons) - 0.4, -0.6)
        if margin is not None:
            band = margin * units.factor
            axes.axvspan(max(-band, limits[0]), min(band, limits[1]), color=INKS["grid"], alpha=0.6, linewidth=0)
        axes.axvline(0, color=INKS["muted"], linewidth=1)
        for y, comparison in enumerate(comparisons):
            _draw_difference(axes, y, comparison, units, limits)
        axes.set_yticks(range(len(comparisons)), [c.row for c in comparisons], color=INKS["ink"])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel(f"difference to {against}, {units.unit}")
        return _svg(figure, number)


def _difference_limits(comparisons: Sequence[Comparison], units: Units) -> tuple[float, float]:
    """The range shown: all differences and zero; an interval that reaches far beyond them is cut, and marked as cut."""
    points = [0.0, *(d * units.factor for c in comparisons for d in c.differences)]
    intervals = [c.test.interval for c in comparisons if c.test is not None and c.test.interval is not None]
    low, high = min(points), max(points)
    room = 1.5 * max(high - low, 5 * 10**-units.decimals)
    low = max(low - room, min([low, *(i.low * units.factor for i in intervals)]))
    high = min(high + room, max([high, *(i.high * units.factor for i in intervals)]))
    margin = 0.06 * ((high - low) or 1.0)
    return low - margin, high + margin


def _draw_difference(axes: Axes, y: int, comparison: Comparison, units: Units, limits: tuple[float, float]) -> None:
    test = comparison.test
    beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 9}
    if test is None:
        axes.text(1.02, y, "not measured", color=INKS["muted"], **beside)
        return
    ink = INKS[FINDING_INKS.get(comparison.finding, "neutral")]
    seeds = np.asarray(comparison.differences) * units.factor
    mean, label = test.mean * units.factor, units.difference(test.mean)
    if test.interval is not None:
        ends = np.array([test.interval.low, test.interval.high]) * units.factor
        shown = ends.clip(*limits)
        axes.plot(shown, [y, y], color=ink, linewidth=2, solid_capstyle="butt")
        for end, cut, marker in zip(ends, shown, "<>", strict=True):
            if end != cut:
                axes.plot(cut, y, marker, color=ink, markersize=6, clip_on=False)
        label += f"  {units.interval(test.interval)}"
    axes.plot(mean, y, "s", color=ink, markersize=6.5, fillstyle="full" if test.interval else "none")
    below = np.full(seeds.size, y + 0.27)  # under the bar, else they hide behind it
    axes.plot(seeds, below, "o", color=INKS["muted"], alpha=0.6, markersize=3.2, markeredgewidth=0)
    axes.text(1.02, y, label, color=INKS["ink"], **beside)


def learning_curves(sweep: Sweep, field: str, label: str, number: int, factor: float = 1.0) -> str | None:
    """A field of the validation lines over steps: mean and range over the seeds. None if nothing was written."""
    curves = {row: curve for row in sweep.rows if (curve := _row_curve(sweep, row, field, factor)) is not None}
    if not curves:
        return None
    with mpl.rc_context(STYLE):
        figure = _overlaid(curves, sweep.base) if len(curves) <= MOST_ROWS_TOGETHER else _panels(curves, sweep.base)
        figure.supxlabel("step", fontsize=10, color=INKS["muted"])
        figure.supylabel(label, fontsize=10, color=INKS["muted"])
        return _svg(figure, number)


def _row_curve(sweep: Sweep, row: str, field: str, factor: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Steps that all finished runs of the row have (of all runs, if none is finished), and their values."""
    runs = [run for run in sweep.runs_of(row) if run.curves.get(field)]
    runs = [run for run in runs if run.status == "finished"] or runs
    if not runs:
        return None
    steps = sorted(set.intersection(*(set(run.curves[field]) for run in runs)))
    values = np.array([[run.curves[field][step] for step in steps] for run in runs])
    return (np.array(steps), values * factor) if steps else None


def _overlaid(curves: Curves, base: str) -> Figure:
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    series = iter(SERIES)
    for row in sorted(curves, key=lambda row: row != base):
        _draw_curve(axes, curves[row], INKS["ink"] if row == base else INKS[next(series)], row)
    _finish_axes(axes, curves)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, handlelength=1.4, fontsize=9)
    return figure


def _panels(curves: Curves, base: str) -> Figure:
    """A panel a row with the base behind it, all on one scale: readable with thirty rows."""
    rows = [row for row in curves if row != base]
    lines = -(-len(rows) // PANELS_ACROSS)
    figure = Figure(figsize=(WIDTH, 0.5 + 1.75 * lines))
    grid = figure.subplots(lines, PANELS_ACROSS, sharex=True, sharey=True, squeeze=False)
    for axes, row in zip(grid.flat, rows, strict=False):
        if base in curves:
            _draw_curve(axes, curves[base], INKS["muted"], base)
        _draw_curve(axes, curves[row], INKS["series-1"], row)
        axes.set_title(row, fontsize=9, color=INKS["ink"])
        _finish_axes(axes, curves)
    for axes in grid.flat[len(rows) :]:
        axes.set_visible(False)
    return figure


def _draw_curve(axes: Axes, curve: tuple[np.ndarray, np.ndarray], ink: str, row: str) -> None:
    steps, values = curve
    if len(values) > 1:
        axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=ink, alpha=0.16, linewidth=0)
    axes.plot(steps, values.mean(axis=0), color=ink, linewidth=1.6, marker="o" if len(steps) == 1 else "", label=row)


def _finish_axes(axes: Axes, curves: Curves) -> None:
    smallest = min(values.min() for _, values in curves.values())
    largest = max(values.max() for _, values in curves.values())
    if smallest > 0 and largest > LOG_RATIO * smallest:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.grid()
    axes.tick_params(length=0, labelsize=9)


def _svg(figure: Figure, number: int) -> str:
    """The <svg> element, its stand-in colours turned into variables and its ids made unique in the page by a number."""
    out = io.StringIO()
    name = f"figure-{number}"  # never a name out of a file: that could end the id and begin a script
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    # The metadata holds the date: without it the same results give the same bytes.
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    for ink, stand_in in INKS.items():
        svg = svg.replace(f": {stand_in}", f": var(--{ink})")
    svg = re.sub(r'(<[a-zA-Z]+ id=")', rf"\1{name}-", svg)
    return re.sub(r'(url\(#|xlink:href="#)', rf"\1{name}-", svg)
