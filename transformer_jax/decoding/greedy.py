"""Greedy search: the most probable token at each step."""

import jax

from transformer_jax.decoding.logits import Cache, LogitsFn, largest
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


def most_probable(log_probs_BC: jax.Array, step: jax.Array) -> jax.Array:
    """The token that greedy search chooses, at any step."""
    del step
    return largest(log_probs_BC, 1)[1][:, 0]
