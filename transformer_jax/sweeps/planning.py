"""What a sweep consists of: its rows with what their data say, its runs, and the sweep.json that describes it."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer_jax.checked_json import read_json
from transformer_jax.config import DataConfig, Resolved, with_values
from transformer_jax.data import Dataset, check_there, make_dataset, make_plan
from transformer_jax.errors import UserError
from transformer_jax.loading import of_row
from transformer_jax.report.packed import is_packed
from transformer_jax.report.read import MOST_RUNS
from transformer_jax.run.compile import count_parameters, resolve_for_machine
from transformer_jax.run.directory import SWEEP, SWEEP_SCHEMA, find_link_to, is_run_directory, run_directory_of
from transformer_jax.run.identity import run_key
from transformer_jax.run.provenance import commit
from transformer_jax.run.resolve import resolve_config, validate
from transformer_jax.sweeps.experiment import Experiment, Scale, Variant
from transformer_jax.sweeps.grouping import Planned
from transformer_jax.tasks import task_of
from transformer_jax.tasks.task import measured_names

JUDGED_BY = ("metric", "higher_is_better", "percent", "test", "margin", "failing", "rounds", "family", "family_size")
"""What sweep.json declares before the runs."""


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """A sweep that may be run.

    Attributes:
      definition: the content of sweep.json but for the execution.
      before: the sweep.json there is; {} if there is none.
      runs: those that there may be: of every row with as many seeds as any may get.
    """

    datasets: Mapping[DataConfig, Dataset]
    definition: dict[str, Any]
    before: dict[str, Any]
    runs: list[Planned]

    def in_round(self, seeds: Mapping[str, int]) -> tuple[dict[str, Any], list[Planned]]:
        """The content of sweep.json and the runs, where each row is given so many seeds."""
        rows = {row: {**content, "seeds": seeds[row]} for row, content in self.definition["rows"].items()}
        runs = [run for run in self.runs if run.number < seeds[run.row]]
        numbers = sorted({run.config.seed for run in runs})
        return {**self.definition, "rows": rows, "seeds": numbers}, runs


def plan_sweep(
    name: str,
    experiment: Experiment,
    scale_name: str,
    scale: Scale,
    variants: Sequence[Variant],
    workdir: Path,
    *,
    download: bool = True,
    here: bool = True,
) -> SweepPlan:
    """Reads the data and writes nothing.

    Args:
      variants: the rows on their base, see `make_variants`.
      download: a corpus that is not there yet may be fetched.
      here: this machine trains, so that a run which it cannot hold is refused.

    Raises:
      UserError: the directory holds another sweep, or a config is refused.
    """
    if is_run_directory(workdir):
        raise UserError(f"{workdir}: holds a run, whose report would be overwritten. Give the sweep another --workdir.")
    if is_packed(workdir):
        raise UserError(f"{workdir}: holds a packed sweep, which cannot be resumed. Give this sweep another --workdir.")
    for variant in variants:
        _validate(variant, scale)
    # This process only plans: the accelerator's memory is for its workers.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    datasets = {}
    for config in dict.fromkeys(variant.config.data for variant in variants):
        if not download:
            check_there(config)
        datasets[config] = make_dataset(config)
        make_plan(datasets[config].splits["train"], config)
    rows = [_Row.of(variant, datasets[variant.config.data], here) for variant in variants]
    definition = _describe(name, experiment, scale_name, scale, rows)
    before = _read_definition(workdir / SWEEP, definition)
    return SweepPlan(datasets, definition, before, _runs_of(rows, scale.seed_numbers, workdir))


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
    def of(cls, variant: Variant, dataset: Dataset, here: bool) -> "_Row":
        """Refused as the program of its runs would refuse it, which is too late."""
        with of_row(variant.name):
            if here:
                resolved = resolve_for_machine(variant.config, dataset.assets)
            else:
                validate(resolved := resolve_config(variant.config, dataset.assets))
        return cls(variant, resolved, dataset.fingerprint, count_parameters(resolved))

    def key(self, seed: int = 0) -> str:
        """The key of its run with that seed."""
        return run_key(with_values(self.resolved, {"seed": seed}), self.fingerprint)


def _runs_of(rows: Sequence[_Row], seeds: Sequence[int], workdir: Path) -> list[Planned]:
    """Every run of the sweep."""
    if len(rows) * len(seeds) > MOST_RUNS:
        raise UserError(
            f"{len(rows)} rows with {len(seeds):,} seeds are more than {MOST_RUNS:,} runs: take fewer seeds."
        )
    runs = []
    for row in rows:
        name = row.variant.name
        for number, seed in enumerate(seeds):
            config = with_values(row.variant.config, {"seed": seed})
            run = Planned(name, config, run_directory_of(workdir, name, seed), row.key(seed), row.parameters, number)
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
            "own_of": experiment.own.get(row.variant.name),
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
        "seeds": list(scale.seed_numbers),
        "metric": scale.metric,
        "higher_is_better": scale.higher_is_better,
        "percent": scale.percent,
        "test": scale.test,
        "margin": scale.margin,
        "failing": scale.failing,
        "rounds": list(scale.rounds),
        "family": scale.family,
        "family_size": scale.family_size,
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
    for field in JUDGED_BY:
        if field in before and before[field] != definition[field]:
            raise UserError(
                f"{path}: {field} was declared as {before[field]!r}, and is {definition[field]!r} now. How a sweep is "
                "judged may not change under its runs: give this one another --workdir."
            )
    return before
