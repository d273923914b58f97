"""What a sweep left on disk, read without trust: every file may be absent, half written or damaged.

A run that cannot be read is a fact of the report, not an error of the reader. Only a directory that is no
sweep at all is refused, with a `UserError`.
"""

import dataclasses
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer_jax.errors import UserError
from transformer_jax.files import MOST_BYTES, MOST_LOG_BYTES, read_bytes

SCHEMA = 1
MOST_RUNS = 100_000
# Signs that steer a terminal, or that no HTML, XML or UTF-8 can hold.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
# In the order of the report. Only "finished" enters a mean or a test.
STATUSES = ("finished", "diverged", "failed", "unreadable", "running", "missing")
# The metrics a single run is reported by, best known first.
SINGLE_RUN_METRICS = {"test/exact_match": (True, True), "test/bleu": (True, False), "test/nll": (False, False)}


@dataclasses.dataclass(frozen=True)
class Row:
    """One variant as the sweep defines it.

    `partner` is another row with (nearly) as many parameters; rows of equal `key` are one experiment by two names.
    """

    name: str
    overrides: Mapping[str, Any]
    parameters: int | None
    partner: str | None
    paper: Mapping[str, Any]
    note: str
    key: str


@dataclasses.dataclass(frozen=True)
class Run:
    """One row with one seed. `path` is relative to the sweep, `value` the sweep's metric (only of finished runs).

    `curves` maps a field of the validation lines to its points, {step: value}.
    """

    row: str
    seed: int
    path: str
    status: str
    message: str
    value: float | None
    result: Mapping[str, Any]
    curves: Mapping[str, Mapping[int, float]]

    @property
    def seconds(self) -> float | None:
        """Wall time from start to result."""
        seconds = self.result.get("seconds")
        return finite(seconds.get("total")) if isinstance(seconds, dict) else None

    @property
    def skipped(self) -> int:
        """Steps whose update was left out as it was not finite, where `train.on_nonfinite` is "skip"."""
        return _whole(self.result.get("skipped"))


@dataclasses.dataclass(frozen=True)
class Sweep:
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

    def twin_of(self, row: str) -> str | None:
        """The base, or a row before this one, that is the same experiment by another name."""
        key = self.rows[row].key
        names = (self.base, *self.rows)
        first = next(name for name in names if name == row or (key and self.rows[name].key == key))
        return None if first == row else first

    def runs_of(self, row: str) -> list[Run]:
        return [run for run in self.runs if run.row == row]

    def values(self, row: str) -> dict[int, float]:
        """The metric of the finished runs of a row, by seed."""
        return {run.seed: run.value for run in self.runs_of(row) if run.value is not None}

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


class UnreadableError(Exception):
    """A file of a run directory that is not what it should be; the message names it."""


def read_sweep(directory: Path) -> Sweep:
    """Read a sweep directory, or a single run directory as a sweep of one row.

    Raises:
      UserError: if the directory is neither, or sweep.json is damaged.
    """
    if os.path.lexists(directory / "sweep.json"):
        return _read_sweep(directory)
    if os.path.lexists(directory / "config.json"):
        return _single_run(directory)
    raise UserError(
        f"{directory} holds neither sweep.json nor config.json, so there is nothing to report: "
        "give the --workdir of a sweep or of a run"
    )


def _read_sweep(directory: Path) -> Sweep:
    path = directory / "sweep.json"
    try:
        data = _read_object(path)
    except UnreadableError as error:
        raise UserError(f"{path}: {error}. Start the sweep again; it writes the file anew.") from None
    if data.get("schema") != SCHEMA:
        raise UserError(f"{path}: schema is {data.get('schema')!r}, but this version reads {SCHEMA}")
    metric = _field(path, data, "metric", str)
    curve = str(data.get("curve") or "")
    rows = {name: _row(path, name, row) for name, row in _field(path, data, "rows", dict).items()}
    seeds = _field(path, data, "seeds", list)
    if not all(isinstance(seed, int) for seed in seeds):
        raise UserError(f"{path}: seeds must be whole numbers, found {seeds!r}")
    if len(rows) * len(seeds) > MOST_RUNS:
        raise UserError(f"{path}: describes {len(rows) * len(seeds):,} runs; at most {MOST_RUNS:,} are reported")
    base = _field(path, data, "base", str)
    for name in (base, *(row.partner for row in rows.values() if row.partner is not None)):
        if not isinstance(name, str) or name not in rows:
            raise UserError(f"{path}: {name!r} is named as base or partner but is not among the rows {list(rows)}")
    runs = [_read_run(directory, f"runs/{row}/seed_{seed}", row, seed, metric) for row in rows for seed in seeds]
    return Sweep(
        name=_field(path, data, "name", str),
        question=_text(data, "question"),
        hypothesis=_text(data, "hypothesis"),
        scale=_text(data, "scale"),
        config=_text(data, "config"),
        base=base,
        rows=rows,
        seeds=tuple(seeds),
        metric=metric,
        higher_is_better=_field(path, data, "higher_is_better", bool),
        percent=_field(path, data, "percent", bool),
        curve=curve,
        commit=_text(data, "commit"),
        runs=tuple(runs),
    )


def _row(path: Path, name: str, data: Any) -> Row:
    if Path(name).name != name or name in ("", ".."):  # it becomes a directory, and must not lead out of the sweep
        raise UserError(f"{path}: the row name {name!r} is no plain directory name")
    if not isinstance(data, dict):
        raise UserError(f"{path}: rows.{name} must be an object, found {data!r}")
    parameters, overrides, paper = data.get("parameters"), data.get("overrides"), data.get("paper")
    return Row(
        name=name,
        overrides=overrides if isinstance(overrides, dict) else {},
        parameters=parameters if isinstance(parameters, int) else None,
        partner=data.get("partner"),
        paper=paper if isinstance(paper, dict) else {},
        note=_text(data, "note"),
        key=_text(data, "key"),
    )


