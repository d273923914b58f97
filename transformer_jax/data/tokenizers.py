"""The slot `data.tokenizer`, and the one or two tokenizers of a run."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

from transformer_jax.config import DataConfig
from transformer_jax.data.corpus import TextSplit
from transformer_jax.data.pieces import PieceTokenizer, load_pieces
from transformer_jax.data.subwords import SentencePiece, SubwordTokenizer
from transformer_jax.data.tokenizer import Characters, SymbolTokenizer, Tokenizer, TokenizerTrainer, Words, load_symbols
from transformer_jax.data.wordpiece import WordPieceTokenizer, load_wordpiece
from transformer_jax.errors import UserError
from transformer_jax.files import read_bytes
from transformer_jax.registry import resolve
from transformer_jax.run.directory import ASSETS, DATA

JOINT, SOURCE, TARGET = "tokenizer", "source_tokenizer", "target_tokenizer"  # names of the files
LOADERS: dict[str, Callable[[Path], Tokenizer]] = {
    SubwordTokenizer.suffix: lambda path: SubwordTokenizer(read_bytes(path), str(path)),
    SymbolTokenizer.suffix: load_symbols,
    PieceTokenizer.suffix: load_pieces,
    WordPieceTokenizer.suffix: load_wordpiece,
}


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
    """Reads one saved tokenizer. All formats are plain data: nothing in the file is executed.

    Raises:
      UserError: the file cannot be read or is malformed.
    """
    try:
        return LOADERS[path.suffix](path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error


@dataclasses.dataclass(frozen=True)
class Saved:
    """``saved(run="runs/big")``: the tokenizers of another run, as they are, for models that start from it."""

    run: str = ""

    def __post_init__(self) -> None:
        if not self.run.strip() or "\0" in self.run:
            raise UserError(f"data.tokenizer: saved(run={self.run!r}) must name the directory of a run.")

    def train(self, texts: list[str]) -> Tokenizer:
        """That of the targets."""
        return self.load().target

    def load(self) -> TokenizerPair:
        """Those of both sides; UserError if the run has none."""
        if not (Path(self.run) / DATA).is_file():
            raise UserError(f"data.tokenizer: saved(run={self.run!r}): there is no run with tokenizers.")
        return TokenizerPair.load(Path(self.run) / ASSETS)

    def left_out(self, texts: list[str]) -> int:
        return 0


TOKENIZERS: dict[str, type[TokenizerTrainer]] = {
    "sentencepiece": SentencePiece,
    "words": Words,
    "characters": Characters,
    "saved": Saved,
}


def resolve_tokenizer(config: DataConfig) -> TokenizerTrainer:
    """What `data.tokenizer` names; UserError if its options are wrong."""
    trainer: TokenizerTrainer = resolve(TOKENIZERS, config.tokenizer, "data.tokenizer")()
    return trainer


def train_tokenizers(config: DataConfig, train: TextSplit) -> TokenizerPair:
    """Trained on the training split: one on both sides together if `data.joint_vocabulary`, else one on each."""
    trainer = resolve_tokenizer(config)
    if isinstance(trainer, Saved):
        return trainer.load()
    if config.joint_vocabulary:
        tokenizer = trainer.train(train.sources + train.references)
        return TokenizerPair(tokenizer, tokenizer)
    return TokenizerPair(trainer.train(train.sources), trainer.train(train.references))


def _find(directory: Path, name: str) -> Path | None:
    candidates = (directory / f"{name}{suffix}" for suffix in LOADERS)
    return next((path for path in candidates if path.is_file()), None)
