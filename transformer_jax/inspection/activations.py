"""What a trained model has in between, as arrays; and what it says when that is replaced by what another text gives.

run = inspect_run(Path("runs/scan_short"))
run.activations("jump twice", ["*.weights"])["encoder.layers.self_attention.weights"].array
run.patch("jump twice", "walk twice", at="encoder.layers", positions=[0]).change
"""

import dataclasses
import fnmatch
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.config import RecurrentConfig
from transformer_jax.errors import UserError
from transformer_jax.evaluation.evaluator import Trained
from transformer_jax.inspection.chosen import Choice, choose
from transformer_jax.inspection.sites import LAYERS, spelled
from transformer_jax.models.build import build_model
from transformer_jax.models.model import patched
from transformer_jax.models.tokens import Batch
from transformer_jax.run.saved import SavedRun, open_run, to_standard_error

AXES_OF_ATTENTION = {
    "weights": ("head", "query", "key"),
    "scores": ("head", "query", "key"),
    "q": ("query", "head", "width"),
    "k": ("key", "head", "width"),
    "v": ("key", "head", "width"),
    "heads": ("query", "head", "width"),
}
AXES_BY_NUMBER = {1: ("class",), 2: ("position", "width"), 3: ("position", "head", "width")}
"""Of what a module returns for one example."""


class Activation(NamedTuple):
    """What was in between, for one example.

    Attributes:
      axes: their names: "layer", "position", "query", "key", "head", "width", "class".
    """

    array: np.ndarray
    axes: tuple[str, ...]


class Change(NamedTuple):
    """What a patch changes.

    Attributes:
      predicts: the output, token by token.
      before, after: the log-probability of each of these, float32[T].
    """

    predicts: list[str]
    before: np.ndarray
    after: np.ndarray

    @property
    def change(self) -> float:
        """In the log-probability of the whole output."""
        return float(np.sum(self.after - self.before))


@dataclasses.dataclass(frozen=True)
class InspectedRun:
    """A trained run to experiment with; see `inspect_run`."""

    run: SavedRun
    trained: Trained
    params: Any

    def activations(self, text: str, names: Sequence[str] = ("*",), target: str | None = None) -> dict[str, Activation]:
        """What the model has in between for a text, by dotted path: what modules return, and what attention tells of
        ("q", "k", "v", "scores", "weights", "heads").

        Args:
          names: patterns of paths, such as "encoder.*" or "*.weights".
          target: an output of the text; None: the model's own.

        Raises:
          UserError: nothing has such a name.
        """
        found = self._seen(self._batch(text, target))
        kept = {path: array for path, array in found.items() if any(fnmatch.fnmatchcase(path, name) for name in names)}
        if not kept:
            raise UserError(f"{', '.join(names)}: nothing has such a name; there are {', '.join(found)}.")
        return {path: Activation(np.asarray(array), _axes(path, array.ndim)) for path, array in kept.items()}

    def patch(
        self,
        text: str,
        other: str,
        at: str,
        *,
        layers: Sequence[int] | None = None,
        positions: Sequence[int] | None = None,
        target: str | None = None,
    ) -> Change:
        """What the model says of a text when the module `at` returns what it returns for another text.

        Args:
          at: the dotted path of a module, as in `activations`.
          layers, positions: where, from 0; None: everywhere.
          target: the output whose probability is measured; None: what the model makes of `text`.

        Raises:
          UserError: there is no such module, or it returns arrays of other sizes for the two texts.
        """
        batch = self._batch(text, target)
        value = self._value(batch, other, at)
        in_layers = int(LAYERS in at.split("."))
        here = _at(value.shape, positions, in_layers)
        if in_layers:
            here = here & _at(value.shape, layers, 0)
        return self._changed(batch, at, value, here)

    def trace(self, text: str, other: str, at: str, target: str | None = None) -> np.ndarray:
        """float32[layer, position]: the change of the log-probability of the output by each patch alone (causal
        tracing); `at` names a module inside of layers."""
        batch = self._batch(text, target)
        value = self._value(batch, other, at)
        if LAYERS not in at.split("."):
            raise UserError(f"{at}: is no module inside of layers; use patch().")
        changes = np.zeros(value.shape[:2], np.float32)
        for layer, position in np.ndindex(*changes.shape):
            here = np.zeros(value.shape, bool)
            here[layer, position] = True
            changes[layer, position] = self._changed(batch, at, value, here).change
        return changes

    def _batch(self, text: str, target: str | None) -> Batch:
        return choose(self.run, self.trained, Choice(text=text, target=target), to_standard_error)[0][1]

    def _value(self, batch: Batch, other: str, at: str) -> np.ndarray:
        """What the module returns for the other text, with the same output."""
        mine = self._seen(batch)
        has_pairs = self.run.learns_from == "pairs"
        theirs = self._seen(
            {**self._batch(other, ""), "targets": batch["targets"]} if has_pairs else self._batch(other, None)
        )
        if at not in mine or at.rpartition(".")[2] in AXES_OF_ATTENTION:
            raise UserError(f"{at}: no module has this path; activations() names them.")
        if mine[at].shape != theirs[at].shape:
            raise UserError(f"{at}: is {mine[at].shape} for one text and {theirs[at].shape} for the other.")
        return np.asarray(theirs[at])

    def _changed(self, batch: Batch, at: str, value: np.ndarray, here: np.ndarray) -> Change:
        before = self._log_probs(batch, {})
        tree: dict[str, Any] = {"instead": _with_batch(value, at), "here": _with_batch(here, at)}
        for key in reversed(at.split(".")):
            tree = {key: tree}
        after = self._log_probs(batch, {"patches": tree})
        predicts = spelled(np.asarray(batch["targets"])[0].tolist(), self.run.assets.target)
        return Change(predicts, np.asarray(before), np.asarray(after))

    def _log_probs(self, batch: Batch, given: Mapping[str, Any]) -> jax.Array:
        return self._compiled[1](self.params, batch, given)

    def _seen(self, batch: Batch) -> dict[str, jax.Array]:
        found: dict[str, jax.Array] = self._compiled[0](self.params, batch)
        return found

    @functools.cached_property
    def _compiled(self) -> Any:
        model = build_model(self.run.config.model)

        def seen(params: Any, batch: Batch) -> dict[str, jax.Array]:
            return _flat(model.look(params, batch, also=True)[1])

        def log_probs(params: Any, batch: Batch, given: Mapping[str, Any]) -> jax.Array:
            with patched():
                logits_BTC = dataclasses.replace(model, given=given).apply(params, batch)
            log_probs_TC = jax.nn.log_softmax(logits_BTC[0])
            return jnp.take_along_axis(log_probs_TC, batch["targets"][0][:, None], axis=-1)[:, 0]

        return jax.jit(seen), jax.jit(log_probs)


