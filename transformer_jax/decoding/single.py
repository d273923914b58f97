"""The loop that greedy search and sampling share: one hypothesis per example."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from transformer_jax.decoding.logits import Cache, LogitsFn
from transformer_jax.decoding.search import Progress, Search, proceed


class Decoded(NamedTuple):
    """One hypothesis per example.

    tokens_BT: int32, without BOS; EOS included, unless the limit came first; PAD behind it.
    lengths_B: int32, tokens before the padding, EOS counted.
    log_probs_B: float32, log p(tokens | input) under the model.
    """

    tokens_BT: jax.Array
    lengths_B: jax.Array
    log_probs_B: jax.Array


class Single(NamedTuple):
    """What is kept of each example."""

    last_B: jax.Array
    decoded: Decoded
    done_B: jax.Array


Choose = Callable[[jax.Array, jax.Array, int], tuple[jax.Array, jax.Array]]
"""``(logits_BC, step, pad_id) -> (log_probs_B, tokens_B)``: the tokens chosen, and their log-probabilities."""


def decode_single(choose: Choose, logits_fn: LogitsFn, cache: Cache, search: Search) -> Decoded:
    """Extends each output by what is chosen until it ends or reaches its limit; stops as soon as all are done."""
    progress = Progress(jnp.int32(0), begin_single(search), cache)
    return proceed_single(choose, logits_fn, progress, search).found.decoded


def begin_single(search: Search) -> Single:
    """An empty output an example."""
    return Single(
        last_B=jnp.full(search.batch_size, search.ids.bos, jnp.int32),
        decoded=Decoded(
            tokens_BT=jnp.full((search.batch_size, search.max_length), search.ids.pad, jnp.int32),
            lengths_B=jnp.zeros(search.batch_size, jnp.int32),
            log_probs_B=jnp.zeros(search.batch_size, jnp.float32),
        ),
        done_B=search.limits_B <= 0,
    )


def proceed_single(
    choose: Choose, logits_fn: LogitsFn, progress: Progress, search: Search, until: jax.Array | None = None
) -> Progress:
    """The outputs from where they are, till all are done or `until` steps were made."""
    ids, limits_B = search.ids, jnp.minimum(search.limits_B, search.max_length)

    def advance(single: Single, cache: Cache, step: jax.Array) -> tuple[Single, Cache]:
        logits_BC, cache = logits_fn(single.last_B, cache)
        chosen_B, tokens_B = choose(logits_BC, step, ids.pad)
        tokens_B = jnp.where(single.done_B, ids.pad, tokens_B)
        tokens_BT, lengths_B, log_probs_B = single.decoded
        decoded = Decoded(
            tokens_BT=tokens_BT.at[:, step].set(tokens_B),
            lengths_B=lengths_B + ~single.done_B,
            log_probs_B=log_probs_B + jnp.where(single.done_B, 0.0, chosen_B),
        )
        done_B = single.done_B | (tokens_B == ids.eos) | (step + 1 >= limits_B)
        return Single(tokens_B, decoded, done_B), cache

    return proceed(advance, progress, until)
