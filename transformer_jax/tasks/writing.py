"""Token by token: from a model that can write to the outputs that `decode` asks for (Section 6.1).

B examples, T tokens of an output.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.config import Config
from transformer_jax.data import Examples, TokenizerPair
from transformer_jax.decoding import Ids, LogitsFn, NBest, Search, beam_search, greedy, sample
from transformer_jax.errors import UserError
from transformer_jax.models.model import Model, Params
from transformer_jax.models.tokens import Batch
from transformer_jax.registry import resolve
from transformer_jax.vocabulary import BOS, EOS, PAD

UNFINISHED = "unfinished"  # among the metrics of what was written
IDS = Ids(BOS, EOS, PAD)
Strategy = Callable[[LogitsFn, Any, Search, jax.Array | None], NBest]
"""(logits_fn, cache, search, examples_B) -> the best outputs."""


def _beam(config: Config, num_results: int) -> tuple[int, Strategy]:
    """Section 6.1: beam search with length penalty."""
    beam_size = config.decode.beam_size

    def strategy(logits_fn: LogitsFn, cache: Any, search: Search, examples_B: jax.Array | None) -> NBest:
        alpha = config.decode.alpha
        return beam_search(logits_fn, cache, search, beam_size=beam_size, alpha=alpha, num_results=num_results)

    return beam_size, strategy


def _greedy(config: Config, num_results: int) -> tuple[int, Strategy]:
    """The most probable token at each step."""
    return 1, lambda logits_fn, cache, search, examples_B: _one(greedy(logits_fn, cache, search))


def _sample(
    config: Config, num_results: int, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> tuple[int, Strategy]:
    """Tokens drawn from the model, the same for the same `seed` and place in the split; `top_k` 0: among all."""
    if temperature <= 0 or top_k < 0 or not 0 < top_p <= 1:
        raise UserError(
            f"decode.strategy = {config.decode.strategy!r}: temperature must be above 0, top_k at least 0, and top_p "
            "above 0 and at most 1."
        )

    def strategy(logits_fn: LogitsFn, cache: Any, search: Search, examples_B: jax.Array | None) -> NBest:
        draw = functools.partial(
            sample, temperature=temperature, top_k=top_k or None, top_p=top_p if top_p < 1 else None
        )
        return _one(draw(logits_fn, cache, search, key=jax.random.key(config.seed), examples_B=examples_B))

    return 1, strategy


def _one(decoded: Any) -> NBest:
    return NBest(
        decoded.tokens_BT[:, None],
        decoded.log_probs_B[:, None],
        decoded.log_probs_B[:, None],
        decoded.lengths_B[:, None],
    )


STRATEGIES: dict[str, Callable[..., tuple[int, Strategy]]] = {"beam": _beam, "greedy": _greedy, "sample": _sample}


def strategy_of(config: Config, num_results: int = 1) -> tuple[int, Strategy]:
    """How many hypotheses of an example are followed at a time, and the search for its outputs."""
    return resolve(STRATEGIES, config.decode.strategy, "decode.strategy")(config, num_results)


def write(config: Config, model: Model, params: Params, batch: Batch, num_results: int = 1) -> NBest:
    """The `num_results` best outputs for every example of the batch.

    An output may be `decode.max_extra_length` tokens longer than the "inputs" of its example, both with EOS. Where
    these hold no word, nothing is written: a model has seen no such sentence in training, and would make one up.
    "example" of the batch is the place of each in its split, on which samples depend; without it, that in the batch.
    """
    width, strategy = strategy_of(config, num_results)
    lengths_B = jnp.sum(batch["inputs"] != PAD, axis=-1)
    max_length = batch["inputs"].shape[1] + config.decode.max_extra_length
    context, cache = model.start(params, batch, width, max_length)
    limits_B = jnp.where(lengths_B > 1, lengths_B + config.decode.max_extra_length, 0)
    return strategy(
        lambda tokens_B, cache: model.step(params, tokens_B, context, cache),
        cache,
        Search(limits_B, max_length, IDS),
        batch.get("example"),
    )


def best_texts(predicted: Mapping[str, Any], assets: TokenizerPair) -> list[str]:
    """The best output of each example as text, from the arrays of an `NBest`."""
    return [assets.target.decode(tokens_NT[0].tolist()) for tokens_NT in predicted["tokens_BNT"]]


def count_unfinished(predicted: Mapping[str, Any]) -> int:
    """How many of the best outputs do not end in EOS: they were cut off at their limit, unless nothing was asked."""
    best_BT = predicted["tokens_BNT"][:, 0]
    return int(np.sum(np.any(best_BT != PAD, axis=-1) & ~np.any(best_BT == EOS, axis=-1)))


def what_was_cut_off(name: str, metrics: Mapping[str, Any], split: Examples, config: Config) -> list[str]:
    """A sentence on the outputs of a split that do not end by themselves, where there are any."""
    if not metrics.get(UNFINISHED):
        return []
    limit = f"decode.max_extra_length = {config.decode.max_extra_length} tokens more than the input"
    return [f"{metrics[UNFINISHED]:,} of {len(split):,} outputs of {name} cut off: they had not ended at {limit}."]


def check(config: Config) -> None:
    """Refuses strategies that do not exist, and their options.

    Raises:
      UserError: naming the field, what was found and what is allowed.
    """
    strategy_of(config)
    beam_size, vocab_size = config.decode.beam_size, config.model.vocab_size
    if config.decode.strategy == "beam" and vocab_size is not None and beam_size > vocab_size:
        raise UserError(f"decode.beam_size = {beam_size} is wider than the vocabulary of {vocab_size}.")
