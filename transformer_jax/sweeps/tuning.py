"""A search for the numbers of a base: which learning rate, dropout and label smoothing suit it.

Every candidate is a row of a sweep, so candidates are lanes of one program, and a search that was stopped resumes. They
are judged on the validation split, with seeds that no sweep has: the runs that answer questions are not those by which
their base was chosen.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer_jax.config import Config, field_at, fields_of, is_read, replace, to_dict, value_at
from transformer_jax.errors import UserError, shown
from transformer_jax.files import write_atomically
from transformer_jax.loading import load_config, parse_override, split_specs
from transformer_jax.report.results import Sweep, metric_value
from transformer_jax.report.wording import MISSING, make_units, seconds_text
from transformer_jax.run.directory import MOST_SEEDS, write_json
from transformer_jax.run.resolve import traceable
from transformer_jax.sweeps.experiment import Experiment, Scale, Variant, judged_by
from transformer_jax.sweeps.runner import run_sweep

FIRST_SEED = MOST_SEEDS
"""Sweeps have the seeds 0, 1, ..., and fewer than so many."""
MOST_CANDIDATES = 1000
TUNING, TABLE = "tuning.json", "tuning.md"
DEFAULT_FACTORS = (0.5, 1.0, 2.0)
"""Times the config's learning rate, where nobody says what to try."""
DEFAULT_VALUES = {"model.dropout_rate": (0.0, 0.1), "train.label_smoothing": (0.0, 0.1)}

Numbers = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Numbers that were tried, and what they came to.

    Attributes:
      values: the metric by seed, of the finished runs.
      nll: the mean validation nll of these at the end, or None.
      nll_all_along: the mean over all evaluations in training: the less, the earlier it was right.
      whole: every seed finished.
    """

    numbers: Numbers
    values: Mapping[int, float]
    nll: float | None
    nll_all_along: float | None
    whole: bool

    @property
    def mean(self) -> float | None:
        return _mean(self.values.values())

    @property
    def sd(self) -> float | None:
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None


@dataclasses.dataclass(frozen=True)
class Tuning:
    """What a search found.

    Attributes:
      base: the config that was tuned.
      candidates: the best first.
      curve: seed -> step -> validation nll, of the runs of the best.
      seconds: of all runs, added up.
      at_the_edge: paths whose best value is the least or the largest that was tried, of several.
    """

    config: str
    overrides: Mapping[str, Any]
    base: Mapping[str, Any]
    metric: str
    higher_is_better: bool
    percent: bool
    seeds: Sequence[int]
    candidates: Sequence[Candidate]
    curve: Mapping[int, Mapping[int, float]]
    runs: int
    seconds: float
    at_the_edge: Sequence[str]
    commit: str

    @property
    def choice(self) -> Candidate:
        return self.candidates[0]

    @property
    def arguments(self) -> list[str]:
        """The choice as it is put on a command line."""
        return [f"--config.{path}={value!r}" for path, value in self.choice.numbers.items()]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: the content of tuning.json."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        tried = [{**dataclasses.asdict(c), "mean": c.mean, "sd": c.sd} for c in self.candidates]
        return {"choice": self.choice.numbers, "arguments": self.arguments, **content, "candidates": tried}


def tune(
    spec: str,
    overrides: Mapping[str, Any],
    tried: Mapping[str, Sequence[float]],
    workdir: Path,
    *,
    seeds: int = 3,
    metric: str | None = None,
    workers: int | None = None,
    lanes: int | None = None,
    say: Callable[[str], None] = print,
) -> Tuning:
    """Trains what is missing, chooses, and writes tuning.json and tuning.md into `workdir`.

    Args:
      spec: ``FILE`` or ``FILE:ROW``, put on the config that is tuned with `overrides`.
      tried: path of a traced number -> its values, of which every combination is tried; {}: see `default_grid`.
      seeds: how many, from FIRST_SEED on.
      metric: of the validation split; None: the first of `evaluate.metrics`.
      workers, lanes: see `run_sweep`.

    Raises:
      UserError: the directory holds something else, a config is refused, or no candidate finished with every seed.
      Interruption: asked to stop; the same call resumes.
    """
    if "seed" in overrides:
        raise UserError(f"seed = {overrides['seed']!r}: a search has seeds of its own; --seeds says how many.")
    config = load_config(spec, overrides)
    grid = _checked(tried, config) if tried else default_grid(config)
    variants = make_candidates(config, grid)
    scale = judged_by(Scale(spec, seeds, first_seed=FIRST_SEED), config, "valid", metric)
    experiment = Experiment(
        rows={variant.name: variant.overrides for variant in variants},
        scales={},
        question="Which numbers suit this base?",
        hypothesis="Those that it has.",
    )
    report = run_sweep("tuning", experiment, "tuning", scale, variants, workdir, workers=workers, lanes=lanes, say=say)
    numbers = {variant.name: _numbers(variant.config, grid) for variant in variants}
    tuning = choose(report.analysis.sweep, spec, overrides, to_dict(config), numbers)
    write_json(workdir / TUNING, tuning.as_dict())
    write_atomically(workdir / TABLE, to_markdown(tuning).encode())
    return tuning


# --- What is tried ---


def parse_tried(arguments: Sequence[str]) -> dict[str, list[float]]:
    """``PATH=VALUE,VALUE,...`` each, as path -> values.

    Raises:
      UserError: no config has such a field, a path comes twice, or has no values.
    """
    found: dict[str, list[float]] = {}
    for argument in arguments:
        path, _, values = argument.partition("=")
        parsed = [parse_override(f"--config.{path}={value}")[1] for value in split_specs(values)]
        if not parsed:
            raise UserError(f"--try={argument}: give the values to try: --try=optimizer.learning_rate=1e-3,2e-3.")
        if path in found:
            raise UserError(f"--try={argument}: {path} is named twice: give all of its values at once.")
        found[path] = parsed
    return found


def default_grid(config: Config) -> dict[str, list[float]]:
    """Half, once and twice the learning rate; dropout and label smoothing off, the paper's 0.1, and what they are."""
    rate = config.optimizer.learning_rate
    grid = {"optimizer.learning_rate": [rate * factor for factor in DEFAULT_FACTORS]}
    fields = fields_of(config)
    return grid | {path: sorted({*v, value_at(config, path)}) for path, v in DEFAULT_VALUES.items() if path in fields}


