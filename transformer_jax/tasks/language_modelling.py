"""Language modelling: predict each token from those before it; and write on. B examples, T tokens of each."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.config import Config, Resolved, value_at
from transformer_jax.data import Examples, TokenizerPair
from transformer_jax.decoding import Search
from transformer_jax.models.model import Model, Params
from transformer_jax.models.tokens import Batch
from transformer_jax.tasks import writing
from transformer_jax.tasks.losses import TOKEN_FIGURES, measure_tokens
from transformer_jax.tasks.made_up import made_up_sentences
from transformer_jax.tasks.task import Figure, Measured, Metrics, Output, with_vocabularies
from transformer_jax.tasks.text_metrics import check_metrics, text_metrics
from transformer_jax.vocabulary import PAD


@dataclasses.dataclass(frozen=True)
class Continuations:
    """What the model writes on after the beginning of each window, by the search that `decode` names.

    Attributes:
      given: tokens of the beginning; None: half of `data.max_length`.
      new: tokens to be written at most; None: `decode.max_extra_length`, or fewer where they fill the window.
    """

    given: int | None = None
    new: int | None = None

    def predict(self, config: Config, model: Model, params: Params, batch: Batch) -> Mapping[str, jax.Array]:
        """See `decoding.NBest`. Of a window that does not hold a whole prompt nothing is written."""
        given = config.data.max_length // 2 if self.given is None else self.given
        new = min(config.decode.max_extra_length, config.data.max_length - given) if self.new is None else self.new
        width, strategy = writing.strategy_of(config)
        prompts_BT = jnp.repeat(batch["inputs"][:, :given], width, axis=0)
        context, cache = model.start(params, batch, width, given + new)
        if given > 1:
            _, cache = model.read(params, prompts_BT[:, :-1], context, cache)

        def logits_fn(tokens_B: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
            """The search begins with BOS; in its place the model reads the end of the prompt."""
            tokens_B = jnp.where(cache["step"] == 0, cache["last"], tokens_B)
            logits_BC, kept = model.step(params, tokens_B, context, cache["model"])
            return logits_BC, {"step": cache["step"] + 1, "last": cache["last"], "model": kept}

        limits_B = jnp.where(jnp.sum(batch["inputs"] != PAD, axis=-1) >= given, new, 0)
        start = {"step": jnp.int32(0), "last": prompts_BT[:, -1], "model": cache}
        return strategy(logits_fn, start, Search(limits_B, new, writing.IDS), batch.get("example"))._asdict()

    def read(self, predicted: Mapping[str, Any], assets: TokenizerPair) -> list[str]:
        """The best text of each example."""
        return writing.best_texts(predicted, assets)

    def remarks(self, predicted: Mapping[str, Any]) -> Metrics:
        """Nothing: running text has no end that could be missing."""
        return {}

    def judge(self, config: Config, texts: list[str], split: Examples) -> Metrics:
        """By themselves, or against what really follows."""
        return text_metrics(config.evaluate.metrics, texts, split.texts["references"])


class LanguageModelling:
    """Windows of running text; judged by the likelihood of every token."""

    families: tuple[str, ...] = ("decoder_only",)
    figures: Mapping[str, Figure] = MappingProxyType(TOKEN_FIGURES)
    output: Output | None = Continuations()
    unit = "tokens"

    def check(self, config: Config) -> None:
        """The metrics and the search exist."""
        writing.check(config)
        check_metrics(config.evaluate.metrics)

    def complete(self, config: Config, assets: TokenizerPair) -> Resolved:
        """The size of the vocabulary, which may be set larger than the tokenizer needs."""
        return with_vocabularies(config, {"model.vocab_size": assets.target.vocab_size})

    def measure(self, config: Config, model: Model, params: Params, batch: Batch, key: jax.Array | None) -> Measured:
        """Loss, nll and accuracy of the token after each of the inputs."""
        logits_BTC = model.apply(params, batch, key)
        return measure_tokens(logits_BTC, batch["targets"], batch["targets"] != PAD, config.train.label_smoothing)

    def example_batch(self, config: Resolved, examples: int = 1, seed: int = 0) -> Batch:
        """Windows of 1 to 6 tokens."""
        lengths = [6 - i % 6 for i in range(examples)]
        tokens = made_up_sentences([length + 1 for length in lengths], 7, value_at(config, "model.vocab_size"), seed)
        inside = np.arange(6) < np.asarray(lengths)[:, None]
        inputs, targets = (np.where(inside, part, PAD) for part in (tokens[:, :-1], tokens[:, 1:]))
        return {"inputs": jnp.asarray(inputs), "targets": jnp.asarray(targets)}
