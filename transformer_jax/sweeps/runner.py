"""Runs a sweep: every row, every seed, each in its own directory; what is finished is left alone."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from transformer_jax.compilation import available_cpus
from transformer_jax.config import config_hash, with_values
from transformer_jax.data import make_dataset
from transformer_jax.errors import UserError
from transformer_jax.evaluation.evaluator import TEACHER_FORCED
from transformer_jax.program import count_parameters, validate, with_vocabulary
from transformer_jax.run import commit
from transformer_jax.run_directory import ERROR, in_use, locked, read_json, write_json
from transformer_jax.sweeps.experiment import Experiment, Scale, Variant
from transformer_jax.sweeps.pool import is_open, run_tasks
from transformer_jax.sweeps.report import Report, write_report
from transformer_jax.sweeps.results import read_sweep
from transformer_jax.sweeps.worker import Task

SWEEP = "sweep.json"
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
    retry_failed: bool = False,
    time_limit: float | None = None,
    say: Say = print,
) -> Report:
    """Trains what is missing and writes the report.

    Args:
      variants: the rows on their base, see `make_variants`.
      workers: processes at a time; None: one for every core on CPU machines, one elsewhere.
      retry_failed: runs that failed before are tried again.
      time_limit: seconds for one run; one that takes longer is ended and shown as failed.

    Raises:
      UserError: the directory holds another sweep, or a config is refused.
      Interruption: asked to stop; the same call goes on.
    """
    if workers is not None and workers < 1:
        raise UserError(f"--workers={workers}: there must be at least one.")
    if time_limit is not None and time_limit <= 0:
        raise UserError(f"--time-limit={time_limit:g}: must be above 0 seconds.")
    for variant in variants:
        _validate(variant, scale)
    environment = dict(os.environ)
    # This process only plans: the accelerator's memory is for its workers.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    definition = describe_sweep(name, experiment, scale_name, scale, variants)
    _check_definition(workdir / SWEEP, definition)
    with locked(workdir):
        write_json(workdir / SWEEP, definition)
        tasks = _tasks(variants, scale.seeds, workdir, retry_failed)
        total = len(variants) * scale.seeds
        missing = sum(len(task.configs) for task in tasks)
        say(f"{total} runs, {len(variants)} programs; {total - missing} runs are done, {missing} to go.")
        run_tasks(tasks, workdir / "tasks", workers or _default_workers(), time_limit, environment, say)
        return write_report(workdir)


def _validate(variant: Variant, scale: Scale) -> None:
    try:
        validate(variant.config)
    except UserError as error:
        raise UserError(f"row {variant.name!r}: {error}") from error
    split, _, metric = scale.metric.partition("/")
    measured = (*TEACHER_FORCED, *variant.config.evaluate.metrics)
    if split not in ("valid", "test") or metric not in measured:
        raise UserError(
            f"row {variant.name!r}: the metric {scale.metric!r} of the experiment is not measured. "
            f"evaluate.metrics leads to valid/ and test/ of: {', '.join(measured)}."
        )


def describe_sweep(
    name: str, experiment: Experiment, scale_name: str, scale: Scale, variants: Sequence[Variant]
) -> dict[str, Any]:
    """The content of sweep.json: all that the report must know beside the run directories."""
    tokenizers = {v.config.data: make_dataset(v.config.data).tokenizers for v in variants[:1]}
    rows = {}
    for variant in variants:
        if variant.config.data not in tokenizers:
            tokenizers[variant.config.data] = make_dataset(variant.config.data).tokenizers
        sized = with_vocabulary(variant.config, tokenizers[variant.config.data])
        rows[variant.name] = {
            "overrides": dict(variant.overrides),
            "parameters": count_parameters(sized),
            "partner": experiment.partners.get(variant.name),
            "paper": dict(experiment.paper.get(variant.name, {})),
            "note": experiment.notes.get(variant.name, ""),
            "config_hash": config_hash(sized),
        }
    return {
        "schema": 1,
        "name": name,
        "question": experiment.question,
        "hypothesis": experiment.hypothesis,
        "scale": scale_name,
        "config": os.path.relpath(scale.config),
        "base": experiment.base,
        "rows": rows,
        "seeds": list(range(scale.seeds)),
        "metric": scale.metric,
        "higher_is_better": scale.higher_is_better,
        "percent": scale.percent,
        "curve": experiment.curve,
        "commit": commit(),
    }


def _check_definition(path: Path, definition: Mapping[str, Any]) -> None:
    """More rows or seeds may come to a sweep; what a row means may not change under its runs."""
    if not path.is_file():
        return
    before = read_json(path)
    try:
        name, hashes = before["name"], {row: content["config_hash"] for row, content in before["rows"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: describes no sweep. Give this sweep another --workdir.") from error
    changed = [
        row
        for row, content in definition["rows"].items()
        if hashes.get(row, content["config_hash"]) != content["config_hash"]
    ]
    if name != definition["name"] or changed:
        what = f"rows that have changed since: {', '.join(changed)}" if changed else f"the sweep {name!r}"
        raise UserError(f"{path.parent}: holds {what}. Give this sweep another --workdir.")


def run_directory_of(workdir: Path, row: str, seed: int) -> Path:
    """Where the run of a row and seed lies."""
    return workdir / "runs" / row / f"seed_{seed}"


def _tasks(variants: Sequence[Variant], seeds: int, workdir: Path, retry_failed: bool) -> list[Task]:
    tasks = []
    for variant in variants:
        directories = {seed: run_directory_of(workdir, variant.name, seed) for seed in range(seeds)}
        for directory in directories.values():
            if retry_failed:
                (directory / ERROR).unlink(missing_ok=True)
        open_seeds = [seed for seed, directory in directories.items() if is_open(directory)]
        if open_seeds:
            configs = [with_values(variant.config, {"seed": seed}) for seed in open_seeds]
            tasks.append(Task(variant.name, configs, [directories[seed] for seed in open_seeds]))
    return tasks


def _default_workers() -> int:
    """One for each core where there is no accelerator, as small models do not fill two; else one."""
    return len(available_cpus()) if jax.default_backend() == "cpu" else 1


def sweep_status(workdir: Path) -> list[dict[str, Any]]:
    """Row, seed, status and message of every run of a sweep, as its directory tells.

    The status "running" is of a run that a process holds, "stopped" of one that waits to be gone on with.

    Raises:
      UserError: there is no sweep.
    """
    runs = []
    for run in read_sweep(workdir).runs:
        idle = run.status == "running" and not in_use(workdir / run.path)
        status = "stopped" if idle else run.status
        last = max((step for points in run.curves.values() for step in points), default=None)
        message = run.message or ("" if last is None else f"evaluated at step {last}")
        runs.append({"row": run.row, "seed": run.seed, "status": status, "message": message})
    return runs
