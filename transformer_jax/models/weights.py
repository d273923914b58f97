"""From logits to attention weights (Eq. 1), float32[B, H, T, S]. A row that may attend to nothing is 0 everywhere."""

from collections.abc import Callable
from typing import Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

LOWEST = float(jnp.finfo(jnp.float32).min)


class Weights(Protocol):
    """An entry of WEIGHTS, made."""

    def __call__(self, logits_BHTS: jax.Array, mask_BHTS: jax.Array) -> jax.Array:
        """float32[B, H, T, S]: how much each query takes of each key; 0 where the mask is False."""


def softmax(logits_BHTS: jax.Array, mask_BHTS: jax.Array) -> jax.Array:
    """exp(l_s) / sum_s exp(l_s) over the allowed keys (Eq. 1)."""
    masked = jnp.where(mask_BHTS, logits_BHTS, jnp.finfo(logits_BHTS.dtype).min)
    return jnp.where(mask_BHTS, jax.nn.softmax(masked, axis=-1), 0.0)


def sigmoid(logits_BHTS: jax.Array, mask_BHTS: jax.Array) -> jax.Array:
    """sigmoid(l_s - log n), n the number of allowed keys (Ramapuram et al. 2024): no competition between keys."""
    allowed = jnp.sum(mask_BHTS, axis=-1, keepdims=True)
    return jnp.where(mask_BHTS, jax.nn.sigmoid(logits_BHTS - jnp.log(jnp.maximum(allowed, 1))), 0.0)


def sparsemax(logits_BHTS: jax.Array, mask_BHTS: jax.Array) -> jax.Array:
    """The Euclidean projection of the logits onto the simplex (Martins and Astudillo 2016, Algorithm 1)."""
    # Only differences count, and those that are larger than 1 do not: near 0 logits of any size keep their precision.
    # Masked keys lie far below the threshold but stay finite: their gradient is an exact 0, not a NaN.
    largest = jnp.max(jnp.where(mask_BHTS, logits_BHTS, -jnp.inf), axis=-1, keepdims=True, initial=LOWEST)
    below = logits_BHTS - jax.lax.stop_gradient(largest)
    masked = jnp.where(mask_BHTS, jnp.maximum(below, -2.0), -2.0)
    descending = -jnp.sort(-masked, axis=-1)
    rank = jnp.arange(1, masked.shape[-1] + 1)
    in_support = 1 + rank * descending > jnp.cumsum(descending, axis=-1)
    size = jnp.sum(in_support, axis=-1, keepdims=True)
    threshold = (jnp.sum(jnp.where(in_support, descending, 0.0), axis=-1, keepdims=True) - 1) / size
    return jnp.where(mask_BHTS, jnp.maximum(masked - threshold, 0.0), 0.0)


def softmax_off_by_one(logits_BHTS: jax.Array, mask_BHTS: jax.Array) -> jax.Array:
    """exp(l_s) / (1 + sum_s exp(l_s)): a zero logit beside the keys lets a head attend to nothing (Miller 2023)."""
    masked = jnp.where(mask_BHTS, logits_BHTS, jnp.finfo(logits_BHTS.dtype).min)
    padding = [(0, 0)] * (masked.ndim - 1) + [(0, 1)]
    return jnp.where(mask_BHTS, jax.nn.softmax(jnp.pad(masked, padding), axis=-1)[..., :-1], 0.0)


def uniform(logits_BHTS: jax.Array, mask_BHTS: jax.Array) -> jax.Array:
    """1 / n over the n allowed keys, whatever they hold."""
    allowed = jnp.sum(mask_BHTS, axis=-1, keepdims=True)
    weights = mask_BHTS / jnp.maximum(allowed, 1).astype(logits_BHTS.dtype)
    return jnp.broadcast_to(weights, logits_BHTS.shape)


def proportional(logits_BHTS: jax.Array, mask_BHTS: jax.Array) -> jax.Array:
    """max(l_s, 0) / sum_s max(l_s, 0) over the allowed keys. Any scale cancels.

    With the score "elu" it is linear attention (Katharopoulos et al. 2020), which leaves out the exponential; computed
    as all others are, with a cost of T S.
    """
    positive = jnp.where(mask_BHTS, jax.nn.relu(logits_BHTS), 0.0)
    largest = jax.lax.stop_gradient(jnp.max(positive, axis=-1, keepdims=True, initial=0.0))
    shares = positive / jnp.where(largest > 0, largest, 1.0)  # it cancels; without it the sum may overflow
    total = jnp.sum(shares, axis=-1, keepdims=True)
    return shares / jnp.where(total > 0, total, 1.0)


class TalkingHeads(nn.Module):
    """Heads mix before the softmax and after it, by an H x H matrix each (Shazeer et al. 2020).

    Both matrices start as the identity, where the heads do not talk.
    """

    @nn.compact
    def __call__(self, logits_BHTS: jax.Array, mask_BHTS: jax.Array) -> jax.Array:
        weights_BHTS = softmax(self._mix("logits", logits_BHTS), mask_BHTS)
        return self._mix("weights", weights_BHTS)

    def _mix(self, name: str, x_BHTS: jax.Array) -> jax.Array:
        num_heads = x_BHTS.shape[1]
        kernel_HG = self.param(name, lambda key, shape: jnp.eye(*shape), (num_heads, num_heads))
        return jnp.einsum("BHTS,HG->BGTS", x_BHTS, kernel_HG)


WEIGHTS: dict[str, Callable[[], Weights]] = {
    "softmax": lambda: softmax,
    "sigmoid": lambda: sigmoid,
    "sparsemax": lambda: sparsemax,
    "softmax_off_by_one": lambda: softmax_off_by_one,
    "uniform": lambda: uniform,
    "proportional": lambda: proportional,
    "talking_heads": TalkingHeads,
}
