"""What every search for tokens is asked, whatever its strategy. B examples."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from transformer_jax.decoding.logits import Cache


class Ids(NamedTuple):
    """The special ids.

    bos: the first input of the decoder. eos: ends a hypothesis. pad: fills the output; never predicted.
    """

    bos: int
    eos: int
    pad: int


class Search(NamedTuple):
    """The outputs to be found.

    limits_B: int32, the most tokens each output may have, EOS counted (the paper: input + 50); 0: none.
    max_length: T, the static length of the outputs; no limit reaches beyond it.
    ids: the special ids.
    """

    limits_B: jax.Array
    max_length: int
    ids: Ids

    @property
    def batch_size(self) -> int:
        """B."""
        return self.limits_B.shape[0]


class Progress(NamedTuple):
    """A search between two of its steps.

    step: int32, how many were made.
    found: what the strategy keeps, arrays [example, ...]; its `done_B` tells of which nothing is left to find.
    cache: the model's.
    """

    step: jax.Array
    found: Any
    cache: Cache


def proceed(
    advance: Callable[[Any, Cache, jax.Array], tuple[Any, Cache]], progress: Progress, until: jax.Array | None = None
) -> Progress:
    """Steps ``advance(found, cache, step) -> (found, cache)`` till all examples are done, or `until` were made."""

    def is_left(progress: Progress) -> jax.Array:
        left = ~jnp.all(progress.found.done_B)
        return left if until is None else left & (progress.step < until)

    def body(progress: Progress) -> Progress:
        step, found, cache = progress
        return Progress(step + 1, *advance(found, cache, step))

    return lax.while_loop(is_left, body, progress)
