"""A sweep in few files, for a repository: the report reads them as it reads the run directories.

`sweep.json` defines the sweep, as ever. `runs.jsonl` holds a line a run: row, seed, overrides, status, message, and its
config.json, data.json and result.json (scores, times, versions, commit). `curves.jsonl` holds the lines of all
metrics.jsonl, each with its row and seed. Checkpoints and predictions are left out.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from transformer_jax.report.results import STATUSES, Row, Run, Sweep, curves_of, make_run
from transformer_jax.report.untrusted import UnreadableError, lines_left_out, printable, read_object, text_of
from transformer_jax.run.directory import (
    CONFIG,
    DATA,
    METRICS,
    PACKED_CURVES,
    PACKED_RUNS,
    SWEEP_SCHEMA,
    is_count,
    read_json_lines,
    read_metrics,
)  # fmt: skip

Json = dict[str, Any]


def is_packed(directory: Path) -> bool:
    """Whether the runs of a sweep lie in few files."""
    return os.path.lexists(directory / PACKED_RUNS)


# --- Reading ---


def read_packed_runs(directory: Path, planned: Sequence[tuple[str, int]], metric: str) -> tuple[list[Run], list[str]]:
    """The run of each row and seed, and what could not be read."""
    found, runs_problem = _read_lines(directory / PACKED_RUNS, _is_run)
    points, curves_problem = _read_lines(directory / PACKED_CURVES, _is_point)
    by_run: dict[tuple[str, int], list[Json]] = {}
    for point in points:
        by_run.setdefault((point.pop("row"), point.pop("seed")), []).append(point)
    lines = {(line["row"], line["seed"]): line for line in found}
    unknown: Json = {"status": "unreadable" if runs_problem else "missing", "result": {}}
    runs = []
    for row, seed in planned:
        line, curves = lines.get((row, seed), unknown), curves_of(by_run.get((row, seed), []))
        runs.append(make_run(row, seed, None, line["status"], text_of(line, "message"), line["result"], curves, metric))
    return runs, list(filter(None, (runs_problem, curves_problem)))


def _read_lines(path: Path, is_whole: Callable[[Json], bool]) -> tuple[list[Json], str]:
    """The lines of a file that are whole, and what could not be read."""
    try:
        lines = [_printable(line) for line in read_json_lines(path)]
    except OSError as error:
        return [], f"{path.name}: cannot be read ({error.strerror})"
    damaged = [number for number, line in enumerate(lines, 1) if line is None or not is_whole(line)]
    whole = [line for line in lines if line is not None and is_whole(line)]
    return whole, lines_left_out(path.name, damaged)


def _printable(line: Json | None) -> Json | None:
    try:
        return printable(line)
    except RecursionError:
        return None


def _is_run(line: Json) -> bool:
    return _names_a_run(line) and line.get("status") in STATUSES and isinstance(line.get("result"), dict)


def _is_point(line: Json) -> bool:
    return _names_a_run(line) and is_count(line.get("step"))


def _names_a_run(line: Json) -> bool:
    return isinstance(line.get("row"), str) and isinstance(line.get("seed"), int)


# --- Writing ---


def definition_of(sweep: Sweep) -> Json:
    """The content of sweep.json, of a single run too."""
    fields = {field.name: getattr(sweep, field.name) for field in dataclasses.fields(sweep)}
    del fields["runs"], fields["problems"]
    return {"schema": SWEEP_SCHEMA, **fields, "rows": {name: _without_name(row) for name, row in sweep.rows.items()}}


def _without_name(row: Row) -> Json:
    fields = dataclasses.asdict(row)
    del fields["name"]
    return fields


def run_lines(sweep: Sweep, directory: Path) -> Iterator[Json]:
    """The lines of runs.jsonl."""
    for run in sweep.runs:
        if run.status == "missing":
            continue
        path = None if run.path is None else directory / run.path
        yield {
            "row": run.row,
            "seed": run.seed,
            "overrides": sweep.rows[run.row].overrides,
            "status": run.status,
            "message": run.message,
            "config": path and _read_if_any(path / CONFIG),
            "data": path and _read_if_any(path / DATA),
            "result": run.result,
        }


def curve_lines(sweep: Sweep, directory: Path) -> Iterator[Json]:
    """The lines of curves.jsonl."""
    for run in sweep.runs:
        if run.path is None:
            continue
        with contextlib.suppress(OSError):  # then the run's message says so
            for line in read_metrics(directory / run.path / METRICS)[0]:
                numbers_and_texts = {name: value for name, value in line.items() if not isinstance(value, dict | list)}
                whose = {"row": run.row, "seed": run.seed}
                yield whose | numbers_and_texts | whose


def _read_if_any(path: Path) -> Json | None:
    try:
        return read_object(path)
    except UnreadableError:
        return None
