"""The tokens of a batch, and where they stand. B batch, T positions."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from transformer_jax.vocabulary import BOS, PAD

Batch = Mapping[str, jax.Array]
PADDING = 0
"""The segment of padding."""


class Tokens(NamedTuple):
    """One side of a batch, int32[B, T] each (positions also [1, T], where they are the same in all examples).

    ids: the tokens.
    positions: their places in their sentence, from 0.
    segments: the number of their sentence within the example, from 1; 0 at padding. A packed example holds several.
    """

    ids: jax.Array
    positions: jax.Array
    segments: jax.Array


def tokens_of(batch: Batch, side: str) -> Tokens:
    """The tokens of "inputs" or "targets"; an example that is not packed is one sentence."""
    ids = batch[side]
    if f"{side}_segments" in batch:
        return Tokens(ids, batch[f"{side}_positions"], batch[f"{side}_segments"])
    return Tokens(ids, jnp.arange(ids.shape[1])[None], (ids != PAD).astype(jnp.int32))


def shift_right(targets: Tokens) -> Tokens:
    """The outputs shifted right (Figure 1): the token before each target, BOS at the start of a sentence."""
    before = jnp.where(targets.positions == 0, BOS, jnp.roll(targets.ids, 1, axis=1))
    return targets._replace(ids=jnp.where(targets.segments == PADDING, PAD, before))
