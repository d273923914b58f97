"""WordPiece, as BERT models cut their texts: words, then the longest known beginning, again and again."""

import json
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from transformer_jax.data.tokenizer import text_ids
from transformer_jax.errors import UserError
from transformer_jax.files import read_bytes, write_atomically
from transformer_jax.strict_json import to_json
from transformer_jax.vocabulary import NUM_SPECIALS, UNK

INSIDE = "##"
"""What a piece begins with that does not begin a word."""
LONGEST_WORD = 100
"""Letters; a longer word is unknown."""
IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2CEAF), (0x2F800, 0x2FA1F))
"""Code points each of which is a word."""


class WordPieceTokenizer:
    """A list of pieces.

    Args:
      pieces: ``pieces[i]`` has the id ``NUM_SPECIALS + i``.
      lower: texts are lower-cased, and accents are taken off.
      origin: named in the error.

    Raises:
      UserError: a piece occurs twice.
    """

    suffix: ClassVar[str] = ".wordpiece"

    def __init__(self, pieces: list[str], lower: bool, origin: str = "WordPiece"):
        self.pieces, self.lower = pieces, lower
        self._ids = {piece: number for number, piece in enumerate(pieces, start=NUM_SPECIALS)}
        if len(self._ids) < len(pieces):
            raise UserError(f"{origin}: a piece occurs twice.")

    @property
    def vocab_size(self) -> int:
        return NUM_SPECIALS + len(self.pieces)

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [[id_ for word in split_words(text, self.lower) for id_ in self._cut(word)] for text in texts]

    def _cut(self, word: str) -> list[int]:
        """Unknown as a whole where any of it is."""
        found: list[int] = []
        start = 0
        while start < len(word) <= LONGEST_WORD:
            mark = INSIDE if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if mark + word[start:end] in self._ids), None)
            if end is None:
                return [UNK]
            found.append(self._ids[mark + word[start:end]])
            start = end
        return found or [UNK]

    def decode(self, ids: Iterable[int]) -> str:
        """Blanks stand between words and signs; capitals and accents are not known any more."""
        kept = text_ids(ids, self.vocab_size)
        pieces = ["<unk>" if id_ == UNK else self.pieces[id_ - NUM_SPECIALS] for id_ in kept]
        return " ".join(pieces).replace(f" {INSIDE}", "")

    def to_bytes(self) -> bytes:
        return to_json({"lower": self.lower, "pieces": self.pieces}, indent=0).encode()

    def save(self, path: Path) -> None:
        write_atomically(path, self.to_bytes())


def split_words(text: str, lower: bool) -> list[str]:
    """Words, each sign and each ideograph by itself; characters that cannot be seen are left out."""
    if lower:
        text = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    return "".join(_apart(character) for character in text).split()


def _apart(character: str) -> str:
    """The character, with blanks around it where it is a word of its own."""
    if character.isspace():
        return " "
    category = unicodedata.category(character)
    if category.startswith("C") or character == "\N{REPLACEMENT CHARACTER}":
        return ""
    is_sign = category.startswith("P") or (character.isascii() and not character.isalnum())
    alone = is_sign or any(first <= ord(character) <= last for first, last in IDEOGRAPHS)
    return f" {character} " if alone else character


def load_wordpiece(path: Path) -> WordPieceTokenizer:
    """Reads what `WordPieceTokenizer.save` wrote; UserError if it is anything else."""
    try:
        content = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a tokenizer file ({error}).") from error
    fields: dict[str, Any] = content if isinstance(content, dict) else {}
    pieces, lower = fields.get("pieces"), fields.get("lower")
    if not isinstance(pieces, list) or not all(isinstance(piece, str) for piece in pieces) or type(lower) is not bool:
        raise UserError(f'{path}: not a tokenizer file; expected "pieces" and "lower".')
    return WordPieceTokenizer(pieces, lower, str(path))
