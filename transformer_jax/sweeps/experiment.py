"""A question as data: which rows, on which base, over how many seeds, judged by which metric."""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer_jax.config import Config, freeze
from transformer_jax.errors import UserError
from transformer_jax.loading import Variant, load_base, load_module, put_on
from transformer_jax.registry import did_you_mean
from transformer_jax.report.rounds import doubled
from transformer_jax.report.statistics import TESTS
from transformer_jax.run.directory import MOST_SEEDS
from transformer_jax.tasks import task_of
from transformer_jax.tasks.task import higher_is_better


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large an experiment is: a config file beside `experiments/`, what is changed in it, and how many seeds.

    How its rows will be judged is declared here, before any run, and stands in sweep.json: docs/statistics.md.

    Attributes:
      metric: "split/name" in result.json: what the rows are judged by. All others are exploratory.
      percent: the metric is a fraction, shown times 100.
      margin: a difference of the metric, as stored, that is too small to matter; None: nothing is called equal.
      test: "paired"; "welch" where other data show that seeds hardly correlate between rows.
      failing: a seed whose metric is worse than this has not learnt the task; None: not counted.
      rounds: numbers of seeds after which it is decided which rows get more; (): all get `seeds`.
      family: names the table that this sweep stands in with others, whose comparisons are corrected together.
      family_size: how many comparisons the family has, at most; 0: only those of the sweep.
      first_seed: the seeds are this and those after it.
    """

    config: str
    seeds: int
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metric: str = "test/exact_match"
    higher_is_better: bool = True
    percent: bool = True
    margin: float | None = None
    test: str = "paired"
    failing: float | None = None
    rounds: tuple[int, ...] = ()
    family: str = ""
    family_size: int = 0
    first_seed: int = 0

    @property
    def seed_numbers(self) -> range:
        """The seeds that its runs may have."""
        return range(self.first_seed, self.first_seed + max((self.seeds, *self.rounds)))

    def until_settled(self, most: int) -> "Scale":
        """The scale with more seeds, at most so many, for the rows that are not settled by the first."""
        if not 2 <= self.seeds <= most:
            raise UserError(
                f"--until-settled begins with {self.seeds} seeds and ends with --max-seeds={most}: the first needs "
                "two at least, the last no fewer than the first."
            )
        return dataclasses.replace(self, rounds=doubled(self.seeds, most))

    def changed(self, overrides: Mapping[str, Any]) -> "Scale":
        """The scale with more changes."""
        return dataclasses.replace(self, overrides={**self.overrides, **overrides})


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One file under `experiments/` holds one, as EXPERIMENT; `question` and `hypothesis` come from its docstring.

    Attributes:
      rows: name -> row, the base among them; see `configs/rows.py`.
      partners: row -> row of the same number of parameters.
      own: row -> the row that it is at its own learning rate, see `row_tuning.py`.
      notes: row -> what a reader must know of it.
      paper: row -> the paper's "ppl", "bleu" and "parameters_millions", where it has any.
      scales: "smoke", "small", "full".
    """

    rows: Mapping[str, Any]
    scales: Mapping[str, Scale]
    question: str = ""
    hypothesis: str = ""
    curve: str = "valid/nll"
    base: str = "base"
    partners: Mapping[str, str] = dataclasses.field(default_factory=dict)
    own: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    paper: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)

    def only(self, names: Sequence[str]) -> "Experiment":
        """The base and the rows of those names; a partner that is left out is nobody's.

        Raises:
          UserError: a name that no row has.
        """
        for name in names:
            if name not in self.rows:
                raise UserError(
                    f"--rows: the experiment has no row {name!r}{did_you_mean(name, self.rows)}. It has: "
                    f"{', '.join(self.rows)}."
                )
        rows = {name: row for name, row in self.rows.items() if name == self.base or name in names}
        partners = {name: partner for name, partner in self.partners.items() if {name, partner} <= rows.keys()}
        return dataclasses.replace(self, rows=rows, partners=partners)


def load_experiment(path: Path) -> Experiment:
    """The EXPERIMENT of a file, with the paragraphs "Question: ..." and "Hypothesis: ..." of its docstring.

    Raises:
      UserError: it holds none, or does not say what it asks.
    """
    module = load_module(path, "EXPERIMENT")
    experiment = module.EXPERIMENT
    if not isinstance(experiment, Experiment):
        raise UserError(f"{path}: EXPERIMENT is {type(experiment).__name__}, not an Experiment.")
    _check(path, experiment)
    root = path.absolute().parent.parent
    scales = {name: dataclasses.replace(s, config=str(root / s.config)) for name, s in experiment.scales.items()}
    question, hypothesis = (_paragraph(path, module.__doc__ or "", name) for name in ("Question", "Hypothesis"))
    return dataclasses.replace(experiment, scales=scales, question=question, hypothesis=hypothesis)


