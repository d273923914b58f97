"""Which positions may attend to which (Section 3.2.3). True means "may attend"."""

import jax
import jax.numpy as jnp

PAD_SEGMENT = 0


def segments_of(tokens_BT: jax.Array, pad_id: int) -> jax.Array:
    """int32[B, T]: 1 at a token, 0 at padding: one sentence a row."""
    return (tokens_BT != pad_id).astype(jnp.int32)


def segment_mask(q_segments_BT: jax.Array, k_segments_BS: jax.Array) -> jax.Array:
    """bool[B, 1, T, S]: within a sentence, never to padding. Packed rows hold several sentences, numbered from 1."""
    same = q_segments_BT[:, None, :, None] == k_segments_BS[:, None, None, :]
    return same & (k_segments_BS != PAD_SEGMENT)[:, None, None, :]


def causal_mask(q_positions_BT: jax.Array, k_positions_BS: jax.Array) -> jax.Array:
    """bool[B, 1, T, S]: "preventing leftward information flow" (Section 3.2.3): key position <= query position."""
    return k_positions_BS[:, None, None, :] <= q_positions_BT[:, None, :, None]


def no_mask(q_positions_BT: jax.Array, k_positions_BS: jax.Array) -> jax.Array:
    """bool[B, 1, T, S], all True: a decoder that sees the answer while it is trained."""
    return jnp.ones_like(causal_mask(q_positions_BT, k_positions_BS))


DECODER_MASKS = {"causal": causal_mask, "none": no_mask}
