"""Token by token: from a model that can write to the outputs that `decode` asks for (Section 6.1).

B examples, T tokens of an output.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.config import Config, value_at
from transformer_jax.data import Examples, TokenizerPair
from transformer_jax.decoding import Decoded, Ids, LogitsFn, NBest, Progress, Search
from transformer_jax.decoding.beam import begin_beams, end_beams, proceed_beams
from transformer_jax.decoding.greedy import most_probable
from transformer_jax.decoding.sampling import drawing
from transformer_jax.decoding.single import Choose, begin_single, proceed_single
from transformer_jax.errors import UserError
from transformer_jax.models.model import Model, Params
from transformer_jax.models.tokens import Batch
from transformer_jax.registry import resolve
from transformer_jax.vocabulary import BOS, EOS, PAD

UNFINISHED = "unfinished"  # among the metrics of what was written
IDS = Ids(BOS, EOS, PAD)


@dataclasses.dataclass(frozen=True)
class Strategy:
    """A search for outputs, which may be left between two steps.

    Attributes:
      begin: what is kept of a search, before its first step.
      proceed: (logits_fn, progress, search, examples_B, until) -> the progress after all steps, or till `until`.
      end: the best outputs in what is kept.
    """

    begin: Callable[[Search], Any]
    proceed: Callable[[LogitsFn, Progress, Search, jax.Array | None, jax.Array | None], Progress]
    end: Callable[[Any, Search], NBest]

    def __call__(self, logits_fn: LogitsFn, cache: Any, search: Search, examples_B: jax.Array | None) -> NBest:
        """The best outputs, from the first step to the last."""
        progress = Progress(jnp.int32(0), self.begin(search), cache)
        return self.end(self.proceed(logits_fn, progress, search, examples_B, None).found, search)


def _beam(config: Config, num_results: int) -> tuple[int, Strategy]:
    """Section 6.1: beam search with length penalty."""
    beam_size = config.decode.beam_size
    alpha = config.decode.alpha
    return beam_size, Strategy(
        lambda search: begin_beams(search, beam_size, num_results),
        lambda logits_fn, progress, search, examples_B, until: proceed_beams(logits_fn, progress, search, alpha, until),
        lambda beams, search: end_beams(beams, search, alpha),
    )


def _greedy(config: Config, num_results: int) -> tuple[int, Strategy]:
    """The most probable token at each step."""
    return 1, _single(lambda examples_B: most_probable)


def _sample(
    config: Config, num_results: int, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> tuple[int, Strategy]:
    """Tokens drawn from the model, the same for the same `seed` and place in the split; `top_k` 0: among all."""
    if temperature <= 0 or top_k < 0 or not 0 < top_p <= 1:
        raise UserError(
            f"decode.strategy = {config.decode.strategy!r}: temperature must be above 0, top_k at least 0, and top_p "
            "above 0 and at most 1."
        )

    def choose(examples_B: jax.Array) -> Choose:
        key = jax.random.key(config.seed)
        return drawing(key, examples_B, temperature, top_k or None, top_p if top_p < 1 else None)

    return 1, _single(choose)


def _single(choose: Callable[[jax.Array], Choose]) -> Strategy:
    """One hypothesis an example, by a choice that may depend on which example it is."""

    def proceed(
        logits_fn: LogitsFn,
        progress: Progress,
        search: Search,
        examples_B: jax.Array | None,
        until: jax.Array | None,
    ) -> Progress:
        examples_B = jnp.arange(search.batch_size) if examples_B is None else examples_B
        return proceed_single(choose(examples_B), logits_fn, progress, search, until)

    return Strategy(begin_single, proceed, lambda single, search: _one(single.decoded))


def _one(decoded: Decoded) -> NBest:
    log_probs_B1 = decoded.log_probs_B[:, None]
    return NBest(decoded.tokens_BT[:, None], log_probs_B1, log_probs_B1, decoded.lengths_B[:, None])


STRATEGIES: dict[str, Callable[..., tuple[int, Strategy]]] = {"beam": _beam, "greedy": _greedy, "sample": _sample}


def strategy_of(config: Config, num_results: int = 1) -> tuple[int, Strategy]:
    """How many hypotheses of an example are followed at a time, and the search for its outputs."""
    return resolve(STRATEGIES, config.decode.strategy, "decode.strategy")(config, num_results)


class Draft(NamedTuple):
    """Outputs that are being written: arrays [example, ...] all, so that examples may come and go.

    step_B is the same for all; 0 at a place without an example. `cache` is the model's, see `_apart`.
    """

    batch: Batch
    step_B: jax.Array
    context: Any
    found: Any
    cache: Any


def write(config: Config, model: Model, params: Params, batch: Batch, num_results: int = 1) -> NBest:
    """The `num_results` best outputs for every example of the batch.

    An output may be `decode.max_extra_length` tokens longer than the "inputs" of its example, both with EOS. Where
    these hold no word, nothing is written: a model has seen no such sentence in training, and would make one up.
    "example" of the batch is the place of each in its split, on which samples depend; without it, that in the batch.
    """
    width, strategy = strategy_of(config, num_results)
    search = _search(config, batch)
    context, cache = model.start(params, batch, width, search.max_length)
    logits_fn = functools.partial(_logits, model, params, context)
    return strategy(logits_fn, cache, search, batch.get("example"))


def begin(
    config: Config, model: Model, params: Params, batch: Batch, length: int, num_results: int = 1
) -> tuple[NBest, Draft]:
    """As `write`, but no more than `length` tokens, for which alone room is made; and from where to resume."""
    width, strategy = strategy_of(config, num_results)
    search = _search(config, batch)
    context, cache = model.start(params, batch, width, length)
    progress = Progress(jnp.int32(0), strategy.begin(search), cache)
    kept = {name: batch[name] for name in ("inputs", "example")}
    return _proceed(strategy, search, model, params, kept, context, progress, jnp.int32(length))


def resume(
    config: Config, model: Model, params: Params, draft: Draft, until: jax.Array, num_results: int = 1
) -> tuple[NBest, Draft]:
    """The outputs with up to `until` tokens, of a draft with room for all; and from where to resume."""
    width, strategy = strategy_of(config, num_results)
    search = _search(config, draft.batch)
    _, empty = jax.eval_shape(lambda: model.start(params, draft.batch, width, search.max_length))
    found = draft.found._replace(done_B=draft.found.done_B | (search.limits_B <= 0))
    progress = Progress(jnp.max(draft.step_B), found, _together(draft.cache, empty))
    return _proceed(strategy, search, model, params, draft.batch, draft.context, progress, until)


def _proceed(
    strategy: Strategy,
    search: Search,
    model: Model,
    params: Params,
    batch: Batch,
    context: Any,
    progress: Progress,
    until: jax.Array,
) -> tuple[NBest, Draft]:
    logits_fn = functools.partial(_logits, model, params, context)
    step, found, cache = strategy.proceed(logits_fn, progress, search, batch["example"], until)
    draft = Draft(batch, jnp.full(search.batch_size, step), context, found, _apart(cache, search.batch_size))
    return strategy.end(found, search), draft


def longest(config: Config, batch: Batch) -> int:
    """The most tokens that an output of a batch may have."""
    return batch["inputs"].shape[1] + config.decode.max_extra_length


def _search(config: Config, batch: Batch) -> Search:
    lengths_B = jnp.sum(batch["inputs"] != PAD, axis=-1)
    limits_B = jnp.where(lengths_B > 1, lengths_B + config.decode.max_extra_length, 0)
    return Search(limits_B, longest(config, batch), IDS)


def _logits(model: Model, params: Params, context: Any, tokens_N: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
    return model.step(params, tokens_N, context, cache)


def _apart(cache: Any, batch_size: int) -> Any:
    """The cache with an axis of examples in front of every leaf."""

    def apart(leaf: jax.Array) -> jax.Array:
        return leaf.reshape(batch_size, -1, *leaf.shape[1:]) if leaf.ndim else jnp.full(batch_size, leaf)

    return jax.tree.map(apart, cache)


def _together(apart: Any, like: Any) -> Any:
    """The cache of shapes like `like`."""
    return jax.tree.map(lambda leaf, like: leaf.reshape(like.shape) if like.ndim else jnp.max(leaf), apart, like)


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
    beam_size, vocab_size = config.decode.beam_size, value_at(config, "model.vocab_size")
    if config.decode.strategy == "beam" and vocab_size is not None and beam_size > vocab_size:
        raise UserError(f"decode.beam_size = {beam_size} is wider than the vocabulary of {vocab_size}.")
