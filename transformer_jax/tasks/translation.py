"""Translation: predict each target token from the source and the target tokens before it (Sections 3 and 5)."""

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.config import Config, Resolved, value_at
from transformer_jax.data import Examples, TokenizerPair
from transformer_jax.errors import UserError
from transformer_jax.models.model import Model, Params
from transformer_jax.models.tokens import Batch
from transformer_jax.tasks import writing
from transformer_jax.tasks.losses import TOKEN_FIGURES, all_correct, measure_tokens
from transformer_jax.tasks.made_up import made_up_sentences
from transformer_jax.tasks.task import Figure, Measured, Metrics, Output, with_vocabularies
from transformer_jax.tasks.text_metrics import check_metrics, text_metrics
from transformer_jax.vocabulary import PAD


@dataclasses.dataclass(frozen=True)
class Translations:
    """What the model writes by itself, by the search that `decode` names: the `num_results` best for each source."""

    num_results: int = 1

    def predict(self, config: Config, model: Model, params: Params, batch: Batch) -> Mapping[str, jax.Array]:
        """See `decoding.NBest`."""
        return writing.write(config, model, params, batch, self.num_results)._asdict()

    def longest(self, config: Config, batch: Batch) -> int:
        """See `writing.longest`."""
        return writing.longest(config, batch)

    def begin(self, config: Config, model: Model, params: Params, batch: Batch, length: int) -> tuple[Any, Any]:
        """See `writing.begin`."""
        found, draft = writing.begin(config, model, params, batch, length, self.num_results)
        return found._asdict(), draft

    def resume(self, config: Config, model: Model, params: Params, draft: Any, until: jax.Array) -> tuple[Any, Any]:
        """See `writing.resume`."""
        found, draft = writing.resume(config, model, params, draft, until, self.num_results)
        return found._asdict(), draft

    def read(self, predicted: Mapping[str, Any], assets: TokenizerPair) -> list[str]:
        """The best text of each example."""
        return writing.best_texts(predicted, assets)

    def remarks(self, predicted: Mapping[str, Any]) -> Metrics:
        """How many translations were cut off."""
        return {writing.UNFINISHED: writing.count_unfinished(predicted)}

    def ranked(self, predicted: Mapping[str, Any], assets: TokenizerPair) -> list[list[tuple[str, float]]]:
        """The best texts of each example and the scores they are ranked by; fewer where the search found fewer."""
        return [
            [
                (assets.target.decode(tokens_T.tolist()), float(score))
                for tokens_T, score in zip(tokens_NT, scores_N, strict=True)
                if math.isfinite(score)
            ]
            for tokens_NT, scores_N in zip(predicted["tokens_BNT"], predicted["scores_BN"], strict=True)
        ]

    def judge(self, config: Config, texts: list[str], split: Examples) -> Metrics:
        """Against the references."""
        return text_metrics(config.evaluate.metrics, texts, split.texts["references"])


class Translation:
    """Pairs of sentences; judged by the likelihood of the references and by what the model writes."""

    families: tuple[str, ...] = ("transformer", "recurrent")
    figures: Mapping[str, Figure] = MappingProxyType(
        {
            **TOKEN_FIGURES,
            "exact_match_teacher_forced": Figure("exact_match_teacher_forced", higher_is_better=True),
        }
    )
    output: Output | None = Translations()
    unit = "tokens"

    def check(self, config: Config) -> None:
        """The metrics and the search exist, and the tables fit the vocabularies."""
        writing.check(config)
        check_metrics(config.evaluate.metrics)
        if value_at(config, "model.embedding.tying") == "three_way" and not config.data.joint_vocabulary:
            raise UserError(
                "model.embedding.tying = 'three_way' shares one table between both languages, but "
                "data.joint_vocabulary is false: choose 'decoder' or 'none', or a joint vocabulary."
            )

    def complete(self, config: Config, assets: TokenizerPair) -> Resolved:
        """The sizes of the vocabularies, which may be set larger than the tokenizers need."""
        sizes = {"model.vocab_size": assets.target.vocab_size}
        if value_at(config, "model.embedding.tying") != "three_way":
            sizes["model.source_vocab_size"] = assets.source.vocab_size
        return with_vocabularies(config, sizes)

    def measure(self, config: Config, model: Model, params: Params, batch: Batch, key: jax.Array | None) -> Measured:
        """Loss, nll and accuracies of the targets, given the true tokens before each; EOS is a target."""
        logits_BTC = model.apply(params, batch, key)
        counted_BT = batch["targets"] != PAD
        measured = measure_tokens(logits_BTC, batch["targets"], counted_BT, config.train.label_smoothing)
        return {**measured, "exact_match_teacher_forced": all_correct(measured)}

    def example_batch(self, config: Resolved, examples: int = 1, seed: int = 0) -> Batch:
        """Pairs of 1 to 6 and of 1 to 5 tokens, EOS the last."""
        sizes = [value_at(config, f"model.{name}") for name in ("vocab_size", "source_vocab_size")]
        known = min(size for size in sizes if size is not None)
        inputs = made_up_sentences([6 - i % 6 for i in range(examples)], 6, known, seed)
        targets = made_up_sentences([1 + (i + 2) % 5 for i in range(examples)], 5, known, seed + 1)
        return {"inputs": jnp.asarray(inputs), "targets": jnp.asarray(targets)}
