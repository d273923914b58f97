"""What a task is: what is learnt, on which data, and how it is judged. B examples of a batch."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax

from transformer_jax.config import Config, Resolved, value_at, with_values
from transformer_jax.data import Examples
from transformer_jax.errors import UserError
from transformer_jax.models.model import Model, Params
from transformer_jax.models.tokens import Batch
from transformer_jax.tasks.text_metrics import LOWER_IS_BETTER

Measured = Mapping[str, tuple[jax.Array, jax.Array]]
"""Name -> sum and count of each example, float32[B] both. They are added up, over anything, and divided once."""
Metrics = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A number that a task reports: the mean of something measured, perhaps transformed.

    Attributes:
      of: name of what is measured.
      higher_is_better: its direction.
      transform: from the mean to the figure.
    """

    of: str
    higher_is_better: bool
    transform: Callable[[float], float] = lambda mean: mean


def perplexity(nll: float) -> float:
    """exp(nll), kept finite."""
    return math.exp(min(nll, 700.0))


class Output(Protocol):
    """What a task writes or names, and how that is judged."""

    def predict(self, config: Config, model: Model, params: Params, batch: Batch) -> Mapping[str, jax.Array]:
        """Arrays with one entry an example."""

    def read(self, predicted: Mapping[str, Any], assets: Any) -> list[str]:
        """What was predicted as text, a line an example."""

    def remarks(self, predicted: Mapping[str, Any]) -> Metrics:
        """What else is to be told of what was predicted, among the metrics."""

    def judge(self, config: Config, texts: list[str], split: Examples) -> Metrics:
        """The metrics that `evaluate.metrics` names."""


class Task(Protocol):
    """An entry of TASKS."""

    families: tuple[str, ...]  # of models that can learn it
    figures: Mapping[str, Figure]
    output: Output | None
    unit: str  # what the loss is counted in: speeds are in these a second

    def check(self, config: Config) -> None:
        """Refuses, by a UserError, what cannot be learnt from these data or by this model; touches no file."""

    def complete(self, config: Config, assets: Any) -> Resolved:
        """The config with what the data say of it; UserError where it contradicts them."""

    def measure(self, config: Config, model: Model, params: Params, batch: Batch, key: jax.Array | None) -> Measured:
        """What is known of each example. "loss" is what is optimised; dropout is on where there is a key."""

    def example_batch(self, config: Resolved, examples: int = 1, seed: int = 0) -> Batch:
        """Made-up examples of few tokens and unlike lengths: from one, parameters are initialised."""


def figures_of(task: Task, totals: Mapping[str, tuple[float, float]]) -> Metrics:
    """The task's figures from sums and counts over a whole split."""
    means = {name: total / count for name, (total, count) in totals.items()}
    return {name: figure.transform(means[figure.of]) for name, figure in task.figures.items()}


def with_vocabularies(config: Config, sizes: Mapping[str, int]) -> Resolved:
    """The config with the size of a vocabulary at each path; one that was chosen stands if the tokens fit into it."""
    for path, size in sizes.items():
        chosen = value_at(config, path)
        if chosen is not None and chosen < size:
            raise UserError(f"{path} = {chosen} is smaller than the tokenizer's vocabulary of {size}: leave it unset.")
    return Resolved(with_values(config, {path: value_at(config, path) or size for path, size in sizes.items()}))


def higher_is_better(task: Task, metric: str) -> bool:
    """The direction of a metric: a figure of the task, or a metric of what it writes."""
    if metric in task.figures:
        return task.figures[metric].higher_is_better
    return metric.partition("(")[0] not in LOWER_IS_BETTER


def measured_names(task: Task, metrics: Sequence[str]) -> tuple[str, ...]:
    """Names of all that an evaluation of the task says."""
    return (*task.figures, *metrics)
