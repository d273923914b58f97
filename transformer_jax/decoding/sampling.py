"""Ancestral sampling."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from transformer_jax.decoding.logits import Cache, LogitsFn
from transformer_jax.decoding.single import Decoded, decode_single


def sample(
    logits_fn: LogitsFn,
    cache: Cache,
    *,
    batch_size: int,
    max_length: int,
    limits_B: jax.Array,
    bos_id: int,
    eos_id: int,
    pad_id: int,
    key: jax.Array,
    rows_B: jax.Array | None = None,
    temperature: float | jax.Array = 1.0,
    top_k: int | None = None,
) -> Decoded:
    """Draws each token from softmax(logits / temperature), PAD excepted. For jit and vmap.

    `log_probs_B` is the model's own log-probability of what was drawn, at temperature 1 and without `top_k`.

    Args:
      key: the draw of row r at step t uses ``fold_in(fold_in(key, r), t)``.
      rows_B: int32, the r of each row: what a row draws depends neither on its batch nor on its place
        there. None: from 0 on.
      temperature: above 0; may be traced.
      top_k: draw among the `top_k` most probable tokens only; None: among all. 1 is greedy search.
      logits_fn, cache, batch_size, max_length, limits_B, bos_id, eos_id, pad_id: as in `greedy`.
    """

    rows_B = jnp.arange(batch_size) if rows_B is None else rows_B
    keys_B = jax.vmap(functools.partial(jax.random.fold_in, key))(rows_B)

    def draw(log_probs_BC: jax.Array, step: jax.Array) -> jax.Array:
        vocab_size = log_probs_BC.shape[-1]
        count = vocab_size if top_k is None else min(top_k, vocab_size)
        best_BJ, tokens_BJ = lax.top_k(log_probs_BC, count)
        step_keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, step)
        drawn_B = jax.vmap(jax.random.categorical)(step_keys_B, best_BJ / temperature)
        return jnp.take_along_axis(tokens_BJ, drawn_B[:, None], axis=1)[:, 0]

    return decode_single(
        draw,
        logits_fn,
        cache,
        batch_size=batch_size,
        max_length=max_length,
        limits_B=limits_B,
        bos_id=bos_id,
        eos_id=eos_id,
        pad_id=pad_id,
    )
