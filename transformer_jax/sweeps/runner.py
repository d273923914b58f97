"""Runs a sweep: every row, every seed, each in its own directory; what is finished is left alone."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from transformer_jax.checked_json import read_json
from transformer_jax.compilation import QUICK_COMPILATION, available_cpus, known_flags
from transformer_jax.config import Resolved, with_values
from transformer_jax.data import Dataset, make_dataset, make_plan
from transformer_jax.errors import UserError
from transformer_jax.loading import of_row
from transformer_jax.report.packed import is_packed
from transformer_jax.report.read import MOST_RUNS, read_sweep
from transformer_jax.report.wording import count
from transformer_jax.report.write import Report, write_report
from transformer_jax.run.compile import check_lanes, count_parameters, resolve_for_machine
from transformer_jax.run.directory import (
    ERROR,
    SWEEP,
    SWEEP_SCHEMA,
    find_link_to,
    is_run_directory,
    run_directory_of,
    write_json,
)
from transformer_jax.run.identity import run_key
from transformer_jax.run.lock import in_use, locked
from transformer_jax.run.provenance import commit
from transformer_jax.run.resolve import validate
from transformer_jax.sweeps.execution import Execution, choose_lanes, is_short
from transformer_jax.sweeps.experiment import Experiment, Scale, Variant
from transformer_jax.sweeps.grouping import Planned, group_by_program, make_tasks, representatives
from transformer_jax.sweeps.pool import run_tasks
from transformer_jax.sweeps.reuse import finished_runs, reuse
from transformer_jax.tasks import task_of
from transformer_jax.tasks.task import measured_names

Say = Callable[[str], None]


def run_sweep(
    name: str,
    experiment: Experiment,
    scale_name: str,
    scale: Scale,
    variants: Sequence[Variant],
    workdir: Path,
    *,
    workers: int | None = None,
    lanes: int | None = None,
    reuse_finished: bool = True,
    retry_failed: bool = False,
    time_limit: float | None = None,
    say: Say = print,
) -> Report:
    """Trains what is missing and writes the report.

    Args:
      variants: the rows on their base, see `make_variants`.
      workers: processes at a time; None: one for every core on CPU machines, one elsewhere.
      lanes: runs trained together by one program; 1: one after another; None: what a short
        calibration finds faster. A sweep that is resumed keeps its choice.
      reuse_finished: finished runs of the sweeps beside this one are reused where they are the same experiment.
      retry_failed: runs that failed before are tried again.
      time_limit: seconds for one run; one that takes longer is ended and shown as failed.

    Raises:
      UserError: the directory holds another sweep, or a config is refused.
      Interruption: asked to stop; the same call resumes.
    """
    for option, value in {"--workers": workers, "--lanes": lanes}.items():
        if value is not None and value < 1:
            raise UserError(f"{option}={value}: there must be at least one.")
    if time_limit is not None and not time_limit > 0:
        raise UserError(f"--time-limit={time_limit:g}: must be above 0 seconds.")
    if is_run_directory(workdir):
        raise UserError(f"{workdir}: holds a run, whose report would be overwritten. Give the sweep another --workdir.")
    if is_packed(workdir):
        raise UserError(f"{workdir}: holds a packed sweep, which cannot be resumed. Give this sweep another --workdir.")
    for variant in variants:
        _validate(variant, scale)
    environment = dict(os.environ)
    # This process only plans: the accelerator's memory is for its workers.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    workers = workers or _default_workers()
    short = jax.default_backend() == "cpu" and all(is_short(variant.config) for variant in variants)
    if short and "XLA_FLAGS" not in environment:
        environment["XLA_FLAGS"] = known_flags(QUICK_COMPILATION)
    datasets = {config: make_dataset(config) for config in dict.fromkeys(v.config.data for v in variants)}
    for config, dataset in datasets.items():
        make_plan(dataset.splits["train"], config)
    rows = [_Row.of(variant, datasets[variant.config.data]) for variant in variants]
    definition = _describe(name, experiment, scale_name, scale, rows)
    before = _read_definition(workdir / SWEEP, definition)
    runs = _plan(rows, scale.seeds, workdir)
    if lanes is not None and lanes > 1:
        for variant in variants:
            check_lanes(variant.config)
    with locked(workdir):
        execution = Execution.read(before["execution"], workdir / SWEEP) if before else Execution()
        write_json(workdir / SWEEP, {**definition, "execution": dataclasses.asdict(execution)})
        if retry_failed:
            for run in runs:
                (run.workdir / ERROR).unlink(missing_ok=True)
        beside = [path.parent for path in sorted(workdir.absolute().parent.glob(f"*/{SWEEP}"))]
        _reuse(runs, beside if reuse_finished else [workdir], say)
        programs = group_by_program(representatives(runs))
        missing = sum(run.is_open for program in programs for run in program)
        say(f"{count(len(runs), 'run')}, {count(len(programs), 'program')}; {missing} to go.")
        if missing:
            together = execution.groups if lanes in (None, execution.lanes) else []
            wanted = lanes or execution.lanes
            lanes = choose_lanes(programs, wanted, workers, datasets, workdir / "tasks", environment, say)
            tasks, groups = make_tasks(programs, together, lanes, workers)
            execution = Execution(lanes, groups)
            write_json(workdir / SWEEP, {**definition, "execution": dataclasses.asdict(execution)})
            run_tasks(tasks, workdir / "tasks", workers, time_limit, environment, say)
        _reuse(runs, [workdir], say, started=True)
        return write_report(workdir)


@dataclasses.dataclass(frozen=True)
class _Row:
    """A variant with what its data says.

    Attributes:
      resolved: its config, with what the data say.
    """

    variant: Variant
    resolved: Resolved
    fingerprint: str
    parameters: int

    @classmethod
    def of(cls, variant: Variant, dataset: Dataset) -> "_Row":
        """Refused as the program of its runs would refuse it, which is too late."""
        with of_row(variant.name):
            resolved = resolve_for_machine(variant.config, dataset.assets)
        return cls(variant, resolved, dataset.fingerprint, count_parameters(resolved))

    def key(self, seed: int = 0) -> str:
        """The key of its run with that seed."""
        return run_key(with_values(self.resolved, {"seed": seed}), self.fingerprint)


def _plan(rows: Sequence[_Row], seeds: int, workdir: Path) -> list[Planned]:
    """Every run of the sweep."""
    if len(rows) * seeds > MOST_RUNS:
        raise UserError(f"{len(rows)} rows with {seeds:,} seeds are more than {MOST_RUNS:,} runs: take fewer seeds.")
    runs = []
    for row in rows:
        name = row.variant.name
        for seed in range(seeds):
            config = with_values(row.variant.config, {"seed": seed})
            run = Planned(name, config, run_directory_of(workdir, name, seed), row.key(seed), row.parameters)
            _check_directory(run)
            runs.append(run)
    return runs


def _check_directory(run: Planned) -> None:
    """Refuses a directory that leads elsewhere, or that holds the result of another experiment."""
    if link := find_link_to(run.workdir):
        raise UserError(f"{link}: is a link; what is written to a sweep must stay inside of it.")
    if run.result is not None and run.result.get("key") != run.key:
        raise UserError(
            f"{run.workdir}: holds a finished run of another config, other data or other numerics. Give this sweep "
            "another --workdir."
        )


def _reuse(runs: Sequence[Planned], sweeps: Sequence[Path], say: Say, started: bool = False) -> None:
    """Uses finished runs of `sweeps` for open ones that are the same experiment; `started`: also for started ones."""
    known = finished_runs(sweeps)
    for run in runs:
        wanted = run.is_open and (started or not run.was_started)
        if wanted and (found := known.get(run.key)) and reuse(found, run.workdir):
            say(f"[{run.row} seed {run.config.seed}] is known already: reused from {found}")


def _validate(variant: Variant, scale: Scale) -> None:
    with of_row(variant.name):
        validate(variant.config)
    split, _, metric = scale.metric.partition("/")
    measured = measured_names(task_of(variant.config), variant.config.evaluate.metrics)
    if split not in ("valid", "test") or metric not in measured:
        raise UserError(
            f"row {variant.name!r}: the metric {scale.metric!r} of the experiment is not measured. "
            f"evaluate.metrics leads to valid/ and test/ of: {', '.join(measured)}."
        )


def _describe(name: str, experiment: Experiment, scale_name: str, scale: Scale, rows: Iterable[_Row]) -> dict[str, Any]:
    """The content of sweep.json: all that the report must know beside the run directories."""
    described = {
        row.variant.name: {
            "overrides": dict(row.variant.overrides),
            "parameters": row.parameters,
            "partner": experiment.partners.get(row.variant.name),
            "paper": dict(experiment.paper.get(row.variant.name, {})),
            "note": experiment.notes.get(row.variant.name, ""),
            "key": row.key(),
        }
        for row in rows
    }
    return {
        "schema": SWEEP_SCHEMA,
        "name": name,
        "question": experiment.question,
        "hypothesis": experiment.hypothesis,
        "scale": scale_name,
        "config": os.path.relpath(scale.config),
        "base": experiment.base,
        "rows": described,
        "seeds": list(range(scale.seeds)),
        "metric": scale.metric,
        "higher_is_better": scale.higher_is_better,
        "percent": scale.percent,
        "curve": experiment.curve,
        "commit": commit(),
    }


def _read_definition(path: Path, definition: Mapping[str, Any]) -> dict[str, Any]:
    """The sweep.json there is. Rows and seeds may be added; what a row means may not change under its runs."""
    if not path.is_file():
        return {}
    before = read_json(path)
    try:
        name, rows, _ = (before[field] for field in ("name", "rows", "execution"))
        keys = {row: content["key"] for row, content in rows.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: describes no sweep. Give this sweep another --workdir.") from error
    changed = [row for row, content in definition["rows"].items() if keys.get(row, content["key"]) != content["key"]]
    if name != definition["name"] or changed:
        what = f"rows that have changed since: {', '.join(changed)}" if changed else f"the sweep {name!r}"
        raise UserError(f"{path.parent}: holds {what}. Give this sweep another --workdir.")
    return before


def _default_workers() -> int:
    """One for each core where there is no accelerator, as small models do not fill two; else one."""
    return len(available_cpus()) if jax.default_backend() == "cpu" else 1


def sweep_status(workdir: Path) -> list[dict[str, Any]]:
    """Row, seed, status and message of every run of a sweep, as its directory tells.

    The status is "running" where a process holds the run, "stopped" where it was interrupted and can be resumed.

    Raises:
      UserError: there is no sweep.
    """
    runs = []
    for run in read_sweep(workdir).runs:
        idle = run.status == "running" and (run.path is None or not in_use(workdir / run.path))
        status = "stopped" if idle else run.status
        last = max((step for points in run.curves.values() for step in points), default=None)
        message = run.message or ("" if last is None else f"evaluated at step {last}")
        runs.append({"row": run.row, "seed": run.seed, "status": status, "message": message})
    return runs
