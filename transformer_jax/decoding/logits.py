"""What decoding asks of a model: one function from the last tokens to the next logits."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Cache = Any
"""Any pytree. Leaves of two or more axes are [layer, hypothesis, ...]; scalar leaves (the step) are shared by all."""

LogitsFn = Callable[[jax.Array, Cache], tuple[jax.Array, Cache]]
"""``(tokens_B: int32, cache) -> (logits_BC: float, cache)``; tokens are those chosen at the step before, BOS at first.

What all hypotheses of an example have in common (encoder output, keys and values of cross-attention) is closed over and
stays out of the cache, so that beam search does not copy it at each step.
"""


def next_token_log_probs(logits_BC: jax.Array, pad_id: int) -> jax.Array:
    """log softmax in float32, with -inf for PAD, float32[B, C].

    PAD fills the output behind the end of a sentence, so it must never be a prediction; the others are not renormalised
    (label smoothing gives PAD a little mass in training). To forbid more, give those logits -inf in the `LogitsFn`.
    """
    log_probs_BC = jax.nn.log_softmax(logits_BC.astype(jnp.float32), axis=-1)
    return jnp.where(jnp.arange(logits_BC.shape[-1]) == pad_id, -jnp.inf, log_probs_BC)
