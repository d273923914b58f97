"""What a model does on a split: the figures of its task, and metrics of what it writes by itself."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from transformer_jax.config import Config, Resolved
from transformer_jax.data import PAD, Batch, Examples, evaluation_batches
from transformer_jax.errors import UserError
from transformer_jax.evaluation.relay import FEWEST_BATCHES, InParts, Relay
from transformer_jax.models.build import build_model
from transformer_jax.models.model import Model
from transformer_jax.parallel.layout import Layout
from transformer_jax.tasks import Metrics, Output, task_of
from transformer_jax.tasks.task import figures_of, measured_names
from transformer_jax.training.state import Lane


class Trained(NamedTuple):
    """What is evaluated: parameters, and the lanes they were trained as, [lanes, ...] each."""

    params: Any
    lane: Lane


OfExamples = Callable[[Resolved, Model, Any, Any], Any]
"""(config, model, params, batch) of one lane -> arrays with an entry for each example."""


class Evaluator:
    """Compiles once what measures a config."""

    def __init__(self, config: Resolved, assets: Any, layout: Layout):
        self._config, self._assets, self._layout = config, assets, layout
        self._task = task_of(config)
        self._measure = self.compile(functools.partial(self._task.measure, key=None))
        self._predict = None if self._task.output is None else self.predictor(self._task.output)

    def compile(self, function: OfExamples, shared: bool = True) -> Callable[[Trained, Any], Any]:
        """The function of all lanes; its result is on the host, [lanes, examples, ...]. See `Layout.compile_rows`."""

        def of_lane(trained: Trained, batch: Batch) -> Any:
            config = trained.lane.on(self._config)
            return function(config, build_model(config.model), trained.params, batch)

        return self._layout.compile_rows(of_lane, shared)

    def predictor(self, output: Output) -> Callable[[Trained, Examples], Any]:
        """Compiles what is predicted of every example of a split, in order: [lanes, examples, ...]."""
        predict = self.compile(output.predict)
        if not isinstance(output, InParts):
            return functools.partial(self.rows, predict)
        model, example = build_model(self._config.model), self._task.example_batch(self._config)
        relay = Relay(self._config, output, model, example, self.compile, self._layout.lanes)

        def predicted(trained: Trained, split: Examples) -> Any:
            found = []
            batches = _with_examples(evaluation_batches(split, self._config.data))
            for _, of_shape in itertools.groupby(batches, key=lambda pair: pair[1]["inputs"].shape):
                alike = list(of_shape)
                found += (
                    [relay.rows(trained, alike)]
                    if len(alike) >= FEWEST_BATCHES
                    else [_real(indices, predict(trained, batch)) for indices, batch in alike]
                )
            return _in_order(found)

        return predicted

    def rows(self, compiled: Callable[[Trained, Batch], Any], trained: Trained, split: Examples) -> Any:
        """What a compiled function says of every example of the split, in order: [lanes, examples, ...].

        "example" of its batches is the index of each example, -1 at a place without one.
        """
        batches = _with_examples(evaluation_batches(split, self._config.data))
        return _in_order([_real(indices, compiled(trained, batch)) for indices, batch in batches])

    def figures(self, trained: Trained, split: Examples) -> list[Metrics]:
        """The figures of the task, one dict a lane."""
        measured: Mapping[str, Any] = self.rows(self._measure, trained, split)
        return [
            figures_of(
                self._task,
                {
                    name: (float(sums[lane].sum(dtype=np.float64)), float(counts[lane].sum(dtype=np.float64)))
                    for name, (sums, counts) in measured.items()
                },
            )
            for lane in range(self._layout.lanes)
        ]

    def texts(self, trained: Trained, split: Examples) -> list[tuple[list[str], Metrics]]:
        """What the model writes for each example of the split, in order, and what else is told of it; a pair a lane."""
        assert self._task.output is not None
        assert self._predict is not None
        predicted = self._predict(trained, split)
        lanes = [{name: values[lane] for name, values in predicted.items()} for lane in range(self._layout.lanes)]
        return [
            (self._task.output.read(of_lane, self._assets), self._task.output.remarks(of_lane)) for of_lane in lanes
        ]

    def measure(
        self, trained: Trained, split: Examples, *, write: bool
    ) -> tuple[list[Metrics], list[list[str]] | None]:
        """All metrics of a split, one dict a lane; with `write` also those of what the model writes, and its texts."""
        metrics = self.figures(trained, split)
        if not write or self._task.output is None:
            return metrics, None
        found = self.texts(trained, split)
        for of_lane, (texts, remarks) in zip(metrics, found, strict=True):
            of_lane.update({**self._task.output.judge(self._config, texts, split), **remarks})
        return metrics, [texts for texts, _ in found]


Rows = tuple[np.ndarray, Any]
"""The indices of examples, and [lanes, examples, ...] of each."""


def _with_examples(batches: Iterable[tuple[np.ndarray, Batch]]) -> Iterator[tuple[np.ndarray, Batch]]:
    """The batches, with the index of each of their examples as "example"."""
    for indices, batch in batches:
        yield indices, {**batch, "example": indices.astype(np.int32)}


def _real(indices: np.ndarray, rows: Any) -> Rows:
    """Without the places that hold no example."""
    real = indices >= 0
    return indices[real], jax.tree.map(lambda values: values[:, real], rows)


def _in_order(found: Sequence[Rows]) -> Any:
    order, rows = zip(*found, strict=True)
    position = np.argsort(np.concatenate(order))
    return jax.tree.map(lambda *parts: _concatenate(parts)[:, position], *rows)


def _concatenate(parts: tuple[np.ndarray, ...]) -> np.ndarray:
    """Joins along the axis of examples; sequences of tokens of different widths are filled up with PAD."""
    width = max(part.shape[-1] for part in parts)
    if parts[0].ndim == 2 or all(part.shape[-1] == width for part in parts):
        return np.concatenate(parts, axis=1)
    padded = [
        np.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, width - part.shape[-1])], constant_values=PAD) for part in parts
    ]
    return np.concatenate(padded, axis=1)


def check(config: Config) -> None:
    """Refuses a choice of the best that is never measured.

    Raises:
      UserError: naming the field, what was found and what is allowed.
    """
    task, best, decode_every = task_of(config), config.evaluate.best, config.evaluate.decode_every
    allowed = measured_names(task, config.evaluate.metrics)
    if best not in allowed:
        raise UserError(f"evaluate.best = {best!r} is not measured. Allowed: {', '.join(allowed)}.")
    if best not in task.figures and decode_every != config.train.evaluate_every:
        raise UserError(
            f"evaluate.best = {best!r} needs decoded text at each evaluation: set evaluate.decode_every to "
            f"train.evaluate_every = {config.train.evaluate_every}, not {decode_every}."
        )
    if decode_every is not None and decode_every % config.train.evaluate_every:
        raise UserError(
            f"evaluate.decode_every = {decode_every} must be a multiple of train.evaluate_every = "
            f"{config.train.evaluate_every}."
        )
