"""What a sweep found: its rows, and the runs of each, whatever became of them."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformer_jax.report.untrusted import printable
from transformer_jax.run.directory import is_count

# In the order of the report. Only "finished" enters a mean or a test.
STATUSES = ("finished", "diverged", "failed", "unreadable", "running", "missing")

Curves = Mapping[str, Mapping[int, float]]


@dataclasses.dataclass(frozen=True)
class Row:
    """One variant as the sweep defines it.

    `partner` is another row with (nearly) as many parameters; `own_of` the row that this one is at its own learning
    rate, and then `partner` is the base at its own; rows of equal `key` are one experiment by two names.
    `seeds` is how many it was given where that is not all of the sweep's: it was settled before.
    """

    name: str
    overrides: Mapping[str, Any]
    parameters: int | None
    partner: str | None
    paper: Mapping[str, Any]
    note: str
    key: str
    own_of: str | None = None
    seeds: int | None = None


@dataclasses.dataclass(frozen=True)
class Run:
    """One row with one seed. `path` is its directory relative to the sweep, None where the run is packed; `value` the
    sweep's metric (only of finished runs).

    `curves` maps a field of the validation lines to its points, {step: value}.
    """

    row: str
    seed: int
    path: str | None
    status: str
    message: str
    value: float | None
    result: Mapping[str, Any]
    curves: Curves

    @property
    def seconds(self) -> float | None:
        """Wall time from start to result."""
        seconds = self.result.get("seconds")
        return finite(seconds.get("total")) if isinstance(seconds, dict) else None

    @property
    def skipped(self) -> int:
        """Steps whose update was left out as it was not finite, where `train.on_nonfinite` is "skip"."""
        return number_of_steps(self.result.get("skipped"))


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The definition of a sweep and its runs; `problems` are what could not be read of the files of all runs.

    How it is judged was declared before the runs: `test` is an entry of TESTS; differences within `margin` count as
    none; a seed beyond `failing` has not learnt the task; the comparisons of all sweeps of a `family` are corrected
    together, `family_size` of them at most (0: those of this sweep); `rounds` are the numbers of seeds after which it
    is decided which rows get more, none where all get the same.
    """

    name: str
    question: str
    hypothesis: str
    scale: str
    config: str
    base: str
    rows: Mapping[str, Row]
    seeds: tuple[int, ...]
    metric: str
    higher_is_better: bool
    percent: bool
    curve: str
    commit: str
    runs: tuple[Run, ...]
    problems: tuple[str, ...] = ()
    test: str = "paired"
    margin: float | None = None
    failing: float | None = None
    family: str = ""
    family_size: int = 0
    rounds: tuple[int, ...] = ()

    def twin_of(self, row: str) -> str | None:
        """The base, or a row before this one, that is the same experiment by another name."""
        key = self.rows[row].key
        names = (self.base, *self.rows)
        first = next(name for name in names if name == row or (key and self.rows[name].key == key))
        return None if first == row else first

    def runs_of(self, row: str) -> list[Run]:
        return [run for run in self.runs if run.row == row]

    def values(self, row: str, metric: str | None = None) -> dict[int, float]:
        """The sweep's metric, or another, of the finished runs of a row, by seed."""
        if metric is None or metric == self.metric:
            return {run.seed: run.value for run in self.runs_of(row) if run.value is not None}
        finished = [run for run in self.runs_of(row) if run.status == "finished"]
        return {run.seed: value for run in finished if (value := metric_value(run.result, metric)) is not None}

    def fails(self, run: Run) -> bool | None:
        """Whether a seed has not learnt the task: it diverged, or lies beyond `failing`; None where that is unknown."""
        if run.status == "diverged":
            return True
        if self.failing is None or run.value is None:
            return None
        return run.value < self.failing if self.higher_is_better else run.value > self.failing

    def commits(self) -> dict[str, int]:
        """Commits of the runs with a result, and the number of runs of each."""
        return dict(Counter(str(run.result["commit"]) for run in self.runs if run.result.get("commit")))

    def environment(self) -> dict[str, dict[str, int]]:
        """How the runs with a result were executed: name -> value -> number of runs."""
        found: dict[str, Counter[str]] = {}
        for run in self.runs:
            executed = run.result.get("executed")
            for name, value in executed.items() if isinstance(executed, dict) else ():
                found.setdefault(name, Counter())[str(value)] += 1
        return {name: dict(values) for name, values in found.items()}


def parameter_difference(sweep: Sweep, row: str, against: str) -> tuple[int, float] | None:
    """Parameters of `row` minus those of `against`, absolute and in percent of `against`."""
    ours, theirs = sweep.rows[row].parameters, sweep.rows[against].parameters
    if ours is None or not theirs:
        return None
    return ours - theirs, 100 * (ours - theirs) / theirs


def make_run(
    row: str, seed: int, path: str | None, status: str, message: str, result: Mapping[str, Any], curves: Curves,
    metric: str,
) -> Run:  # fmt: skip
    """A run with its value of the metric; a finished one that lacks it says so."""
    value = metric_value(result, metric) if status == "finished" else None
    if status == "finished" and value is None and metric:
        message = message or f"finished without {metric}"
    return Run(row, seed, path, status, message, value, result, curves)


def curves_of(lines: Iterable[Mapping[str, Any]]) -> Curves:
    """The points of validation by field. A step written twice (before and after an interruption) keeps the later."""
    curves: dict[str, dict[int, float]] = {}
    for line in lines:
        if line.get("split") == "valid":
            for field, value in line.items():
                if field != "step" and (number := finite(value)) is not None:
                    curves.setdefault(printable(field), {})[line["step"]] = number
    return {field: dict(sorted(points.items())) for field, points in curves.items()}


def metric_value(result: Mapping[str, Any], metric: str) -> float | None:
    """The finite number under metrics/<split>/<field> of a result, else None: a NaN was not measured."""
    split, _, field = metric.partition("/")
    metrics = result.get("metrics")
    fields = metrics.get(split) if isinstance(metrics, dict) else None
    return finite(fields.get(field)) if isinstance(fields, dict) else None


def skipped_text(results: Sequence[Mapping[str, Any]]) -> str:
    """How many of the steps of those results were left out; "" where none was."""
    skipped, steps = (sum(number_of_steps(result.get(name)) for result in results) for name in ("skipped", "steps"))
    return f"{skipped:,} of {steps:,} steps skipped" if skipped else ""


def number_of_steps(value: Any) -> int:
    """The value if it is a number of steps, else 0."""
    return value if is_count(value) else 0


def finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e300 < value < 1e300:
        return None
    return float(value)
