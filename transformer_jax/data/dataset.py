"""Everything of the data that a run needs: tokenizers and every split as flat arrays of ids."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from transformer_jax.config import DataConfig
from transformer_jax.data.corpus import TextSplit
from transformer_jax.data.encoding import Sides, encode, encode_corpus, fingerprint
from transformer_jax.data.ragged import Int64Array, Ragged
from transformer_jax.data.sources import make_corpus, resolve_source
from transformer_jax.data.subwords import LEFT_OUT
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
      cut: int64[n], the pairs of which a side was cut to `data.max_length`.
    """

    inputs: Ragged
    targets: Ragged
    sources: list[str]
    references: list[str]
    dropped: int = 0
    cut: Int64Array = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def truncated(self) -> int:
        """How many pairs were cut."""
        return len(self.cut)

    def losses(self, name: str, max_length: int) -> list[str]:
        """A sentence on the pairs that were left out, and one on those that were cut, where there are any."""
        limit = f"data.max_length = {max_length} tokens"
        said = []
        if self.dropped:
            of = f"{self.dropped:,} of {len(self) + self.dropped:,} pairs of {name}"
            said.append(f"{of} left out: a side is longer than {limit}.")
        if self.truncated:
            of = f"{self.truncated:,} of {len(self):,} pairs of {name}"
            said.append(f"{of} cut: a side is longer than {limit}, and what lies beyond is not seen.")
        return said

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
      left_out_of_tokenizer: sentences of the training split that the tokenizers were trained without.
    """

    tokenizers: TokenizerPair
    splits: Mapping[str, EncodedSplit]
    fingerprint: str
    dropped_empty: int
    left_out_of_tokenizer: int = 0

    def losses(self, max_length: int) -> list[str]:
        """What of the corpus is not seen, a sentence each."""
        said = [text for name, split in self.splits.items() for text in split.losses(name, max_length)]
        if self.dropped_empty:
            said.insert(0, f"{self.dropped_empty:,} pairs of train left out: a side is empty.")
        if self.left_out_of_tokenizer:
            said.append(
                f"The tokenizer is trained without {self.left_out_of_tokenizer:,} sentences of train: {LEFT_OUT}."
            )
        return said

    def summary(self) -> dict[str, Any]:
        """Sizes for the log and for ``result.json``; tokens include EOS."""
        return {
            "fingerprint": self.fingerprint,
            "source_vocabulary": self.tokenizers.source.vocab_size,
            "target_vocabulary": self.tokenizers.target.vocab_size,
            "dropped_empty": self.dropped_empty,
            "left_out_of_tokenizer": self.left_out_of_tokenizer,
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
    if config.batch_multiple > config.tokens_per_batch:
        raise UserError(
            f"data.tokens_per_batch = {config.tokens_per_batch:,} is too few for data.batch_multiple = "
            f"{config.batch_multiple:,} rows, even of one token each. Set it higher, or data.batch_multiple lower."
        )


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
    train = corpus.splits["train"]
    left_out = resolve_tokenizer(config).left_out(train.sources + train.references)
    return Dataset(tokenizers, splits, fingerprint(corpus, tokenizers), corpus.dropped_empty, left_out)


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
        cut=np.flatnonzero(np.maximum(inputs.lengths, targets.lengths) > max_length),
    )
