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


def best_continuations(
    log_probs_BK: jax.Array, logits_BKC: jax.Array, count: int, pad_id: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The `count` most probable of all hypotheses that continue those of an example by one token, best first.

    At first only the largest logit of each block of tokens is compared: the `count` best are in the `count` blocks
    whose best are best. Of equals the first is taken, by block and place.

    Args:
      log_probs_BK: of the hypotheses so far; -inf for one that does not exist.
      logits_BKC: of their next tokens.
      count: J, at most K (C - 1).
      pad_id: PAD is never a continuation, see `next_token_log_probs`.

    Returns:
      float32[B, J] log-probabilities, int32[B, J] the hypotheses that are continued, int32[B, J] their new tokens.
    """
    logits_BKC = logits_BKC.astype(jnp.float32)
    batch_size, beam_size, vocab_size = logits_BKC.shape
    size = BLOCK if beam_size * (vocab_size // BLOCK) >= count else 1
    blocks_BKGI = jnp.pad(logits_BKC, ((0, 0), (0, 0), (0, -vocab_size % size)), constant_values=-jnp.inf).reshape(
        batch_size, beam_size, -1, size
    )
    best_BKG = jnp.max(blocks_BKGI, axis=-1)
    most_BK1 = jnp.max(best_BKG, axis=-1, keepdims=True)
    rest_BK1 = jnp.log(jnp.sum(jnp.exp(logits_BKC - most_BK1), axis=-1, keepdims=True))
    block, place = divmod(pad_id, size)
    without_pad_BK = jnp.max(jnp.where(jnp.arange(size) == place, -jnp.inf, blocks_BKGI[:, :, block]), axis=-1)
    best_BKG = best_BKG.at[:, :, block].set(without_pad_BK)

    number = best_BKG.shape[-1]
    continued_BKG = log_probs_BK[:, :, None] + (best_BKG - most_BK1 - rest_BK1)
    _, flat_BJ = lax.top_k(continued_BKG.reshape(batch_size, -1), count)
    found_BJI = take(blocks_BKGI.reshape(batch_size, -1, size), flat_BJ)
    parents_BJ, tokens_BJI = flat_BJ // number, (flat_BJ % number)[:, :, None] * size + jnp.arange(size)
    found_BJI = jnp.where(tokens_BJI == pad_id, -jnp.inf, found_BJI)
    found_BJI = found_BJI - take(most_BK1, parents_BJ) - take(rest_BK1, parents_BJ)
    continued_BJI = take(log_probs_BK, parents_BJ)[:, :, None] + found_BJI
    best_BJ, places_BJ = lax.top_k(continued_BJI.reshape(batch_size, -1), count)
    return best_BJ, take(parents_BJ, places_BJ // size), take(tokens_BJI.reshape(batch_size, -1), places_BJ)


def take(x_BJ: jax.Array, index_BK: jax.Array) -> jax.Array:
    """x[b, index[b, k]] with any further axes; batched, so that a batch sharded over devices needs no exchange."""
    return jax.vmap(lambda x_J, index_K: x_J[index_K])(x_BJ, index_BK)
