"""Subwords whose pieces are numbered by a list of their own, as those of Marian models are: a SentencePiece model cuts
the text, and another file says which pieces there are."""

import base64
import binascii
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from transformer_jax.data.subwords import open_model
from transformer_jax.data.tokenizer import text_ids
from transformer_jax.errors import UserError
from transformer_jax.files import read_bytes, write_atomically
from transformer_jax.strict_json import to_json
from transformer_jax.vocabulary import NUM_SPECIALS, UNK

CODE = re.compile(r">>[^<>]*<<")
"""What a text may begin with, to say which language it is to be translated to: one piece."""
BLANK = "\N{LOWER ONE EIGHTH BLOCK}"


class PieceTokenizer:
    """A SentencePiece model and a list of pieces.

    Args:
      model: content of a SentencePiece model; its own numbers are not used.
      pieces: ``pieces[i]`` has the id ``NUM_SPECIALS + i``; all others are unknown.
      origin: named in the error.

    Raises:
      UserError: it is no SentencePiece model, or a piece occurs twice.
    """

    suffix: ClassVar[str] = ".pieces"

    def __init__(self, model: bytes, pieces: list[str], origin: str = "SentencePiece model"):
        self.model, self.pieces = model, pieces
        self._ids = {piece: number for number, piece in enumerate(pieces, start=NUM_SPECIALS)}
        if len(self._ids) < len(pieces):
            raise UserError(f"{origin}: a piece occurs twice.")
        self._processor = open_model(model, origin)

    @property
    def vocab_size(self) -> int:
        return NUM_SPECIALS + len(self.pieces)

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [[self._ids.get(piece, UNK) for piece in self._cut(text)] for text in texts]

    def _cut(self, text: str) -> list[str]:
        code = CODE.match(text)
        rest: list[str] = self._processor.encode(text[code.end() :] if code else text, out_type=str)
        return [code[0], *rest] if code else rest

    def decode(self, ids: Iterable[int]) -> str:
        unknown = self._processor.id_to_piece(self._processor.unk_id())
        pieces = [
            unknown if number == UNK else self.pieces[number - NUM_SPECIALS]
            for number in text_ids(ids, self.vocab_size)
        ]
        return str(self._processor.decode_pieces(pieces)).replace(BLANK, " ").strip()

    def to_bytes(self) -> bytes:
        return to_json({"pieces": self.pieces, "model": base64.b64encode(self.model).decode()}).encode()

    def save(self, path: Path) -> None:
        write_atomically(path, self.to_bytes())


def load_pieces(path: Path) -> PieceTokenizer:
    """Reads what `PieceTokenizer.save` wrote; UserError if it is anything else."""
    try:
        content = json.loads(read_bytes(path))
        fields: dict[str, Any] = content if isinstance(content, dict) else {}
        model = base64.b64decode(str(fields.get("model", "")), validate=True)
    except (ValueError, RecursionError, binascii.Error) as error:
        raise UserError(f"{path}: not a tokenizer file ({error}).") from error
    pieces = fields.get("pieces")
    if not isinstance(pieces, list) or not all(isinstance(piece, str) for piece in pieces):
        raise UserError(f'{path}: not a tokenizer file; expected "pieces" and "model".')
    return PieceTokenizer(model, pieces, str(path))