def _checked(tried: Mapping[str, Sequence[float]], config: Config) -> dict[str, list[float]]:
    fields, allowed = fields_of(config), traceable(config)
    for path, values in tried.items():
        field = field_at(path, fields)
        if path not in allowed:
            raise UserError(f"--try={path}: only numbers that are no sizes can be tuned: {', '.join(allowed)}.")
        if not is_read(field, config):
            raise UserError(f"--try={path}: this config does not read it, so that all values would do the same.")
        for value in values:
            replace(config, {path: value})
    return {path: [float(value) for value in dict.fromkeys(values)] for path, values in tried.items()}


def make_candidates(config: Config, grid: Mapping[str, Sequence[float]]) -> list[Variant]:
    """The config as it is, "base", and every combination of the grid; one that is the base itself stands once."""
    if (number := math.prod(map(len, grid.values()))) > MOST_CANDIDATES:
        raise UserError(f"--try: {number:,} combinations are more than {MOST_CANDIDATES:,}: try fewer values.")
    variants = {config: Variant("base", {}, config)}
    for values in itertools.product(*grid.values()):
        numbers = dict(zip(grid, values, strict=True))
        changed = replace(config, numbers)
        variants.setdefault(changed, Variant(_name(numbers), numbers, changed))
    return list(variants.values())


def _name(numbers: Numbers) -> str:
    """Of a row, and so of a directory: the last part of each path, where it tells them apart, and the value."""
    leaves = [path.rpartition(".")[2] for path in numbers]
    shortened = leaves if len(set(leaves)) == len(leaves) else list(numbers)
    return "-".join(f"{name}_{value!r}" for name, value in zip(shortened, numbers.values(), strict=True))


def _numbers(config: Config, grid: Mapping[str, Sequence[float]]) -> Numbers:
    return {path: value_at(config, path) for path in grid}


# --- What is chosen ---


def ranked(sweep: Sweep, numbers: Mapping[str, Numbers]) -> dict[str, Candidate]:
    """Row -> what it came to, the best first: the one with the best mean of the metric over all seeds.

    Of several that have the same, the one with the lower mean validation nll over the whole training is the better, and
    then the one that stands first. A candidate with a run that diverged or failed comes after all others.

    Args:
      numbers: row -> the numbers it tries.
    """
    found = {row: _candidate(sweep, row, tried) for row, tried in numbers.items()}
    return dict(sorted(found.items(), key=lambda entry: _rank(entry[1], sweep.higher_is_better)))


