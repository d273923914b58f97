"""Attention (Section 3.2).

B batch, T query positions, S key positions, D d_model, H heads, K d_k, V d_v. True in a mask means "may attend".
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from transformer_jax.models.positions import NoPositions
from transformer_jax.models.regularisation import Dropout
from transformer_jax.models.scores import dot
from transformer_jax.models.weights import softmax

Identity = Callable[[jax.Array], jax.Array]


def attention(
    q_BTHK: jax.Array,
    k_BSHK: jax.Array,
    v_BSHV: jax.Array,
    mask_BHTS: jax.Array,
    *,
    scale: float | jax.Array,
    score: Callable[[jax.Array, jax.Array], jax.Array] = dot,
    weights: Callable[[jax.Array, jax.Array], jax.Array] = softmax,
    relative_score: jax.Array | float = 0.0,
    bias: jax.Array | float = 0.0,
    dropout: Identity = lambda weights_BHTS: weights_BHTS,
) -> jax.Array:
    """Eq. 1: Attention(Q, K, V) = softmax(Q K^T / sqrt(d_k)) V, with `scale` = 1 / sqrt(d_k).

    `score` and `weights` default to the paper's dot product and softmax. `relative_score` is added before the scale,
    `bias` after it. A query that may attend to nothing gets 0.

    Returns:
      [B, T, H, V] in the dtype of `v_BSHV`; scores and weights are float32.
    """
    logits_BHTS = scale * (score(q_BTHK, k_BSHK) + relative_score) + bias
    weights_BHTS = dropout(weights(logits_BHTS, mask_BHTS))
    return jnp.einsum("BHTS,BSHV->BTHV", weights_BHTS.astype(v_BSHV.dtype), v_BSHV)


class MultiHeadAttention(nn.Module):
    """Section 3.2.2: MultiHead(Q, K, V) = Concat(head_1, ..., head_h) W_O, head_i = Attention(Q W_Q, K W_K, V W_V).

    Keys and values are computed apart from the queries, so that a decoder can keep them.
    """

    num_heads: int
    d_k: int
    d_v: int
    d_model: int
    projections: Callable[..., tuple[nn.Module, nn.Module, nn.Module]]
    score: Callable[..., nn.Module]
    scale: Callable[["MultiHeadAttention"], float | jax.Array]
    weights: Callable[[jax.Array, jax.Array], jax.Array]
    output_projection: Callable[..., nn.Module]
    qk_norm: Callable[..., Any]
    positions: Callable[..., NoPositions]
    dropout: Callable[..., Dropout]

    def setup(self) -> None:
        self.query, self.key, self.value = self.projections(self.num_heads, self.d_k, self.d_v)
        self.query_norm, self.key_norm = self.qk_norm(), self.qk_norm()
        self.score_function = self.score()
        self.scale_factor = self.scale(self)
        self.relative = self.positions()
        self.weights_dropout = self.dropout()
        self.out = self.output_projection(d_model=self.d_model)

    def keys_and_values(self, memory_BSD: jax.Array, positions_BS: jax.Array) -> tuple[jax.Array, jax.Array]:
        """k [B, S, H, K] and v [B, S, H, V] of the vectors attended to."""
        k_BSHK = self.key_norm(self.key(memory_BSD))
        return self.relative.rotate(k_BSHK, positions_BS), self.value(memory_BSD)

    def __call__(
        self,
        x_BTD: jax.Array,
        keys_and_values: tuple[jax.Array, jax.Array],
        mask_BHTS: jax.Array,
        q_positions_BT: jax.Array,
        k_positions_BS: jax.Array,
        *,
        bias: jax.Array | float = 0.0,
        deterministic: bool,
    ) -> jax.Array:
        """[B, T, D]: what the queries made of `x_BTD` find among the keys and values."""
        k_BSHK, v_BSHV = keys_and_values
        q_BTHK = self.relative.rotate(self.query_norm(self.query(x_BTD)), q_positions_BT)
        heads_BTHV = attention(
            q_BTHK,
            k_BSHK,
            v_BSHV,
            mask_BHTS,
            scale=self.scale_factor,
            score=self.score_function,
            weights=self.weights,
            relative_score=self.relative.score(q_BTHK, q_positions_BT, k_positions_BS),
            bias=bias,
            dropout=lambda weights_BHTS: self.weights_dropout(weights_BHTS, deterministic=deterministic),
        )
        return self.out(heads_BTHV)
