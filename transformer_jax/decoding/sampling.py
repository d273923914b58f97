"""Ancestral sampling."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from transformer_jax.decoding.logits import Cache, LogitsFn, next_token_log_probs, take
from transformer_jax.decoding.search import Search
from transformer_jax.decoding.single import Choose, Decoded, decode_single


def sample(
    logits_fn: LogitsFn,
    cache: Cache,
    search: Search,
    *,
    key: jax.Array,
    examples_B: jax.Array | None = None,
    temperature: float | jax.Array = 1.0,
    top_k: int | None = None,
    top_p: float | jax.Array | None = None,
) -> Decoded:
    """Draws each token from softmax(logits / temperature), PAD excepted. For jit and vmap.

    `log_probs_B` is the model's own log-probability of what was drawn, at temperature 1, whatever was left out.

    Args:
      key: the draw of example n at step t uses ``fold_in(fold_in(key, n), t)``.
      examples_B: int32, the n of each: what is drawn for an example depends neither on its batch nor on its place
        there. None: from 0 on.
      temperature: above 0; may be traced.
      top_k: draw among the `top_k` most probable tokens only; None: among all. 1 is greedy search.
      top_p: and of these among the fewest that together have at least this probability, at that temperature (nucleus
        sampling, Holtzman et al. 2020); None: among all. May be traced.
      logits_fn, cache, search: as in `greedy`.
    """
    examples_B = jnp.arange(search.batch_size) if examples_B is None else examples_B
    return decode_single(drawing(key, examples_B, temperature, top_k, top_p), logits_fn, cache, search)


def drawing(
    key: jax.Array,
    examples_B: jax.Array,
    temperature: float | jax.Array = 1.0,
    top_k: int | None = None,
    top_p: float | jax.Array | None = None,
) -> Choose:
    """What chooses the tokens of `sample`."""
    keys_B = jax.vmap(functools.partial(jax.random.fold_in, key))(examples_B)

    def draw(logits_BC: jax.Array, step: jax.Array, pad_id: int) -> tuple[jax.Array, jax.Array]:
        log_probs_BC = next_token_log_probs(logits_BC, pad_id)
        vocab_size = log_probs_BC.shape[-1]
        count = vocab_size if top_k is None else min(top_k, vocab_size)
        best_BJ, tokens_BJ = lax.top_k(log_probs_BC, count)
        step_keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, step)
        scaled_BJ = best_BJ / temperature
        kept_BJ = scaled_BJ if top_p is None else _nucleus(scaled_BJ, top_p)
        drawn_B1 = jax.vmap(jax.random.categorical)(step_keys_B, kept_BJ)[:, None]
        return take(best_BJ, drawn_B1)[:, 0], take(tokens_BJ, drawn_B1)[:, 0]

    return draw


def _nucleus(logits_BJ: jax.Array, top_p: float | jax.Array) -> jax.Array:
    """Descending logits, with -inf for those that are not needed for a mass of `top_p`; the first always is."""
    probabilities_BJ = jax.nn.softmax(logits_BJ, axis=-1)
    before_BJ = jnp.cumsum(probabilities_BJ, axis=-1) - probabilities_BJ
    return jnp.where(before_BJ < top_p, logits_BJ, -jnp.inf)
