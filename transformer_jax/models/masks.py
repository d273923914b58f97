"""Which positions may attend to which (Section 3.2.3). True means "may attend".

B batch, H heads, T query positions, S key positions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from transformer_jax.models.tokens import PADDING, Tokens


class Relation(NamedTuple):
    """Who may attend to whom, where both stand, and what that adds to the scores: the same in all layers of a stack."""

    mask_BHTS: jax.Array
    q_positions_BT: jax.Array
    k_positions_BS: jax.Array
    bias_BHTS: jax.Array | float = 0.0


def relate(queries: Tokens, keys: Tokens) -> Relation:
    """Each token may attend to the keys of its sentence, never to padding."""
    return Relation(segment_mask(queries.segments, keys.segments), queries.positions, keys.positions)


def relate_written(tokens_BT: jax.Array, length: jax.Array, k_positions_1S: jax.Array) -> tuple[Tokens, Relation]:
    """New tokens of outputs that are `length` tokens long, and who of these and the earlier ones each may attend to."""
    new = Tokens(tokens_BT, length + jnp.arange(tokens_BT.shape[1])[None], jnp.ones_like(tokens_BT))
    return new, Relation(causal_mask(new.positions, k_positions_1S), new.positions, k_positions_1S)


def segment_mask(q_segments_BT: jax.Array, k_segments_BS: jax.Array) -> jax.Array:
    """bool[B, 1, T, S]: within a sentence, never to padding."""
    same = q_segments_BT[:, None, :, None] == k_segments_BS[:, None, None, :]
    return same & (k_segments_BS != PADDING)[:, None, None, :]


def causal_mask(q_positions_BT: jax.Array, k_positions_BS: jax.Array) -> jax.Array:
    """bool[B, 1, T, S]: "preventing leftward information flow" (Section 3.2.3): key position <= query position."""
    return k_positions_BS[:, None, None, :] <= q_positions_BT[:, None, :, None]


def no_mask(q_positions_BT: jax.Array, k_positions_BS: jax.Array) -> jax.Array:
    """bool[B, 1, T, S], all True: a decoder that sees the answer while it is trained."""
    return jnp.ones_like(causal_mask(q_positions_BT, k_positions_BS))


DECODER_MASKS = {"causal": causal_mask, "none": no_mask}
