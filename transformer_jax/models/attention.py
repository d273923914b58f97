"""Attention (Section 3.2).

B batch, T query positions, S key positions, D d_model, H heads, K d_k, V d_v. True in a mask means "may attend".
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from transformer_jax.models.masks import Relation
from transformer_jax.models.positions import NoPositions
from transformer_jax.models.regularisation import Dropout
from transformer_jax.models.scores import Score, dot
from transformer_jax.models.weights import Weights, softmax

KeysValues = tuple[jax.Array, jax.Array]
Function = Callable[[jax.Array], jax.Array]


def attention(
    q_BTHK: jax.Array,
    k_BSHK: jax.Array,
    v_BSHV: jax.Array,
    mask_BHTS: jax.Array,
    *,
    scale: float | jax.Array,
    score: Score = dot,
    weights: Weights = softmax,
    relative_score: jax.Array | float = 0.0,
    bias: jax.Array | float = 0.0,
    dropout: Function = lambda weights_BHTS: weights_BHTS,
) -> tuple[jax.Array, jax.Array]:
    """Eq. 1: Attention(Q, K, V) = softmax(Q K^T / sqrt(d_k)) V, with `scale` = 1 / sqrt(d_k).

    `score` and `weights` default to the paper's dot product and softmax. `relative_score` is added before the scale,
    `bias` after it. A query that may attend to nothing gets 0.

    Returns:
      The output [B, T, H, V] in the dtype of `v_BSHV`, and the weights before dropout, float32[B, H, T, S].
    """
    logits_BHTS = scale * (score(q_BTHK, k_BSHK) + relative_score) + bias
    weights_BHTS = weights(logits_BHTS, mask_BHTS)
    heads_BHTV = jnp.einsum("BHTS,BSHV->BHTV", dropout(weights_BHTS).astype(v_BSHV.dtype), v_BSHV)
    return jnp.swapaxes(heads_BHTV, 1, 2), weights_BHTS


class MultiHeadAttention(nn.Module):
    """Section 3.2.2: MultiHead(Q, K, V) = Concat(head_1, ..., head_h) W_O, head_i = Attention(Q W_Q, K W_K, V W_V).

    While a sentence is written token by token, keys and values are kept: those of its own tokens in the collection
    "cache" (see `reserve`), those of another sequence in "context" (see `keep`).
    """

    num_heads: int
    d_k: int
    d_v: int
    projections: Callable[[], tuple[nn.Module, nn.Module, nn.Module]]
    score: Callable[[], Score]
    scale: Callable[["MultiHeadAttention"], float | jax.Array]
    weights: Callable[[], Weights]
    reach: Callable[[Relation], jax.Array]
    output_projection: Callable[[], nn.Module]
    qk_norm: Callable[[], nn.Module]
    positions: Callable[[], NoPositions]
    dropout: Callable[[], Dropout]

    def setup(self) -> None:
        self.query, self.key, self.value = self.projections()
        self.query_norm, self.key_norm = self.qk_norm(), self.qk_norm()
        self.score_function = self.score()
        self.scale_factor = self.scale(self)
        self.weights_function = self.weights()
        self.relative = self.positions()
        self.weights_dropout = self.dropout()
        self.out = self.output_projection()

    def __call__(self, x_BTD: jax.Array, memory_BSD: jax.Array | None, relation: Relation) -> jax.Array:
        """[B, T, D]: what the queries made of `x_BTD` find in `memory_BSD`; None: in what `keep` made of it."""
        return self.attend(x_BTD, self._keys_and_values(memory_BSD, relation), relation)

    def attend(self, x_BTD: jax.Array, keys_values: KeysValues, relation: Relation) -> jax.Array:
        """[B, T, D]: what the queries made of `x_BTD` find among these keys and values, see `project`."""
        k_BSHK, v_BSHV = keys_values
        q_BTHK = self.relative.rotate(self.query_norm(self.query(x_BTD)), relation.q_positions_BT)
        heads_BTHV, weights_BHTS = attention(
            q_BTHK,
            k_BSHK,
            v_BSHV,
            self.reach(relation),
            scale=self.scale_factor,
            score=self.score_function,
            weights=self._weigh,
            relative_score=self.relative.score(q_BTHK, k_BSHK, relation.q_positions_BT, relation.k_positions_BS),
            bias=relation.bias_BHTS,
            dropout=self.weights_dropout,
        )
        for name, value in {"q": q_BTHK, "k": k_BSHK, "v": v_BSHV, "weights": weights_BHTS}.items():
            self.sow("intermediates", name, value)
        return self.out(self._scaled(heads_BTHV))

    def _weigh(self, logits_BHTS: jax.Array, mask_BHTS: jax.Array) -> jax.Array:
        self.sow("intermediates", "scores", logits_BHTS)
        return self.weights_function(logits_BHTS, mask_BHTS)

    def _scaled(self, heads_BTHV: jax.Array) -> jax.Array:
        """The heads times what a caller gives in the collection "heads", float32[H] or [B, H]: 0 leaves one out."""
        self.sow("intermediates", "heads", heads_BTHV)
        if not self.has_variable("heads", "factor"):
            return heads_BTHV
        factor: jax.Array = self.get_variable("heads", "factor")
        return heads_BTHV * factor[..., None, :, None].astype(heads_BTHV.dtype)

    def _keys_and_values(self, memory_BSD: jax.Array | None, relation: Relation) -> KeysValues:
        if memory_BSD is None:
            return _as_attended(self.get_variable("context", "keys_values"))
        if not self.has_variable("cache", "keys_values"):
            return self.project(memory_BSD, relation.k_positions_BS)
        kept = jax.tree.map(
            lambda old, new, axis: jax.lax.dynamic_update_slice_in_dim(
                old, new.astype(old.dtype), relation.first, axis
            ),
            self.get_variable("cache", "keys_values"),
            _as_kept(self.project(memory_BSD, relation.q_positions_BT)),
            AXES_OF_KEPT,
        )
        self.put_variable("cache", "keys_values", kept)
        return _as_attended(kept)

    def project(self, memory_BSD: jax.Array, positions_BS: jax.Array) -> KeysValues:
        """The keys and values of what is attended to."""
        k_BSHK = self.key_norm(self.key(memory_BSD))
        return self.relative.rotate(k_BSHK, positions_BS), self.value(memory_BSD)

    def keep(self, memory_BSD: jax.Array, positions_BS: jax.Array) -> None:
        """Projects what is attended to once, for all calls to come."""
        kept = _as_kept(self.project(memory_BSD, positions_BS))
        # Else the compiler puts them back in the order in which they were made, and transposes them at every token.
        self.put_variable("context", "keys_values", jax.lax.optimization_barrier(kept))

    def reserve(self, batch_size: int, length: int, dtype: Any) -> None:
        """Makes room for `length` keys and values of each row; a call writes its own from `Relation.first` on."""
        k_BSHK, v_BSHV = (jnp.zeros((batch_size, length, self.num_heads, n), dtype) for n in (self.d_k, self.d_v))
        self.put_variable("cache", "keys_values", _as_kept((k_BSHK, v_BSHV)))


AXES_OF_KEPT = (3, 2)
"""Where S stands in keys and values that are kept: [B, H, K, S] and [B, H, S, V], as attention multiplies them."""


def _as_kept(keys_values: KeysValues) -> KeysValues:
    k_BSHK, v_BSHV = keys_values
    return jnp.transpose(k_BSHK, (0, 2, 3, 1)), jnp.swapaxes(v_BSHV, 1, 2)


def _as_attended(kept: KeysValues) -> KeysValues:
    k_BHKS, v_BHSV = kept
    return jnp.transpose(k_BHKS, (0, 3, 1, 2)), jnp.swapaxes(v_BHSV, 1, 2)