def choose(
    sweep: Sweep,
    spec: str,
    overrides: Mapping[str, Any],
    base: Mapping[str, Any],
    numbers: Mapping[str, Numbers],
) -> Tuning:
    """What a finished search found; see `ranked`.

    Args:
      sweep: of the candidates.
      numbers: row -> the numbers it tries.

    Raises:
      UserError: no candidate finished with every seed.
    """
    found = ranked(sweep, numbers)
    first, best = next(iter(found.items()))
    if not best.whole:
        raise UserError("No candidate finished with every seed: the report says what became of them.")
    several = {path: sorted({tried[path] for tried in numbers.values()}) for path in best.numbers}
    edges = [p for p, v in several.items() if len(v) > 2 and best.numbers[p] in (v[0], v[-1]) and best.numbers[p] != 0]
    runs = [run for run in sweep.runs if sweep.twin_of(run.row) is None]
    return Tuning(
        config=spec,
        overrides=dict(overrides),
        base=base,
        metric=sweep.metric,
        higher_is_better=sweep.higher_is_better,
        percent=sweep.percent,
        seeds=sweep.seeds,
        candidates=list(found.values()),
        curve={run.seed: run.curves.get("nll", {}) for run in sweep.runs_of(first)},
        runs=len(runs),
        seconds=math.fsum(run.seconds or 0.0 for run in runs),
        at_the_edge=edges,
        commit=", ".join(sweep.commits()),
    )


def _candidate(sweep: Sweep, row: str, numbers: Numbers) -> Candidate:
    values = sweep.values(row)
    runs = [run for run in sweep.runs_of(row) if run.seed in values]
    last = [value for run in runs if (value := metric_value(run.result, "valid/nll")) is not None]
    all_along = [value for run in runs for value in run.curves.get("nll", {}).values()]
    return Candidate(numbers, values, _mean(last), _mean(all_along), len(values) == len(sweep.seeds))


def _mean(values: Collection[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _rank(candidate: Candidate, higher_is_better: bool) -> tuple[bool, float, float]:
    mean = math.inf if candidate.mean is None else -candidate.mean if higher_is_better else candidate.mean
    return not candidate.whole, mean, math.inf if candidate.nll_all_along is None else candidate.nll_all_along


# --- What is written ---


def to_markdown(tuning: Tuning) -> str:
    """The search as a page: what was tried, what it came to, the curve of the best, and the cost."""
    paths = list(tuning.choice.numbers)
    spreads = [candidate.sd for candidate in tuning.candidates if candidate.sd]
    units = make_units(tuning.metric, tuning.percent, spreads)
    changes = "".join(f" `--config.{path}={shown(value)}`" for path, value in tuning.overrides.items())
    seeds = f"seeds {tuning.seeds[0]} to {tuning.seeds[-1]}, which no sweep has"
    direction = "higher" if tuning.higher_is_better else "lower"
    lines = [
        f"# Tuning of {tuning.config}",
        "",
        f"`{tuning.config}`{changes}; {seeds}; {units.label}, {direction} is better; commit {tuning.commit}.",
        "",
        f"Choice: `{' '.join(tuning.arguments)}`",
        "",
    ]
    if tuning.at_the_edge:
        edges = ", ".join(tuning.at_the_edge)
        lines += [f"The best value of {edges} is the outermost that was tried: beyond it there may be a better.", ""]
    lines += [f"Cost: {tuning.runs} runs, {seconds_text(tuning.seconds)} in all.", ""]
    heads = [*paths, units.label, "nll (valid)", "nll, mean over training"]
    lines += ["| " + " | ".join([*heads, *(f"seed {s}" for s in tuning.seeds)]) + " |"]
    lines += ["|" + " ---: |" * (len(heads) + len(tuning.seeds))]
    for tried in tuning.candidates:
        cells = [f"{value:g}" for value in tried.numbers.values()]
        cells += [units.plus_minus(tried.mean, tried.sd), _four(tried.nll), _four(tried.nll_all_along)]
        cells += [units.value(tried.values.get(seed)) for seed in tuning.seeds]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Validation nll of the choice by step:", ""]
    lines += ["| step | " + " | ".join(f"seed {seed}" for seed in tuning.curve) + " |"]
    lines += ["|" + " ---: |" * (1 + len(tuning.curve))]
    for step in sorted({step for points in tuning.curve.values() for step in points}):
        points = [tuning.curve[seed].get(step) for seed in tuning.curve]
        lines.append(f"| {step:,} | " + " | ".join(map(_four, points)) + " |")
    return "\n".join(lines) + "\n"


def _four(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"
