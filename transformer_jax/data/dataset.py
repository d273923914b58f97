"""What a run needs of its data: every split as arrays, and what belongs to them, such as tokenizers."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from transformer_jax.config import DataConfig
from transformer_jax.data.examples import Examples
from transformer_jax.data.subwords import LEFT_OUT


class Assets(Protocol):
    """What is made from the training split and saved with a run: tokenizers, names of labels."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all of it."""

    def summary(self) -> dict[str, Any]:
        """Its sizes."""

    def save(self, directory: Path) -> None:
        """Writes it into `directory`."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A corpus as arrays.

    Attributes:
      assets: to be saved with the run.
      splits: "train", "valid" and, where there is one, "test".
      fingerprint: SHA-256 (hex): two runs with equal ones saw the same arrays.
      dropped_empty: training examples left out because a side was empty.
      left_out_of_tokenizer: texts of the training split that the tokenizers were trained without.
    """

    assets: Any
    splits: Mapping[str, Examples]
    fingerprint: str
    dropped_empty: int = 0
    left_out_of_tokenizer: int = 0

    def losses(self, max_length: int) -> list[str]:
        """What of the corpus is not seen, a sentence each."""
        said = [text for name, split in self.splits.items() for text in split.losses(name, max_length)]
        if self.dropped_empty:
            said.insert(0, f"{self.dropped_empty:,} examples of train left out: a side is empty.")
        if self.left_out_of_tokenizer:
            said.append(f"The tokenizer is trained without {self.left_out_of_tokenizer:,} texts of train: {LEFT_OUT}.")
        return said

    def summary(self) -> dict[str, Any]:
        """Sizes for the log and for ``data.json``; tokens include EOS."""
        return {
            "fingerprint": self.fingerprint,
            **self.assets.summary(),
            "dropped_empty": self.dropped_empty,
            "left_out_of_tokenizer": self.left_out_of_tokenizer,
            "splits": {
                name: {
                    "examples": len(split),
                    "tokens": {side: int(rows.lengths.sum()) for side, rows in split.sides().items()},
                    "dropped": split.dropped,
                    "truncated": split.truncated,
                }
                for name, split in self.splits.items()
            },
        }


class Source(Protocol):
    """An entry of `SOURCES`. Its constructor takes the options of the spec and refuses wrong ones."""

    kind: str  # of what it holds: "pairs" of sentences, for instance

    def check(self, config: DataConfig) -> None:
        """Refuses what cannot work with the rest of `config`; touches no file."""

    def load(self, config: DataConfig, assets: Any = None) -> Dataset:
        """Reads or makes all splits; `assets`: those of an earlier run, else they are made from the training split.

        Raises:
          UserError: a missing or malformed file, a split without examples; the sentence names the file and line.
        """

    def load_assets(self, directory: Path) -> Any:
        """What `Assets.save` wrote; UserError if a file is missing or malformed."""
