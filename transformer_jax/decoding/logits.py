"""What decoding asks of a model: one function from the last tokens to the next logits."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Cache = Any
"""Any pytree. Its leaves are [hypothesis, ...]; or [example, ...], where the hypotheses of an example share what lies
there; or scalars (the step), shared by all."""

LogitsFn = Callable[[jax.Array, Cache], tuple[jax.Array, Cache]]
"""``(tokens_B: int32, cache) -> (logits_BC: float, cache)``; tokens are those chosen at the step before, BOS at first.

What all hypotheses of an example have in common (encoder output, keys and values of cross-attention) is closed over and
stays out of the cache, so that beam search does not copy it at each step.
"""

BLOCK = 16
"""Tokens of which at first only the best is looked at."""


def next_token_log_probs(logits_BC: jax.Array, pad_id: int) -> jax.Array:
    """log softmax in float32, with -inf for PAD, float32[B, C].

    PAD fills the output behind the end of a sentence, so it must never be a prediction; the others are not renormalised
    (label smoothing gives PAD a little mass in training). To forbid more, give those logits -inf in the `LogitsFn`.
    """
    log_probs_BC = jax.nn.log_softmax(logits_BC.astype(jnp.float32), axis=-1)
    return jnp.where(jnp.arange(logits_BC.shape[-1]) == pad_id, -jnp.inf, log_probs_BC)


def best_next_tokens(logits_NC: jax.Array, count: int, pad_id: int) -> tuple[jax.Array, jax.Array]:
    """The `count` most probable tokens after each hypothesis, best first: their `next_token_log_probs`, and they."""
    logits_NC = logits_NC.astype(jnp.float32)
    best_NJ, tokens_NJ = largest(jnp.where(jnp.arange(logits_NC.shape[-1]) == pad_id, -jnp.inf, logits_NC), count)
    most_N1 = jnp.max(logits_NC, axis=-1, keepdims=True)
    return best_NJ - most_N1 - jnp.log(jnp.sum(jnp.exp(logits_NC - most_N1), axis=-1, keepdims=True)), tokens_NJ


def largest(x_NC: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """`lax.top_k`, faster for a large C: the `count` largest are among the `count` blocks whose largest are largest.

    Which of several equal values comes first is the first block's choice; of one (`count` 1) it is the lowest index.
    """
    rows, size = x_NC.shape
    if size < 2 * BLOCK * count:
        return lax.top_k(x_NC, count)
    padded = jnp.pad(x_NC, ((0, 0), (0, -size % BLOCK)), constant_values=-jnp.inf).reshape(rows, -1, BLOCK)
    _, blocks_NJ = lax.top_k(jnp.max(padded, axis=-1), count)
    found = jnp.take_along_axis(padded, blocks_NJ[:, :, None], axis=1).reshape(rows, -1)
    best_NJ, places_NJ = lax.top_k(found, count)
    return best_NJ, jnp.take_along_axis(blocks_NJ, places_NJ // BLOCK, axis=1) * BLOCK + places_NJ % BLOCK
