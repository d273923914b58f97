"""Embeddings and softmax (Section 3.4). B batch, T positions, D d_model, C vocabulary."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class Embedding(nn.Module):
    """A table N(0, 1 / d_model) that embeds tokens and, where it is shared with the softmax, gives their logits."""

    vocab_size: int
    d_model: int
    scale: float
    dtype: Any = jnp.float32

    def setup(self) -> None:
        normal = nn.initializers.normal(self.d_model**-0.5)
        self.embedding = self.param("embedding", normal, (self.vocab_size, self.d_model))

    def __call__(self, tokens_BT: jax.Array) -> jax.Array:
        """[B, T, D]: the rows of the tokens times `scale`, sqrt(d_model) in the paper."""
        return jnp.take(self.embedding, tokens_BT, axis=0).astype(self.dtype) * self.scale

    def logits(self, x_BTD: jax.Array) -> jax.Array:
        """float32[B, T, C]: the pre-softmax linear transformation."""
        table_CD = self.embedding.astype(self.dtype)
        return jnp.einsum("BTD,CD->BTC", x_BTD, table_CD, preferred_element_type=jnp.float32)


class OutputBias(nn.Module):
    """A bias on the logits; the paper has none."""

    @nn.compact
    def __call__(self, logits_BTC: jax.Array) -> jax.Array:
        return logits_BTC + self.param("bias", nn.initializers.zeros, (logits_BTC.shape[-1],))


class NoOutputBias(nn.Module):
    """The paper's: the logits as they are."""

    def __call__(self, logits_BTC: jax.Array) -> jax.Array:
        return logits_BTC