def _single_run(directory: Path) -> Sweep:
    """One run as a sweep of one row: nothing to compare, but its curve, metrics and environment."""
    name = _printable(directory.resolve().name)
    run = _read_run(directory, ".", name, 0, "")
    metrics = [metric for metric in SINGLE_RUN_METRICS if metric_value(run.result, metric) is not None]
    metric = metrics[0] if metrics else "test/nll"
    seed = run.result.get("seed")
    run = _read_run(directory, ".", name, seed if isinstance(seed, int) else 0, metric)
    higher_is_better, percent = SINGLE_RUN_METRICS[metric]
    parameters = run.result.get("parameters")
    row = Row(name, {}, parameters if isinstance(parameters, int) else None, None, {}, "", "")
    return Sweep(
        name=name, question="", hypothesis="", scale="", config="", base=name, rows={name: row}, seeds=(run.seed,),
        metric=metric, higher_is_better=higher_is_better, percent=percent, curve="valid/nll",
        commit=_text(run.result, "commit"), runs=(run,),
    )  # fmt: skip


def _read_run(sweep: Path, path: str, row: str, seed: int, metric: str) -> Run:
    directory = sweep / path
    result: dict[str, Any] = {}
    try:
        status, message, result = _outcome(directory)
    except UnreadableError as error:
        status, message = "unreadable", str(error)
    curves, problem = _read_curves(directory / "metrics.jsonl")
    message = "; ".join(filter(None, (message, problem)))
    value = metric_value(result, metric) if status == "finished" else None
    if status == "finished" and value is None and metric:
        message = message or f"finished without {metric}"
    return Run(row, seed, path, status, message, value, result, curves)


def _outcome(directory: Path) -> tuple[str, str, dict[str, Any]]:
    """Status, message and result. A result counts more than an error: the run was tried again and finished."""
    if not directory.is_dir():
        return "missing", "", {}
    if os.path.lexists(directory / "result.json"):
        result = _read_object(directory / "result.json")
        status = result.get("status")
        if status not in ("finished", "diverged"):
            raise UnreadableError(f"result.json: status is {status!r}, expected 'finished' or 'diverged'")
        return status, skipped_text([result]), result
    if os.path.lexists(directory / "error.json"):
        error = _read_object(directory / "error.json")
        return "failed", ": ".join(filter(None, (_text(error, "type"), _text(error, "message")))), {}
    return "running", "", {}


def metric_value(result: Mapping[str, Any], metric: str) -> float | None:
    """The finite number under metrics/<split>/<field> of a result, else None: a NaN was not measured."""
    split, _, field = metric.partition("/")
    metrics = result.get("metrics")
    fields = metrics.get(split) if isinstance(metrics, dict) else None
    return finite(fields.get(field)) if isinstance(fields, dict) else None


def skipped_text(results: Sequence[Mapping[str, Any]]) -> str:
    """How many of the steps of those results were left out; "" where none was."""
    skipped, steps = (sum(_whole(result.get(name)) for result in results) for name in ("skipped", "steps"))
    return f"{skipped:,} of {steps:,} steps skipped" if skipped else ""


def _whole(value: Any) -> int:
    """The value if it is a number of steps, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**15 else 0


def finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e300 < value < 1e300:
        return None
    return float(value)


def _read_curves(path: Path) -> tuple[dict[str, dict[int, float]], str]:
    """The validation points by field, and what could not be read.

    A step written twice (before and after an interruption) keeps the later. A damaged last line is normal: the run is
    still running, or was cut off.
    """
    if not os.path.lexists(path):
        return {}, ""
    try:
        lines = _read_text(path, MOST_LOG_BYTES).rstrip("\n").split("\n")
    except UnreadableError as error:
        return {}, f"metrics.jsonl: {error}"
    curves: dict[str, dict[int, float]] = {}
    damaged = []
    for number, text in enumerate(lines, 1):
        try:
            line = _parse_object(text)
        except UnreadableError:
            damaged += [number] if number < len(lines) else []
            continue
        step = line.pop("step", None)
        if line.get("split") == "valid" and isinstance(step, int):
            for field, value in line.items():
                if (number_or_none := finite(value)) is not None:
                    curves.setdefault(field, {})[step] = number_or_none
    problem = f"metrics.jsonl: unreadable lines left out: {', '.join(map(str, damaged))}" if damaged else ""
    return {field: dict(sorted(points.items())) for field, points in curves.items()}, problem


def _read_object(path: Path) -> dict[str, Any]:
    try:
        return _parse_object(_read_text(path))
    except UnreadableError as error:
        raise UnreadableError(f"{path.name}: {error}") from None


def _read_text(path: Path, most: int = MOST_BYTES) -> str:
    try:
        return read_bytes(path, most).decode()
    except OSError as error:
        raise UnreadableError(f"cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UnreadableError(f"cannot be read ({error})") from None


def _parse_object(text: str) -> dict[str, Any]:
    try:
        data = _printable(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"no valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise UnreadableError(f"expected a JSON object, found {type(data).__name__}")
    return data


def _printable(content: Any) -> Any:
    """The content with a replacement character for each sign in its texts that cannot be printed."""
    if isinstance(content, dict):
        return {_printable(name): _printable(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_printable(value) for value in content]
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", content) if isinstance(content, str) else content


def _field(path: Path, data: Mapping[str, Any], name: str, kind: type) -> Any:
    if not isinstance(data.get(name), kind):
        raise UserError(f"{path}: {name} must be of type {kind.__name__}, found {data.get(name)!r}")
    return data[name]


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    return "" if value is None else str(value)
