"""Ancestral sampling."""

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
    temperature: float | jax.Array = 1.0,
    top_k: int | None = None,
) -> Decoded:
    """Draws each token from softmax(logits / temperature), PAD excepted. For jit and vmap.

    `log_probs_B` is the model's own log-probability of what was drawn, at temperature 1 and without `top_k`.

    Args:
      key: the draw at step t uses ``fold_in(key, t)``.
      temperature: above 0; may be traced.
      top_k: draw among the `top_k` most probable tokens only; None: among all. 1 is greedy search.
      logits_fn, cache, batch_size, max_length, limits_B, bos_id, eos_id, pad_id: as in `greedy`.
    """

    def draw(log_probs_BC: jax.Array, step: jax.Array) -> jax.Array:
        vocab_size = log_probs_BC.shape[-1]
        count = vocab_size if top_k is None else min(top_k, vocab_size)
        best_BJ, tokens_BJ = lax.top_k(log_probs_BC, count)
        drawn_B = jax.random.categorical(jax.random.fold_in(key, step), best_BJ / temperature, axis=-1)
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