def _check(path: Path, experiment: Experiment) -> None:
    _check_types(f"{path}: EXPERIMENT", experiment)
    for name, scale in experiment.scales.items():
        if not isinstance(scale, Scale):
            raise UserError(f"{path}: scale {name!r} is {type(scale).__name__}, not a Scale.")
        _check_types(f"{path}: scale {name!r}", scale)
    if experiment.base not in experiment.rows:
        raise UserError(f"{path}: the base {experiment.base!r} is not among the rows.")
    for name in experiment.rows:
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.+-]*", name):
            raise UserError(f"{path}: the row {name!r} cannot be the name of a directory.")
        partner = experiment.partners.get(name)
        if partner is not None and partner not in experiment.rows:
            raise UserError(f"{path}: {partner!r}, the partner of {name!r}, is not among the rows.")
    for name, scale in experiment.scales.items():
        if not 1 <= scale.seeds <= MOST_SEEDS:
            raise UserError(f"{path}: scale {name!r} has {scale.seeds} seeds; allowed: 1 to {MOST_SEEDS:,}.")
        if scale.test not in TESTS:
            raise UserError(f"{path}: scale {name!r} has the test {scale.test!r}; allowed: {', '.join(TESTS)}.")
        if scale.margin is not None and not 0 < scale.margin < math.inf:
            raise UserError(f"{path}: scale {name!r} has a margin of {scale.margin:g}; it must be above 0.")
        if scale.family_size < 0:
            raise UserError(f"{path}: scale {name!r} has a family of {scale.family_size} comparisons; allowed: from 0.")


def _check_types(where: str, stated: Experiment | Scale) -> None:
    for name, annotation in typing.get_type_hints(type(stated)).items():
        value = getattr(stated, name)
        kinds = tuple(typing.get_origin(kind) or kind for kind in _alternatives(annotation))
        if not isinstance(value, kinds):
            names = " or ".join("None" if kind is types.NoneType else kind.__name__ for kind in kinds)
            raise UserError(f"{where}: {name} is {type(value).__name__}, not {names}.")


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)


def _paragraph(path: Path, docstring: str, name: str) -> str:
    for paragraph in docstring.split("\n\n"):
        if paragraph.startswith(f"{name}: "):
            return " ".join(paragraph.removeprefix(f"{name}: ").split())
    raise UserError(f"{path}: its docstring has no paragraph that begins with {name!r}.")


def choose_scale(experiment: Experiment, name: str) -> Scale:
    """The scale of that name; UserError with the list if there is none."""
    if name not in experiment.scales:
        raise UserError(f"--scale={name}: this experiment has {', '.join(experiment.scales)}.")
    return experiment.scales[name]


def on_config(scale: Scale, config: str) -> Scale:
    """The scale on another config file, without its changes, judged by the first of that config's metrics.

    What was declared for another metric, or for a family of sweeps on the scale's own config, holds there no more.
    """
    base = freeze(load_base(Path(config))[0])
    moved = dataclasses.replace(scale, config=config, overrides={}, family="", family_size=0)
    return judged_by(moved, base, "test")


def judged_by(scale: Scale, config: Config, split: str, metric: str | None = None) -> Scale:
    """The scale judged by that metric of the config's task; None: by the first of the config's metrics."""
    task = task_of(config)
    metric = metric or next(iter((*config.evaluate.metrics, *task.figures)))
    same = scale.metric == f"{split}/{metric}"
    return dataclasses.replace(
        scale,
        metric=f"{split}/{metric}",
        margin=scale.margin if same else None,
        failing=scale.failing if same else None,
        higher_is_better=higher_is_better(task, metric),
        percent=metric == "exact_match",
    )


def make_variants(experiment: Experiment, scale: Scale, overrides: Mapping[str, Any]) -> list[Variant]:
    """Every row of the experiment on the scale's config with `overrides`; see `put_on`.

    Raises:
      UserError: a row or override that the config refuses, or one that sets the seed.
    """
    base = {**load_base(Path(scale.config))[0], **scale.overrides}
    variants = list(put_on(base, overrides, experiment.rows).values())
    sets_seed = {"the command line": overrides, "the scale": scale.overrides}
    for where, changes in {**sets_seed, **{f"row {v.name!r}": v.overrides for v in variants}}.items():
        if "seed" in changes:
            raise UserError(
                f"seed = {changes['seed']!r} ({where}): the runs of a sweep have the seeds 0, 1, ...; --seeds says "
                "how many."
            )
    return variants


def select(rows: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The rows of those names, in that order."""
    return {name: rows[name] for name in names}
