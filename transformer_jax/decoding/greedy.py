"""Greedy search: the most probable token at each step."""

import jax
import jax.numpy as jnp

from transformer_jax.decoding.logits import Cache, LogitsFn
from transformer_jax.decoding.single import Decoded, decode_single


def greedy(
    logits_fn: LogitsFn,
    cache: Cache,
    *,
    batch_size: int,
    max_length: int,
    limits_B: jax.Array,
    bos_id: int,
    eos_id: int,
    pad_id: int,
) -> Decoded:
    """Takes the most probable token at each step (of equal ones the lowest id). For jit and vmap.

    Args:
      logits_fn: see `LogitsFn`.
      cache: its first cache, of `batch_size` rows.
      batch_size: B.
      max_length: T, the static length of the output.
      limits_B: int32, the most tokens each row may get, EOS counted (the paper: input length + 50); 0 leaves it empty.
      bos_id: first input of the decoder.
      eos_id: ends a hypothesis.
      pad_id: fills the output; never predicted.
    """

    def most_probable(log_probs_BC: jax.Array, step: jax.Array) -> jax.Array:
        del step
        return jnp.argmax(log_probs_BC, axis=-1)

    return decode_single(
        most_probable,
        logits_fn,
        cache,
        batch_size=batch_size,
        max_length=max_length,
        limits_B=limits_B,
        bos_id=bos_id,
        eos_id=eos_id,
        pad_id=pad_id,
    )
