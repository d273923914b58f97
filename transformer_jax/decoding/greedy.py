"""Greedy search: the most probable token at each step."""

import jax
import jax.numpy as jnp

from transformer_jax.decoding.logits import Cache, LogitsFn, best_continuations
from transformer_jax.decoding.search import Search
from transformer_jax.decoding.single import Decoded, decode_single


def greedy(logits_fn: LogitsFn, cache: Cache, search: Search) -> Decoded:
    """Takes the most probable token at each step (of equal ones the lowest id). For jit and vmap.

    Args:
      logits_fn: see `LogitsFn`.
      cache: its first cache, of B hypotheses.
      search: what is asked.
    """
    return decode_single(most_probable, logits_fn, cache, search)


def most_probable(logits_BC: jax.Array, step: jax.Array, pad_id: int) -> tuple[jax.Array, jax.Array]:
    """The token that greedy search chooses, at any step."""
    del step
    log_probs_B1, _, tokens_B1 = best_continuations(jnp.zeros((len(logits_BC), 1)), logits_BC[:, None], 1, pad_id)
    return log_probs_B1[:, 0], tokens_B1[:, 0]
