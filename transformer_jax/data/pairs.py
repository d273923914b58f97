"""Sentence pairs: from text to arrays of ids."""

from pathlib import Path

import numpy as np

from transformer_jax.config import DataConfig
from transformer_jax.data.corpus import Corpus, TextSplit, finish_corpus
from transformer_jax.data.dataset import Dataset
from transformer_jax.data.encoding import Sides, encode, encode_corpus, fingerprint
from transformer_jax.data.examples import Examples, columns_of
from transformer_jax.data.tokenizers import TokenizerPair, resolve_tokenizer, train_tokenizers
from transformer_jax.errors import UserError
from transformer_jax.vocabulary import EOS


class PairSource:
    """A source of sentence pairs: it reads text, the rest is the same for all of them.

    The columns are "inputs" and "targets", the texts "sources" and "references". Every sequence ends in EOS and has at
    most `data.max_length` ids.
    """

    kind = "pairs"

    def check(self, config: DataConfig) -> None:
        """Refuses what cannot work with the rest of `config`; touches no file."""
        resolve_tokenizer(config)

    def read(self, config: DataConfig) -> dict[str, TextSplit]:
        """The splits "train", "valid" and perhaps "test", in this order."""
        raise NotImplementedError

    def corpus(self, config: DataConfig) -> Corpus:
        """All splits; training pairs with an empty side are dropped and counted, in "valid" and "test" they are kept.

        Raises:
          UserError: a missing or malformed file, a split without pairs; the sentence names file and line.
        """
        return finish_corpus(self.read(config), f"data.source {config.source!r}")

    def load(self, config: DataConfig, assets: TokenizerPair | None = None) -> Dataset:
        """Reads the corpus, trains the tokenizers on its training split unless they are given, and encodes every split.

        Raises:
          UserError: see `corpus` and the tokenizers; also if no training pair fits into `data.max_length`.
        """
        corpus = self.corpus(config)
        tokenizers = assets or train_tokenizers(config, corpus.splits["train"])
        splits: dict[str, Examples] = {}
        for name, sides in encode_corpus(corpus, tokenizers).items():
            if name == "train" and config.over_long == "drop":
                splits[name] = _without_over_long(sides, config.max_length)
            else:
                text = TextSplit([], []) if name == "train" else corpus.splits[name]
                splits[name] = _truncated(sides, text, config.max_length)
        train = corpus.splits["train"]
        left_out = resolve_tokenizer(config).left_out(train.sources + train.references)
        return Dataset(tokenizers, splits, fingerprint(corpus, tokenizers), corpus.dropped_empty, left_out)

    def load_assets(self, directory: Path) -> TokenizerPair:
        """The tokenizers saved with a run."""
        return TokenizerPair.load(directory)


def encode_pairs(sources: list[str], references: list[str], config: DataConfig, tokenizers: TokenizerPair) -> Examples:
    """Pairs from outside the corpus, such as lines to translate (with an empty reference each). None is dropped."""
    sides = encode(sources, tokenizers.source), encode(references, tokenizers.target)
    return _truncated(sides, TextSplit(sources, references), config.max_length)


def _without_over_long(sides: Sides, max_length: int) -> Examples:
    inputs, targets = sides
    longest = np.maximum(inputs.lengths, targets.lengths)
    kept = np.flatnonzero(longest <= max_length)
    if not len(kept):
        raise UserError(
            f"data.max_length is {max_length}, and every training pair is longer; the shortest has {longest.min()} "
            "tokens on its longer side."
        )
    columns = columns_of(inputs=inputs.take(kept), targets=targets.take(kept))
    return Examples(columns, dropped=len(longest) - len(kept))


def _truncated(sides: Sides, text: TextSplit, max_length: int) -> Examples:
    inputs, targets = sides
    return Examples(
        columns_of(inputs=inputs.truncate(max_length, EOS), targets=targets.truncate(max_length, EOS)),
        {"sources": text.sources, "references": text.accepted or text.references} if len(text) else {},
        cut=np.flatnonzero(np.maximum(inputs.lengths, targets.lengths) > max_length),
    )
