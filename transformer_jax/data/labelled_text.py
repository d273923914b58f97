"""Sentences with labels: lines of a label, a tab and a text."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from transformer_jax.checked_json import checked, read_json
from transformer_jax.config import DataConfig
from transformer_jax.data.dataset import Dataset
from transformer_jax.data.encoding import encode
from transformer_jax.data.examples import Column, Examples
from transformer_jax.data.images import LABELS, NO_LABEL
from transformer_jax.data.parallel_text import find_directory, read_lines
from transformer_jax.data.tokenizer import Tokenizer
from transformer_jax.data.tokenizers import TokenizerPair, resolve_tokenizer
from transformer_jax.errors import UserError
from transformer_jax.files import write_atomically
from transformer_jax.strict_json import to_json
from transformer_jax.vocabulary import EOS, NUM_AFTER

PARTS = {"train": "train.tsv", "valid": "dev.tsv", "test": "test.tsv"}
"""Split -> its file, where each has one."""
FOLDS = 10
"""Of a file that is not split: one is tested on, the next chooses, the others are trained on."""
HELD_OUT = 10
"""Where there is no "valid", it is every so manieth line of the training file."""
Line = tuple[str, str]
"""Label and text."""


@dataclasses.dataclass(frozen=True)
class SentenceClasses:
    """Names of the classes, and the tokenizer of the sentences."""

    names: tuple[str, ...]
    tokenizer: Tokenizer

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of both."""
        return hashlib.sha256(self._labels() + self._tokenizers.fingerprint.encode()).hexdigest()

    @property
    def _tokenizers(self) -> TokenizerPair:
        return TokenizerPair(self.tokenizer, self.tokenizer)

    def _labels(self) -> bytes:
        return to_json({"names": self.names}, indent=0).encode()

    def sizes(self) -> dict[str, int]:
        """What a model must know of them, by the names of its fields."""
        return {"num_classes": len(self.names), "vocab_size": self.tokenizer.vocab_size + NUM_AFTER}

    def summary(self) -> dict[str, int]:
        """The same."""
        return self.sizes()

    def save(self, directory: Path) -> None:
        """Writes ``labels.json`` and ``tokenizer.*`` into `directory`."""
        write_atomically(Path(directory) / LABELS, self._labels())
        self._tokenizers.save(directory)

    @staticmethod
    def load(directory: Path) -> "SentenceClasses":
        """What `save` wrote; UserError if a file is missing or malformed."""
        path = Path(directory) / LABELS
        names = checked(read_json(path), {"names": list[str]}, path)["names"]
        if len(set(names)) != len(names) or len(names) < 2:
            raise UserError(f"{path}: damaged; there are two classes or more, with names of their own.")
        return SentenceClasses(tuple(names), TokenizerPair.load(directory).target)


