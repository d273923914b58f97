"""The loop that greedy search and sampling share: one hypothesis per example."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from transformer_jax.decoding.logits import Cache, LogitsFn, next_token_log_probs
from transformer_jax.decoding.search import Search


class Decoded(NamedTuple):
    """One hypothesis per example.

    tokens_BT: int32, without BOS; EOS included, unless the limit came first; PAD behind it.
    lengths_B: int32, tokens before the padding, EOS counted.
    log_probs_B: float32, log p(tokens | input) under the model.
    """

    tokens_BT: jax.Array
    lengths_B: jax.Array
    log_probs_B: jax.Array


class _State(NamedTuple):
    step: jax.Array
    last_B: jax.Array
    decoded: Decoded
    done_B: jax.Array
    cache: Cache


def decode_single(
    choose: Callable[[jax.Array, jax.Array], jax.Array],
    logits_fn: LogitsFn,
    cache: Cache,
    search: Search,
) -> Decoded:
    """Extends each output by ``choose(log_probs_BC, step) -> tokens_B`` until it ends or reaches its limit.

    Stops as soon as all are done.
    """
    max_length, ids = search.max_length, search.ids
    limits_B = jnp.minimum(search.limits_B, max_length)

    def body(state: _State) -> _State:
        logits_BC, cache = logits_fn(state.last_B, state.cache)
        log_probs_BC = next_token_log_probs(logits_BC, ids.pad)
        tokens_B = choose(log_probs_BC, state.step).astype(jnp.int32)
        chosen_B = jnp.take_along_axis(log_probs_BC, tokens_B[:, None], axis=1)[:, 0]
        tokens_B = jnp.where(state.done_B, ids.pad, tokens_B)
        tokens_BT, lengths_B, log_probs_B = state.decoded
        decoded = Decoded(
            tokens_BT=tokens_BT.at[:, state.step].set(tokens_B),
            lengths_B=lengths_B + ~state.done_B,
            log_probs_B=log_probs_B + jnp.where(state.done_B, 0.0, chosen_B),
        )
        step = state.step + 1
        done_B = state.done_B | (tokens_B == ids.eos) | (step >= limits_B)
        return _State(step, tokens_B, decoded, done_B, cache)

    start = _State(
        step=jnp.int32(0),
        last_B=jnp.full(search.batch_size, ids.bos, jnp.int32),
        decoded=Decoded(
            tokens_BT=jnp.full((search.batch_size, max_length), ids.pad, jnp.int32),
            lengths_B=jnp.zeros(search.batch_size, jnp.int32),
            log_probs_B=jnp.zeros(search.batch_size, jnp.float32),
        ),
        done_B=limits_B <= 0,
        cache=cache,
    )
    return lax.while_loop(lambda state: ~jnp.all(state.done_B), body, start).decoded