def inspect_run(workdir: Path, checkpoint: str | None = None) -> InspectedRun:
    """A trained run to experiment with; `checkpoint`: best, last, a step or average:N.

    Raises:
      UserError: it is of a model that reads token by token, of which no activation has all positions at a time.
    """
    run = open_run(workdir)
    if isinstance(run.config.model, RecurrentConfig):
        raise UserError(f"{workdir}: a recurrent network has no layer that sees all positions; use inspect attention.")
    _, trained = run.load(checkpoint)
    return InspectedRun(run, trained, run.params_of(trained))


def _flat(tree: Any, path: tuple[str, ...] = ()) -> dict[str, jax.Array]:
    """Dotted path -> array of the one example. A module that is called twice has two names: m[0] and m[1]."""
    found: dict[str, jax.Array] = {}
    for key, below in tree.items():
        if isinstance(below, Mapping):
            found |= _flat(below, (*path, key))
            continue
        name = ".".join(path if key == "__call__" else (*path, key))
        for number, array in enumerate(below):
            axis = 1 if LAYERS in path else 0
            whole = name if len(below) == 1 else f"{name}[{number}]"
            found[whole or "logits"] = jnp.take(array, 0, axis=axis)
    return found


def _axes(path: str, dimensions: int) -> tuple[str, ...]:
    parts = path.split(".")
    layer = ("layer",) if LAYERS in parts else ()
    own = AXES_OF_ATTENTION.get(parts[-1]) or AXES_BY_NUMBER[dimensions - len(layer)]
    return (*layer, *own)


def _at(shape: tuple[int, ...], chosen: Sequence[int] | None, axis: int) -> np.ndarray:
    """bool[shape], true at the chosen places of an axis; None: at all."""
    marked = np.zeros(shape[axis], bool)
    marked[slice(None) if chosen is None else list(chosen)] = True
    return np.broadcast_to(marked.reshape(-1, *[1] * (len(shape) - 1 - axis)), shape)


def _with_batch(array: np.ndarray, at: str) -> np.ndarray:
    return np.expand_dims(array, 1 if LAYERS in at.split(".") else 0)
