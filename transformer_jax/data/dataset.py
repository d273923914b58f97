"""Everything of the data that a run needs: tokenizers and every split as flat arrays of ids."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from transformer_jax.config import DataConfig
from transformer_jax.data.corpus import TextSplit
from transformer_jax.data.encoding import Sides, encode, encode_corpus, fingerprint
from transformer_jax.data.ragged import Ragged
from transformer_jax.data.sources import make_corpus, resolve_source
from transformer_jax.data.tokenizers import TokenizerPair, resolve_tokenizer, train_tokenizers
from transformer_jax.data.vocabulary import EOS
from transformer_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class EncodedSplit:
    """The pairs of a split as ids; every row of both sides ends in EOS and has at most `data.max_length` ids.

    Attributes:
      inputs, targets: row i of each is pair i.
      sources, references: the untouched texts; empty for "train", whose texts nobody needs.
      dropped: pairs left out because a side was too long (only "train", and `data.over_long` "drop").
      truncated: pairs of which a side was cut to `data.max_length`.
    """

    inputs: Ragged
    targets: Ragged
    sources: list[str]
    references: list[str]
    dropped: int = 0
    truncated: int = 0

    def __len__(self) -> int:
        return len(self.inputs)

    def first(self, count: int) -> "EncodedSplit":
        """The first pairs of it."""
        kept = np.arange(min(count, len(self)))
        return EncodedSplit(
            self.inputs.take(kept), self.targets.take(kept), self.sources[:count], self.references[:count]
        )


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A corpus, encoded.

    Attributes:
      tokenizers: to be saved with the run.
      splits: "train", "valid" and, where there is one, "test".
      fingerprint: SHA-256 (hex) of texts and tokenizers: two runs with equal ones saw the same ids.
      dropped_empty: training pairs left out because a side was empty.
    """

    tokenizers: TokenizerPair
    splits: Mapping[str, EncodedSplit]
    fingerprint: str
    dropped_empty: int

    def summary(self) -> dict[str, Any]:
        """Sizes for the log and for ``result.json``; tokens include EOS."""
        return {
            "fingerprint": self.fingerprint,
            "source_vocabulary": self.tokenizers.source.vocab_size,
            "target_vocabulary": self.tokenizers.target.vocab_size,
            "dropped_empty": self.dropped_empty,
            "splits": {
                name: {
                    "sentences": len(split),
                    "source_tokens": len(split.inputs.values),
                    "target_tokens": len(split.targets.values),
                    "dropped": split.dropped,
                    "truncated": split.truncated,
                }
                for name, split in self.splits.items()
            },
        }


def check(config: DataConfig) -> None:
    """Resolves the slots of `config` and refuses combinations that cannot work; reads no file and makes no array."""
    resolve_source(config).check(config)
    resolve_tokenizer(config)


def make_dataset(config: DataConfig, tokenizers: TokenizerPair | None = None) -> Dataset:
    """Reads the corpus, trains the tokenizers on its training split unless they are given, and encodes every split.

    Raises:
      UserError: see `make_corpus` and the tokenizers; also if no training pair fits into `data.max_length`.
    """
    corpus = make_corpus(config)
    if tokenizers is None:
        tokenizers = train_tokenizers(config, corpus.splits["train"])
    splits: dict[str, EncodedSplit] = {}
    for name, sides in encode_corpus(corpus, tokenizers).items():
        if name == "train" and config.over_long == "drop":
            splits[name] = _without_over_long(sides, config.max_length)
        else:
            text = TextSplit([], []) if name == "train" else corpus.splits[name]
            splits[name] = _truncated(sides, text, config.max_length)
    return Dataset(tokenizers, splits, fingerprint(corpus, tokenizers), corpus.dropped_empty)


def encode_pairs(
    sources: list[str], references: list[str], config: DataConfig, tokenizers: TokenizerPair
) -> EncodedSplit:
    """Pairs from outside the corpus, such as lines to translate (with an empty reference each). None is dropped."""
    sides = encode(sources, tokenizers.source), encode(references, tokenizers.target)
    return _truncated(sides, TextSplit(sources, references), config.max_length)


def _without_over_long(sides: Sides, max_length: int) -> EncodedSplit:
    inputs, targets = sides
    fits = np.maximum(inputs.lengths, targets.lengths) <= max_length
    kept = np.flatnonzero(fits)
    if not len(kept):
        raise UserError(
            f"data.max_length is {max_length}, and every training pair is longer; the shortest has "
            f"{np.maximum(inputs.lengths, targets.lengths).min()} tokens on its longer side."
        )
    return EncodedSplit(inputs.take(kept), targets.take(kept), [], [], dropped=len(fits) - len(kept))


def _truncated(sides: Sides, text: TextSplit, max_length: int) -> EncodedSplit:
    inputs, targets = sides
    return EncodedSplit(
        inputs.truncate(max_length, EOS),
        targets.truncate(max_length, EOS),
        text.sources,
        text.references,
        truncated=int(np.count_nonzero(np.maximum(inputs.lengths, targets.lengths) > max_length)),
    )
