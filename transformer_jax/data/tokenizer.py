"""What a tokenizer is, and the two whose vocabulary is a plain list: words and characters."""

import collections
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Protocol

from transformer_jax.errors import UserError
from transformer_jax.files import read_bytes, write_atomically
from transformer_jax.strict_json import to_json
from transformer_jax.vocabulary import BOS, EOS, NUM_SPECIALS, PAD, UNK


class Tokenizer(Protocol):
    """Text to ids and back. Ids are below `vocab_size`, which counts the special ids of `vocabulary`."""

    suffix: ClassVar[str]  # of the file it is saved in

    @property
    def vocab_size(self) -> int:
        """Number of ids."""

    @property
    def pieces(self) -> list[str]:
        """What each id is, from NUM_SPECIALS on."""

    def encode(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text, without special ids other than UNK."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` up to the first EOS; PAD and BOS are skipped."""

    def to_bytes(self) -> bytes:
        """The content of its file; equal bytes mean equal tokenizers."""

    def save(self, path: Path) -> None:
        """Writes `to_bytes` in one step: a reader sees the old file or the new one."""


class TokenizerTrainer(Protocol):
    """An entry of `TOKENIZERS`: options in the constructor, then one call."""

    def train(self, texts: list[str]) -> Tokenizer:
        """The tokenizer of `texts`; the same one at every call."""

    def left_out(self, texts: list[str]) -> int:
        """How many of the texts it is trained without."""


def text_ids(ids: Iterable[int], vocab_size: int) -> list[int]:
    """What of a sequence of ids is text: all up to the first EOS but PAD and BOS.

    Ids from `vocab_size` on, which a model with a larger table may predict, count as unknown.
    """
    kept: list[int] = []
    for token in ids:
        if token == EOS:
            break
        if token not in (PAD, BOS):
            kept.append(int(token) if token < vocab_size else UNK)
    return kept


class SymbolTokenizer:
    """A vocabulary of whole words, or of single characters.

    Words are what stands between blanks; decoding joins them with one blank, so runs of blanks are not kept.

    Args:
      unit: "words" or "characters".
      symbols: `symbols[i]` has the id ``NUM_SPECIALS + i``. A word spelt like a special, "<pad>" say, is a word.
    """

    suffix: ClassVar[str] = ".json"

    def __init__(self, unit: str, symbols: list[str]):
        self.unit = unit
        self.symbols = symbols
        self._ids = {symbol: id_ for id_, symbol in enumerate(symbols, start=NUM_SPECIALS)}

    @property
    def vocab_size(self) -> int:
        return NUM_SPECIALS + len(self.symbols)

    @property
    def pieces(self) -> list[str]:
        return self.symbols

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [[self._ids.get(symbol, UNK) for symbol in split_text(self.unit, text)] for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        unknown = "<unk>" if self.unit == "words" else "\N{REPLACEMENT CHARACTER}"
        symbols = [
            unknown if id_ == UNK else self.symbols[id_ - NUM_SPECIALS] for id_ in text_ids(ids, self.vocab_size)
        ]
        return (" " if self.unit == "words" else "").join(symbols)

    def to_bytes(self) -> bytes:
        return to_json({"unit": self.unit, "symbols": self.symbols}, indent=0).encode()

    def save(self, path: Path) -> None:
        write_atomically(path, self.to_bytes())


def split_text(unit: str, text: str) -> list[str]:
    """The words or the characters of `text`."""
    return text.split() if unit == "words" else list(text)


def train_symbols(unit: str, texts: list[str], min_count: int) -> SymbolTokenizer:
    """The symbols seen at least `min_count` times, frequent ones first, ties by code point."""
    counts = collections.Counter(symbol for text in texts for symbol in split_text(unit, text))
    if not counts:
        raise UserError(f"data.tokenizer: the training text holds no {unit}; give one that is not empty.")
    kept = [symbol for symbol, count in counts.items() if count >= min_count]
    if not kept:
        raise UserError(f"data.tokenizer: no symbol occurs {min_count} times in the training text; lower min_count.")
    return SymbolTokenizer(unit, sorted(kept, key=lambda symbol: (-counts[symbol], symbol)))


def load_symbols(path: Path) -> SymbolTokenizer:
    """Reads what `SymbolTokenizer.save` wrote; UserError if it is anything else."""
    try:
        content = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a tokenizer file (no valid JSON: {error}).") from error
    fields: dict[str, Any] = content if isinstance(content, dict) else {}
    unit, symbols = fields.get("unit"), fields.get("symbols", [])
    is_list = isinstance(symbols, list) and all(isinstance(symbol, str) for symbol in symbols)
    if unit not in ("words", "characters") or not symbols or not is_list:
        raise UserError(f'{path}: not a tokenizer file; expected "unit" ("words" or "characters") and "symbols".')
    if len(set(symbols)) != len(symbols):
        raise UserError(f"{path}: damaged tokenizer file, a symbol occurs twice.")
    return SymbolTokenizer(unit, symbols)


@dataclasses.dataclass(frozen=True)
class Words:
    """``words(min_count=1)``: one id per word; rarer words than `min_count` are unknown."""

    min_count: int = 1

    def __post_init__(self) -> None:
        if self.min_count < 1:
            raise UserError(f"data.tokenizer: words(min_count={self.min_count}) must be at least 1.")

    def train(self, texts: list[str]) -> SymbolTokenizer:
        return train_symbols("words", texts, self.min_count)

    def left_out(self, texts: list[str]) -> int:
        return 0


@dataclasses.dataclass(frozen=True)
class Characters:
    """``characters``: one id per code point of the training text."""

    def train(self, texts: list[str]) -> SymbolTokenizer:
        return train_symbols("characters", texts, min_count=1)

    def left_out(self, texts: list[str]) -> int:
        return 0
