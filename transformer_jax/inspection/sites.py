"""Where a model attends: its sites, and the tokens on both of their sides.

A site is a place of attention, named as in the config: "encoder", "decoder", "cross". B batch, T queries, S keys,
L layers, H heads.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from transformer_jax.config import Config, ModelConfig, Resolved, VisionConfig
from transformer_jax.data import NUM_SPECIALS, Tokenizer
from transformer_jax.errors import UserError
from transformer_jax.models.build import build_model
from transformer_jax.models.tokens import Batch, Tokens, shift_right, tokens_of
from transformer_jax.tasks import task_of

SPECIALS = ("<pad>", "<unk>", "<bos>", "<eos>")
assert len(SPECIALS) == NUM_SPECIALS
LAYERS = "layers"
"""In the path of what is part of a layer."""
WITH_SOURCE = "cross"
"""The place of models that write one sequence after another that they have read."""


class Site(NamedTuple):
    """A place of attention. Where it is not part of layers, it counts as one.

    Attributes:
      path: of its modules; in the trees of parameters and of what a model had in between.
    """

    path: tuple[str, ...]
    layers: int
    heads: int


def sites_of(config: Resolved) -> dict[str, Site]:
    """Place -> site, in the order of the config.

    Raises:
      UserError: the model has no attention.
    """
    model, batch = build_model(config.model), task_of(config).example_batch(config)
    seen = jax.eval_shape(lambda: model.look(model.init(jax.random.key(0), batch), batch)[1])
    found = {_place(path, config.model): (path, weights) for path, weights in _with("weights", seen)}
    if not found:
        raise UserError(f"model.family = {config.model.family!r}: this model has no attention that could be looked at.")
    return {place: _site(*found[place]) for place in config.model.places if place in found}


def _site(path: tuple[str, ...], weights: Any) -> Site:
    layered = LAYERS in path
    return Site(path, weights.shape[0] if layered else 1, weights.shape[1 + layered])


def _with(name: str, tree: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Path of every subtree that has told of `name`, and what it told."""
    if not isinstance(tree, Mapping):
        return []
    here = [(path, tree[name][0])] if name in tree else []
    return here + [found for key, below in tree.items() for found in _with(name, below, (*path, key))]


def _place(path: tuple[str, ...], model: ModelConfig) -> str:
    if path[-1].startswith(WITH_SOURCE):
        return WITH_SOURCE
    if path[0] in model.places:
        return path[0]
    return next(place for place in model.places if place != WITH_SOURCE)


def at(site: Site, name: str, seen: Any) -> jax.Array:
    """[L, B, H, T, S]: "weights" or "scores" of a site, in what a model had in between."""
    for key in site.path:
        seen = seen[key]
    found: jax.Array = seen[name][0]
    if LAYERS in site.path:
        return found
    return found.reshape(1, *found.shape[:3], found.shape[-1])  # one that asks step by step tells of [B, H, T, 1, S]


def factors(sites: Mapping[str, Site], of_place: Mapping[str, Any]) -> dict[str, Any]:
    """What `Model.given` may hold as "heads": the factors of each place, [L, H] or [L, B, H]."""
    tree: dict[str, Any] = {}
    for place, factor in of_place.items():
        branch = tree
        for key in sites[place].path:
            branch = branch.setdefault(key, {})
        branch["factor"] = factor if LAYERS in sites[place].path else factor[0]
    return tree


def tokens_at(model: ModelConfig, place: str, batch: Batch) -> tuple[Tokens, Tokens] | None:
    """Those that ask and those that are asked; None where these are no tokens of text.

    A decoder's row asks as the token before the one that it predicts: BOS, where it predicts the first.
    """
    if "inputs" not in batch:
        return None
    read = tokens_of(batch, "inputs")
    if WITH_SOURCE not in model.places or place == "encoder":
        return read, read
    written = shift_right(tokens_of(batch, "targets"))
    return written, written if place == "decoder" else read


def names_at(config: Config, assets: Any, place: str, batch: Batch, width: int) -> tuple[list[str], list[str]]:
    """The names of what asks and of what is asked in the only example of a batch; `width` of an image's patches."""
    sides = tokens_at(config.model, place, batch)
    if sides is None:
        names = _patches(config.model, width)
        return names, names
    read = assets.source if WITH_SOURCE in config.model.places else assets.target
    tokenizers = {"encoder": (read, read), WITH_SOURCE: (assets.target, read)}.get(
        place, (assets.target, assets.target)
    )
    queries, keys = (
        spelled(np.asarray(side.ids)[0].tolist(), tokenizer) for side, tokenizer in zip(sides, tokenizers, strict=True)
    )
    return queries, keys


def _patches(model: ModelConfig, width: int) -> list[str]:
    """Row and column of each patch, from 1."""
    if not isinstance(model, VisionConfig):
        return [str(number) for number in range(width)]
    rows, columns = model.grid
    grid = [f"{row + 1},{column + 1}" for row in range(rows) for column in range(columns)]
    return ["class", *grid] if width > len(grid) else grid


def spelled(ids: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """What each id is: its piece of text, or the name of a special."""
    pieces = tokenizer.pieces
    return [
        SPECIALS[number]
        if number < NUM_SPECIALS
        else pieces[number - NUM_SPECIALS]
        if number - NUM_SPECIALS < len(pieces)
        else f"<{number}>"
        for number in ids
    ]
