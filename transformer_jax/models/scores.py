"""How a query and a key are compared (Eq. 1).

Scores are float32[B, H, T, S]. B batch, T query positions, S key positions, H heads, K d_k.
"""

from collections.abc import Callable
from typing import Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp


def dot(q_BTHK: jax.Array, k_BSHK: jax.Array) -> jax.Array:
    """q . k (Eq. 1)."""
    return jnp.einsum("BTHK,BSHK->BHTS", q_BTHK, k_BSHK, preferred_element_type=jnp.float32)


class Score(Protocol):
    """An entry of SCORES, made: it compares each query with each key."""

    def __call__(self, q_BTHK: jax.Array, k_BSHK: jax.Array) -> jax.Array:
        """float32[B, H, T, S]."""


class DotScore(nn.Module):
    """q . k (Eq. 1)."""

    def __call__(self, q_BTHK: jax.Array, k_BSHK: jax.Array) -> jax.Array:
        return dot(q_BTHK, k_BSHK)


class BilinearScore(nn.Module):
    """q^T W k with a W per head (Luong et al. 2015, "general")."""

    @nn.compact
    def __call__(self, q_BTHK: jax.Array, k_BSHK: jax.Array) -> jax.Array:
        num_heads, d_k = q_BTHK.shape[-2:]
        kernel = nn.initializers.xavier_uniform(batch_axis=0)
        kernel_HKL = self.param("kernel", kernel, (num_heads, d_k, d_k)).astype(q_BTHK.dtype)
        return dot(jnp.einsum("BTHK,HKL->BTHL", q_BTHK, kernel_HKL), k_BSHK)


class AdditiveScore(nn.Module):
    """v^T tanh(q + k), v per head (Bahdanau et al. 2015; W_Q and W_K are the paper's projections)."""

    @nn.compact
    def __call__(self, q_BTHK: jax.Array, k_BSHK: jax.Array) -> jax.Array:
        num_heads, d_k = q_BTHK.shape[-2:]
        v_HK = self.param("v", nn.initializers.normal(1.0), (num_heads, d_k)).astype(q_BTHK.dtype)
        hidden_BTSHK = jnp.tanh(q_BTHK[:, :, None] + k_BSHK[:, None])
        return jnp.einsum("BTSHK,HK->BHTS", hidden_BTSHK, v_HK, preferred_element_type=jnp.float32)


class CosineScore(nn.Module):
    """d_k cos(q, k): at the paper's scale the logit spans +-sqrt(d_k) (cosine attention, e.g. Henry et al. 2020)."""

    @nn.compact
    def __call__(self, q_BTHK: jax.Array, k_BSHK: jax.Array) -> jax.Array:
        return q_BTHK.shape[-1] * dot(_unit(q_BTHK), _unit(k_BSHK))


class EluScore(nn.Module):
    """phi(q) . phi(k) with phi(x) = elu(x) + 1, above 0: the kernel of linear attention (Katharopoulos et al. 2020)."""

    def __call__(self, q_BTHK: jax.Array, k_BSHK: jax.Array) -> jax.Array:
        return dot(nn.elu(q_BTHK) + 1, nn.elu(k_BSHK) + 1)


def _unit(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x.astype(jnp.float32)), -1, keepdims=True) + 1e-6).astype(x.dtype)


SCORES: dict[str, Callable[..., Score]] = {
    "dot": DotScore,
    "bilinear": BilinearScore,
    "additive": AdditiveScore,
    "cosine": CosineScore,
    "elu": EluScore,
}
