"""The slot `data.tokenizer`, and the one or two tokenizers of a run."""

import dataclasses
import hashlib
from pathlib import Path

from transformer_jax.config import DataConfig
from transformer_jax.data.corpus import TextSplit
from transformer_jax.data.subwords import SentencePiece, SubwordTokenizer
from transformer_jax.data.tokenizer import Characters, SymbolTokenizer, Tokenizer, TokenizerTrainer, Words, load_symbols
from transformer_jax.errors import UserError
from transformer_jax.files import read_bytes
from transformer_jax.registry import resolve

TOKENIZERS: dict[str, type[TokenizerTrainer]] = {
    "sentencepiece": SentencePiece,
    "words": Words,
    "characters": Characters,
}

JOINT, SOURCE, TARGET = "tokenizer", "source_tokenizer", "target_tokenizer"  # names of the files


@dataclasses.dataclass(frozen=True)
class TokenizerPair:
    """The tokenizers of both sides; the same object twice where the vocabulary is joint."""

    source: Tokenizer
    target: Tokenizer

    @property
    def is_joint(self) -> bool:
        """Whether ids mean the same on both sides."""
        return self.source is self.target

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of both."""
        digest = hashlib.sha256()
        for tokenizer in (self.source, self.target):
            content = tokenizer.to_bytes()
            digest.update(f"{len(content)}\n".encode() + content)
        return digest.hexdigest()

    def summary(self) -> dict[str, int]:
        """The sizes of the vocabularies."""
        return {"source_vocabulary": self.source.vocab_size, "target_vocabulary": self.target.vocab_size}

    def save(self, directory: Path) -> None:
        """Writes ``tokenizer.*``, or ``source_tokenizer.*`` and ``target_tokenizer.*``, into `directory`."""
        named = {JOINT: self.source} if self.is_joint else {SOURCE: self.source, TARGET: self.target}
        for name, tokenizer in named.items():
            tokenizer.save(Path(directory) / f"{name}{tokenizer.suffix}")

    @staticmethod
    def load(directory: Path) -> "TokenizerPair":
        """What `save` wrote; UserError if a file is missing or malformed."""
        directory = Path(directory)
        if joint := _find(directory, JOINT):
            tokenizer = load_tokenizer(joint)
            return TokenizerPair(tokenizer, tokenizer)
        paths = [_find(directory, name) for name in (SOURCE, TARGET)]
        if None in paths:
            raise UserError(f"{directory}: has no saved tokenizer ({JOINT}.model or .json, or one for each side).")
        source, target = (load_tokenizer(path) for path in paths if path)
        return TokenizerPair(source, target)


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads one saved tokenizer. Both formats are plain data: nothing in the file is executed.

    Raises:
      UserError: the file cannot be read or is malformed.
    """
    try:
        return SubwordTokenizer(read_bytes(path), str(path)) if path.suffix == ".model" else load_symbols(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error


def resolve_tokenizer(config: DataConfig) -> TokenizerTrainer:
    """What `data.tokenizer` names; UserError if its options are wrong."""
    trainer: TokenizerTrainer = resolve(TOKENIZERS, config.tokenizer, "data.tokenizer")()
    return trainer


def train_tokenizers(config: DataConfig, train: TextSplit) -> TokenizerPair:
    """Trained on the training split: one on both sides together if `data.joint_vocabulary`, else one on each."""
    trainer = resolve_tokenizer(config)
    if config.joint_vocabulary:
        tokenizer = trainer.train(train.sources + train.references)
        return TokenizerPair(tokenizer, tokenizer)
    return TokenizerPair(trainer.train(train.sources), trainer.train(train.references))


def _find(directory: Path, name: str) -> Path | None:
    candidates = (directory / f"{name}{suffix}" for suffix in (SubwordTokenizer.suffix, SymbolTokenizer.suffix))
    return next((path for path in candidates if path.is_file()), None)