@dataclasses.dataclass(frozen=True)
class LabelledText:
    """``labelled_text(file=None, fold=0, fine=False, lower=False)``: files of lines ``label TAB text``.

    Without `file` the directory holds train.tsv, test.tsv and perhaps dev.tsv; without the latter "valid" is every
    tenth line of train.tsv, the last of ten. With it that file is cut into ten folds: the lines of each class are
    numbered from 0, and the last digit is the fold. `fold` is "test", the one after it "valid", all others "train".

    The columns are "inputs" (the tokens and EOS, cut to `data.max_length`) and "labels"; the texts of splits that are
    not trained on are "sources" and, the names of the labels, "references".

    Attributes:
      file: its name in `data.directory`.
      fold: the one to be tested on.
      fine: keeps what stands behind the colon of a label, its class within a class.
      lower: texts are lower-cased.
    """

    file: str | None = None
    fold: int = 0
    fine: bool = False
    lower: bool = False
    kind = "sentences"

    def __post_init__(self) -> None:
        if self.file is not None and (not isinstance(self.file, str) or not self.file.strip() or "\0" in self.file):
            raise UserError(f"data.source: labelled_text(file={self.file!r}) must be the name of a file.")
        if not 0 <= self.fold < FOLDS:
            raise UserError(f"data.source: labelled_text(fold={self.fold}) must be from 0 to {FOLDS - 1}.")
        if self.fold and self.file is None:
            raise UserError(f"data.source: labelled_text(fold={self.fold}) needs file=, which is cut into folds.")

    def check(self, config: DataConfig) -> None:
        """Each sentence has a label of its own."""
        resolve_tokenizer(config)
        if config.batching == "packed":
            raise UserError(
                "data.batching = 'packed': sentences with labels are not packed; set it to 'length_classes'."
            )

    def load(self, config: DataConfig, assets: SentenceClasses | None = None) -> Dataset:
        """Reads every split; the tokenizer is trained on the texts of "train" unless it is given.

        Raises:
          UserError: a missing or malformed file, a split without sentences, or a label that "train" does not have.
        """
        splits = self._read(config)
        trainer, texts = resolve_tokenizer(config), [text for _, text in splits["train"]]
        if assets is None:
            names = tuple(sorted({label for label, _ in splits["train"]}))
            if len(names) < 2:
                raise UserError(f"data.source {config.source!r}: the training lines have one label alone.")
            assets = SentenceClasses(names, trainer.train(texts))
        examples = {name: _examples(name, lines, assets, config.max_length) for name, lines in splits.items()}
        content = f"{config.max_length} {assets.fingerprint} {to_json(splits, indent=0)}"
        digest = hashlib.sha256(content.encode()).hexdigest()
        return Dataset(assets, examples, digest, left_out_of_tokenizer=trainer.left_out(texts))

    def load_assets(self, directory: Path) -> SentenceClasses:
        """Those saved with a run."""
        return SentenceClasses.load(directory)

    def _read(self, config: DataConfig) -> dict[str, list[Line]]:
        directory = find_directory(config.directory)
        if self.file is None:
            there = {name: directory / file for name, file in PARTS.items()}
            splits = {name: self._lines(path) for name, path in there.items() if name != "valid" or path.is_file()}
            return splits if "valid" in splits else _with_valid(splits)
        return _folds(self._lines(directory / self.file), self.fold)

    def _lines(self, path: Path) -> list[Line]:
        lines = []
        for number, line in enumerate(read_lines(path), 1):
            label, tab, text = line.partition("\t")
            if not tab or not label.strip() or not text.strip():
                raise UserError(f"{path}, line {number}: holds no label, tab and text.")
            lines.append((label if self.fine else label.partition(":")[0], text.lower() if self.lower else text))
        return lines


def _with_valid(splits: Mapping[str, list[Line]]) -> dict[str, list[Line]]:
    train = splits["train"]
    return {
        "train": [line for number, line in enumerate(train) if number % HELD_OUT != HELD_OUT - 1],
        "valid": train[HELD_OUT - 1 :: HELD_OUT],
        "test": splits["test"],
    }


def _folds(lines: list[Line], tested: int) -> dict[str, list[Line]]:
    seen: dict[str, int] = {}
    splits: dict[str, list[Line]] = {name: [] for name in PARTS}
    chosen = {tested: "test", (tested + 1) % FOLDS: "valid"}
    for label, text in lines:
        number = seen.get(label, 0)
        seen[label] = number + 1
        splits[chosen.get(number % FOLDS, "train")].append((label, text))
    return splits


def _examples(name: str, lines: list[Line], classes: SentenceClasses, max_length: int) -> Examples:
    if not lines:
        raise UserError(f"data.source 'labelled_text': the split {name!r} has no sentence.")
    numbers = {label: number for number, label in enumerate(classes.names)}
    labels, texts = [label for label, _ in lines], [text for _, text in lines]
    if unknown := sorted(set(labels) - set(numbers)):
        raise UserError(f"data.source 'labelled_text': {name} has the label {unknown[0]!r}, which train does not have.")
    inputs = encode(texts, classes.tokenizer)
    columns = {
        "inputs": Column(inputs.truncate(max_length, EOS), side="inputs"),
        "labels": Column(np.asarray([numbers[label] for label in labels], np.int32), fill=NO_LABEL),
    }
    kept = {} if name == "train" else {"sources": texts, "references": labels}
    return Examples(columns, kept, cut=np.flatnonzero(inputs.lengths > max_length))
