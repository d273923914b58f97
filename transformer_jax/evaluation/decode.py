"""The one path from sources to decoded tokens: validation, `evaluate` and `translate` all take it (Section 6.1)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.config import Config
from transformer_jax.data import BOS, EOS, PAD
from transformer_jax.decoding import LogitsFn, NBest, beam_search, greedy, sample
from transformer_jax.errors import UserError
from transformer_jax.models.build import build_model, start_cache
from transformer_jax.models.masks import segments_of
from transformer_jax.registry import resolve

IDS = {"bos_id": BOS, "eos_id": EOS, "pad_id": PAD}
Search = Callable[..., NBest]


def _beam(config: Config, num_results: int) -> tuple[int, Search]:
    """Section 6.1: beam search with length penalty."""
    beam_size = config.decode.beam_size

    def search(logits_fn: LogitsFn, cache: Any, rows_B: jax.Array | None, **call: Any) -> NBest:
        return beam_search(
            logits_fn, cache, beam_size=beam_size, alpha=config.decode.alpha, num_results=num_results, **call
        )

    return beam_size, search


def _one(decoded: Any) -> NBest:
    return NBest(
        decoded.tokens_BT[:, None],
        decoded.log_probs_B[:, None],
        decoded.log_probs_B[:, None],
        decoded.lengths_B[:, None],
    )


def _greedy(config: Config, num_results: int) -> tuple[int, Search]:
    """The most probable token at each step."""
    return 1, lambda logits_fn, cache, rows_B, **call: _one(greedy(logits_fn, cache, **call))


def _sample(config: Config, num_results: int, *, temperature: float = 1.0, top_k: int = 0) -> tuple[int, Search]:
    """Tokens drawn from the model, the same for the same `seed` and place in the split; `top_k` 0: among all."""
    if temperature <= 0 or top_k < 0:
        raise UserError(
            f"decode.strategy = {config.decode.strategy!r}: temperature must be above 0 and top_k at least 0."
        )

    def search(logits_fn: LogitsFn, cache: Any, rows_B: jax.Array | None, **call: Any) -> NBest:
        key = jax.random.key(config.seed)
        options = {"temperature": temperature, "top_k": top_k or None, **call}
        return _one(sample(logits_fn, cache, key=key, rows_B=rows_B, **options))

    return 1, search


STRATEGIES: dict[str, Callable[..., tuple[int, Search]]] = {"beam": _beam, "greedy": _greedy, "sample": _sample}


def build_decode(config: Config, num_results: int = 1) -> Callable[[Any, Mapping[str, jax.Array]], NBest]:
    """(params, batch) -> the `num_results` best outputs of every source of the batch.

    The output may be `decode.max_extra_length` tokens longer than its source, both with EOS; rows without a source stay
    empty. "row" of the batch is the place of each source in its split, on which samples depend; without it, that in the
    batch.
    """
    strategy = resolve(STRATEGIES, config.decode.strategy, "decode.strategy")
    width, search = strategy(config, num_results)
    model = build_model(config.model)

    def decode(params: Any, batch: Mapping[str, jax.Array]) -> NBest:
        inputs_BS = batch["inputs"]
        rows, source_width = inputs_BS.shape
        lengths_B = jnp.sum(inputs_BS != PAD, axis=-1)
        max_length = source_width + config.decode.max_extra_length
        memory = model.apply({"params": params}, inputs_BS, deterministic=True, method="encode")
        memory = jax.tree.map(lambda a: jnp.repeat(a, width, axis=1), memory)
        segments = jnp.repeat(segments_of(inputs_BS, PAD), width, axis=0)

        def logits_fn(tokens_B: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
            logits_B1C, cache = model.apply(
                {"params": params},
                tokens_B[:, None],
                memory,
                segments,
                cache=cache,
                deterministic=True,
                method="decode",
            )
            return logits_B1C[:, 0], cache

        return search(
            logits_fn,
            start_cache(config.model, rows * width, max_length),
            batch.get("row"),
            batch_size=rows,
            max_length=max_length,
            limits_B=jnp.where(lengths_B > 0, lengths_B + config.decode.max_extra_length, 0),
            **IDS,
        )

    return decode


def check(config: Config) -> None:
    """Refuses strategies that do not exist, and their options.

    Raises:
      UserError: naming the field, what was found and what is allowed.
    """
    resolve(STRATEGIES, config.decode.strategy, "decode.strategy")(config, 1)
    beam_size, vocab_size = config.decode.beam_size, config.model.vocab_size
    if config.decode.strategy == "beam" and vocab_size is not None and beam_size > vocab_size:
        raise UserError(f"decode.beam_size = {beam_size} is wider than the vocabulary of {vocab_size}.")
