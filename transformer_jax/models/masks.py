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
    first: jax.Array | int = 0  # where, among keys that are kept, those of the queries' own tokens begin


def relate(queries: Tokens, keys: Tokens) -> Relation:
    """Each token may attend to the keys of its sentence, never to padding."""
    return Relation(segment_mask(queries.segments, keys.segments), queries.positions, keys.positions)


def relate_decoded(tokens: Tokens, mask: str) -> Relation:
    """The tokens of a decoder to each other: as `relate`, and as the entry `mask` of DECODER_MASKS has it."""
    to_self = relate(tokens, tokens)
    seen_BHTS = DECODER_MASKS[mask](tokens.positions, tokens.positions)
    return to_self._replace(mask_BHTS=to_self.mask_BHTS & seen_BHTS)


def relate_written(
    tokens_NT: jax.Array, length: jax.Array, writers_NS: jax.Array, batch_size: int
) -> tuple[Tokens, Relation, jax.Array]:
    """New tokens of hypotheses that are `length` tokens long, and who of these and the earlier ones each may attend to.

    The W hypotheses of an example are one row: its new tokens stand one after the other, at each place those of all
    hypotheses. So do the keys that are kept, and no key moves when hypotheses are chosen: what moves is `writers`, in
    which each hypothesis says who wrote the tokens that it consists of.

    Args:
      tokens_NT: N = B W hypotheses, w of example b at b W + w.
      writers_NS: int32, the place among the W at which each token was written; filled in up to `length`.
      batch_size: B.

    Returns:
      The tokens [B, T W], their relation to the S W keys that are kept, and `writers` with the new tokens.
    """
    (rows, new), places = tokens_NT.shape, jnp.arange(writers_NS.shape[1])
    width = rows // batch_size
    own_N1 = jnp.tile(jnp.arange(width, dtype=writers_NS.dtype), batch_size)[:, None]
    writers_NS = jnp.where((places >= length) & (places < length + new), own_N1, writers_NS)
    new_T = length + jnp.arange(new)
    wrote_NSW = writers_NS[:, :, None] == jnp.arange(width, dtype=writers_NS.dtype)
    seen_BTWSW = jnp.moveaxis(
        (places <= new_T[:, None])[:, :, None] & wrote_NSW.reshape(batch_size, width, 1, -1, width), 1, 2
    )
    positions_1T, k_positions_1S = jnp.repeat(new_T, width)[None], jnp.repeat(places, width)[None]
    tokens_BT = jnp.swapaxes(tokens_NT.reshape(batch_size, width, new), 1, 2).reshape(batch_size, -1)
    mask_BHTS = seen_BTWSW.reshape(batch_size, 1, new * width, -1)
    tokens = Tokens(tokens_BT, positions_1T, jnp.ones_like(tokens_BT))
    return tokens, Relation(mask_BHTS, positions_1T, k_positions_1S, first=length * width), writers_NS


def by_hypothesis(x_BTC: jax.Array, hypotheses: int) -> jax.Array:
    """[N, T, C]: what was made of the tokens of `relate_written`, which are those of W hypotheses in a row of T W."""
    batch_size, columns, size = x_BTC.shape
    width = hypotheses // batch_size
    return jnp.swapaxes(x_BTC.reshape(batch_size, -1, width, size), 1, 2).reshape(hypotheses, columns // width, size)


def everywhere(relation: Relation) -> jax.Array:
    """bool[B, 1, T, S]: whom each query may attend to."""
    return relation.mask_BHTS


def within(relation: Relation, window: int) -> jax.Array:
    """bool[B, 1, T, S]: of those, the keys that stand at most `window` positions away (local attention)."""
    distance_BTS = jnp.abs(relation.k_positions_BS[:, None, :] - relation.q_positions_BT[:, :, None])
    return relation.mask_BHTS & (distance_BTS <= window)[:, None]


def segment_mask(q_segments_BT: jax.Array, k_segments_BS: jax.Array) -> jax.Array:
    """bool[B, 1, T, S]: within a sentence, never to padding."""
    same = q_segments_BT[:, None, :, None] == k_segments_BS[:, None, None, :]
    return same & (k_segments_BS != PADDING)[:, None, None, :]


def causal_mask(q_positions_BT: jax.Array, k_positions_BS: jax.Array) -> jax.Array:
    """bool[B, 1, T, S]: no information flows leftwards (Section 3.2.3), key position <= query position."""
    return k_positions_BS[:, None, None, :] <= q_positions_BT[:, None, :, None]


def no_mask(q_positions_BT: jax.Array, k_positions_BS: jax.Array) -> jax.Array:
    """bool[B, 1, T, S], all True: a decoder that sees the answer while it is trained."""
    return jnp.ones_like(causal_mask(q_positions_BT, k_positions_BS))


DECODER_MASKS = {"causal": causal_mask, "none": no_mask}
