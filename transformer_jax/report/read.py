"""What a sweep left on disk, read without trust: every file may be absent, half written or damaged.

A run that cannot be read is a fact of the report, not an error of the reader. Only a directory that is no
sweep at all is refused, with a `UserError`.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformer_jax.errors import UserError
from transformer_jax.report.packed import is_packed, read_packed_runs
from transformer_jax.report.results import (
    Curves,
    Row,
    Run,
    Sweep,
    curves_of,
    finite,
    make_run,
    metric_value,
    skipped_text,
)
from transformer_jax.report.statistics import TESTS
from transformer_jax.report.untrusted import UnreadableError, lines_left_out, printable, read_object, text_of
from transformer_jax.run.directory import (
    CONFIG,
    ERROR,
    JOB,
    METRICS,
    MOST_SEEDS,
    RESULT,
    SWEEP,
    SWEEP_SCHEMAS,
    find_link_to,
    is_count,
    read_metrics,
    run_directory_of,
)  # fmt: skip

MOST_RUNS = 100_000
# The metrics a single run is reported by, best known first: whether higher is better, whether shown in percent.
SINGLE_RUN_METRICS = {"test/exact_match": (True, True), "test/bleu": (True, False), "test/nll": (False, False)}


def read_sweep(directory: Path) -> Sweep:
    """Read a sweep directory, or a single run directory as a sweep of one row.

    Raises:
      UserError: if the directory is neither, or sweep.json is damaged.
    """
    if os.path.lexists(directory / SWEEP):
        return _read_sweep(directory)
    if os.path.lexists(directory / CONFIG):
        return _single_run(directory)
    raise UserError(
        f"{directory} holds neither {SWEEP} nor {CONFIG}, so there is nothing to report: "
        "give the --workdir of a sweep or of a run"
    )


def _read_sweep(directory: Path) -> Sweep:
    path = directory / SWEEP
    try:
        data = read_object(path)
    except UnreadableError as error:
        raise UserError(f"{path}: {error}. Start the sweep again; it writes the file anew.") from None
    if data.get("schema") not in SWEEP_SCHEMAS:
        known = " and ".join(map(str, SWEEP_SCHEMAS))
        raise UserError(f"{path}: schema is {data.get('schema')!r}, but this version reads {known}")
    metric = _field(path, data, "metric", str)
    curve = str(data.get("curve") or "")
    rows = {name: _row(path, name, row) for name, row in _field(path, data, "rows", dict).items()}
    seeds = _field(path, data, "seeds", list)
    if not all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds):
        raise UserError(f"{path}: seeds must be whole numbers, found {seeds!r}")
    seeds_of = {name: seeds if row.seeds is None else seeds[: row.seeds] for name, row in rows.items()}
    if (described := sum(map(len, seeds_of.values()))) > MOST_RUNS:
        raise UserError(f"{path}: describes {described:,} runs; at most {MOST_RUNS:,} are reported")
    base = _field(path, data, "base", str)
    others = [name for row in rows.values() for name in (row.partner, row.own_of) if name is not None]
    for name in (base, *others):
        if not isinstance(name, str) or name not in rows:
            raise UserError(f"{path}: {name!r} is named as base or partner but is not among the rows {list(rows)}")
    planned = [(row, seed) for row in rows for seed in seeds_of[row]]
    if is_packed(directory):
        runs, problems = read_packed_runs(directory, planned, metric)
    else:
        runs, problems = [read_run(directory, row, seed, metric) for row, seed in planned], []
    return Sweep(
        name=_field(path, data, "name", str),
        question=text_of(data, "question"),
        hypothesis=text_of(data, "hypothesis"),
        scale=text_of(data, "scale"),
        config=text_of(data, "config"),
        base=base,
        rows=rows,
        seeds=tuple(seeds),
        metric=metric,
        higher_is_better=_field(path, data, "higher_is_better", bool),
        percent=_field(path, data, "percent", bool),
        curve=curve,
        commit=text_of(data, "commit"),
        runs=tuple(runs),
        problems=tuple(problems),
        **_judged(path, data),
    )


def _judged(path: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """How a sweep is judged; what earlier versions did not declare was as the defaults are."""
    declared = {name: data[name] for name in ("test", "margin", "failing", "family", "family_size") if name in data}
    rounds = data.get("rounds", [])
    wanted = {
        "test": declared.get("test", "paired") in TESTS,
        "margin": _is_none_or(declared.get("margin"), lambda margin: margin > 0),
        "failing": _is_none_or(declared.get("failing"), lambda failing: True),
        "family": isinstance(declared.get("family", ""), str),
        "family_size": is_count(declared.get("family_size", 0)),
        "rounds": isinstance(rounds, list) and all(is_count(n) and n <= MOST_SEEDS for n in rounds)
        and sorted(set(rounds)) == rounds and 0 not in rounds,
    }  # fmt: skip
    for name, is_right in wanted.items():
        if not is_right:
            raise UserError(f"{path}: {name} is {data.get(name)!r}, which is not what this program writes")
    return {**declared, "rounds": tuple(rounds)}


def _is_none_or(value: Any, is_right: Callable[[float], bool]) -> bool:
    return value is None or ((number := finite(value)) is not None and is_right(number))


def _row(path: Path, name: str, data: Any) -> Row:
    if Path(name).name != name or name in ("", ".."):  # it becomes a directory, and must not lead out of the sweep
        raise UserError(f"{path}: the row name {name!r} is no plain directory name")
    if not isinstance(data, dict):
        raise UserError(f"{path}: rows.{name} must be an object, found {data!r}")
    parameters, overrides, paper = data.get("parameters"), data.get("overrides"), data.get("paper")
    seeds = data.get("seeds")
    if seeds is not None and not (is_count(seeds) and seeds <= MOST_SEEDS):
        raise UserError(f"{path}: rows.{name}.seeds is {seeds!r}, which is no number of seeds")
    return Row(
        name=name,
        overrides=overrides if isinstance(overrides, dict) else {},
        parameters=parameters if is_count(parameters) else None,
        partner=data.get("partner"),
        own_of=data.get("own_of"),
        paper=paper if isinstance(paper, dict) else {},
        note=text_of(data, "note"),
        key=text_of(data, "key"),
        seeds=seeds,
    )


def _single_run(directory: Path) -> Sweep:
    """One run as a sweep of one row: nothing to compare, but its curve, metrics and environment."""
    name = printable(directory.resolve().name)
    status, message, result, curves = _read_run_directory(directory)
    metric = next((m for m in SINGLE_RUN_METRICS if metric_value(result, m) is not None), "test/nll")
    higher_is_better, percent = SINGLE_RUN_METRICS[metric]
    seed, parameters = result.get("seed"), result.get("parameters")
    run = make_run(name, seed if is_count(seed) else 0, ".", status, message, result, curves, metric)
    row = Row(name, {}, parameters if is_count(parameters) else None, None, {}, "", "")
    return Sweep(
        name=name, question="", hypothesis="", scale="", config="", base=name, rows={name: row}, seeds=(run.seed,),
        metric=metric, higher_is_better=higher_is_better, percent=percent, curve="valid/nll",
        commit=text_of(result, "commit"), runs=(run,),
    )  # fmt: skip


def read_run(sweep: Path, row: str, seed: int, metric: str) -> Run:
    """A run of a sweep; the sweep need not describe it."""
    path = run_directory_of(Path(), row, seed)
    if link := find_link_to(sweep / path):
        message = f"{printable(str(link.relative_to(sweep)))} is a link: what it leads to is not of this sweep"
        return make_run(row, seed, None, "unreadable", message, {}, {}, metric)
    return make_run(row, seed, str(path), *_read_run_directory(sweep / path), metric)


def _read_run_directory(directory: Path) -> tuple[str, str, dict[str, Any], Curves]:
    """Status, message, result and curves of a run directory."""
    result: dict[str, Any] = {}
    try:
        status, message, result = _outcome(directory)
    except UnreadableError as error:
        status, message = "unreadable", str(error)
    curves, problem = _read_curves(directory / METRICS)
    return status, "; ".join(filter(None, (message, problem))), result, curves


def _outcome(directory: Path) -> tuple[str, str, dict[str, Any]]:
    """Status, message and result. A result counts more than an error: the run was tried again and finished."""
    if not directory.is_dir() or [path.name for path in directory.iterdir()] == [JOB]:  # it waits for a cluster
        return "missing", "", {}
    if os.path.lexists(directory / RESULT):
        result = read_object(directory / RESULT)
        status = result.get("status")
        if status not in ("finished", "diverged"):
            raise UnreadableError(f"{RESULT}: status is {status!r}, expected 'finished' or 'diverged'")
        return status, skipped_text([result]), result
    if os.path.lexists(directory / ERROR):
        error = read_object(directory / ERROR)
        return "failed", ": ".join(filter(None, (text_of(error, "type"), text_of(error, "message")))), {}
    return "running", "", {}


def _read_curves(path: Path) -> tuple[Curves, str]:
    """The validation points by field, and what could not be read."""
    try:
        lines, damaged = read_metrics(path)
        curves = curves_of(lines)
    except OSError as error:
        return {}, f"{path.name}: cannot be read ({error.strerror})"
    return curves, lines_left_out(path.name, damaged)


def _field(path: Path, data: Mapping[str, Any], name: str, kind: type) -> Any:
    if not isinstance(data.get(name), kind):
        raise UserError(f"{path}: {name} must be of type {kind.__name__}, found {data.get(name)!r}")
    return data[name]
