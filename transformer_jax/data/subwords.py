"""Subwords: SentencePiece (BPE or unigram) with settings under which text survives unchanged."""

import dataclasses
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import sentencepiece

from transformer_jax.data.tokenizer import text_ids
from transformer_jax.errors import UserError
from transformer_jax.files import write_atomically
from transformer_jax.vocabulary import BOS, EOS, NUM_SPECIALS, PAD, UNK

MODEL_TYPES = ("bpe", "unigram")
LONGEST_LINE = 4192  # bytes: SentencePiece's own limit
RESERVED = "\N{LOWER FIVE EIGHTHS BLOCK}"  # stands for what is unknown while it trains
LEFT_OUT = f"SentencePiece leaves out what is longer than {LONGEST_LINE:,} bytes, or holds the sign {RESERVED}"
NUM_BYTES = 256  # byte fallback: a piece for every byte, so nothing is unknown


def open_model(model: bytes, origin: str) -> Any:
    """SentencePiece's processor of the content of a ``.model`` file; UserError, naming `origin`, if it is none."""
    if not model:  # SentencePiece itself accepts an empty model and fails later
        raise UserError(f"{origin}: not a SentencePiece model (empty).")
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise UserError(f"{origin}: not a SentencePiece model, or a damaged one.") from error


class SubwordTokenizer:
    """A SentencePiece model. ``decode(encode(text)) == text``, except that U+2581, its sign for a blank, becomes one.

    Args:
      model: content of a ``.model`` file.
      origin: named in the error.

    Raises:
      UserError: not a SentencePiece model, or one with other special ids than `vocabulary`.
    """

    suffix: ClassVar[str] = ".model"

    def __init__(self, model: bytes, origin: str = "SentencePiece model"):
        self.model, self._processor = model, open_model(model, origin)
        processor = self._processor
        found = (processor.pad_id(), processor.unk_id(), processor.bos_id(), processor.eos_id())
        if found != (PAD, UNK, BOS, EOS):
            raise UserError(
                f"{origin}: its special ids (pad, unk, bos, eos) are {found} where {(PAD, UNK, BOS, EOS)} is needed; "
                "train the model with pad_id=0, unk_id=1, bos_id=2, eos_id=3."
            )

    @property
    def vocab_size(self) -> int:
        return int(self._processor.vocab_size())

    @property
    def pieces(self) -> list[str]:
        """All pieces but the special ones, by their numbers."""
        return [str(self._processor.id_to_piece(number)) for number in range(NUM_SPECIALS, self.vocab_size)]

    def encode(self, texts: list[str]) -> list[list[int]]:
        encoded: list[list[int]] = self._processor.encode(texts)
        return encoded

    def decode(self, ids: Iterable[int]) -> str:
        return str(self._processor.decode(text_ids(ids, self.vocab_size)))

    def to_bytes(self) -> bytes:
        return self.model

    def save(self, path: Path) -> None:
        write_atomically(path, self.model)


@dataclasses.dataclass(frozen=True)
class SentencePiece:
    """``sentencepiece(vocab_size=37000)``.

    Attributes:
      vocab_size: number of ids, the special ids and the 256 bytes included.
      model_type: "bpe" (Section 5.1 of the paper) or "unigram".
    """

    vocab_size: int = 37000
    model_type: str = "bpe"

    def __post_init__(self) -> None:
        if self.model_type not in MODEL_TYPES:
            raise UserError(
                f"data.tokenizer: sentencepiece(model_type={self.model_type!r}); allowed: {', '.join(MODEL_TYPES)}."
            )
        if self.vocab_size <= NUM_SPECIALS + NUM_BYTES:
            raise UserError(
                f"data.tokenizer: sentencepiece(vocab_size={self.vocab_size}) must be above "
                f"{NUM_SPECIALS + NUM_BYTES}, the special ids and the bytes."
            )

    def train(self, texts: list[str]) -> SubwordTokenizer:
        """Trains on `texts`, without those that `left_out` counts."""
        if self.left_out(texts) == len(texts):
            raise UserError(f"{self._where}: no line of the training text can be used; {LEFT_OUT}.")
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=model,
                vocab_size=self.vocab_size,
                model_type=self.model_type,
                # The text comes back as it went in: no normalisation, no squeezing of blanks, no unknown character.
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                character_coverage=1.0,
                byte_fallback=True,
                max_sentence_length=LONGEST_LINE,
                pad_id=PAD,
                unk_id=UNK,
                bos_id=BOS,
                eos_id=EOS,
                num_threads=1,  # the pieces of a unigram model depend on it
                minloglevel=2,
            )
        except RuntimeError as error:
            raise UserError(self._explain(str(error))) from error
        return SubwordTokenizer(model.getvalue())

    def left_out(self, texts: list[str]) -> int:
        """How many of the texts SentencePiece would leave out, which says so nowhere but in its log."""
        return sum(
            RESERVED in text or (len(text) > LONGEST_LINE // 4 and len(text.encode()) > LONGEST_LINE) for text in texts
        )

    @property
    def _where(self) -> str:
        return f"data.tokenizer: sentencepiece(vocab_size={self.vocab_size}, model_type={self.model_type!r})"

    def _explain(self, message: str) -> str:
        where = self._where
        if largest := re.search(r"value <= (\d+)", message):
            return f"{where}: too large for the training text; the largest possible vocab_size is {largest[1]}."
        if smallest := re.search(r"required_chars\. \d+ vs (\d+)", message):
            return f"{where}: too small; the characters of the training text alone need {smallest[1]}."
        return f"{where}: training failed: {message.strip()}"
