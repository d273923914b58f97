"""Letters and sounds: words and their pronunciations, from a dictionary in the format of CMUdict."""

import dataclasses
import hashlib
import re

from transformer_jax.config import DataConfig
from transformer_jax.data.corpus import TextSplit
from transformer_jax.data.pairs import PairSource
from transformer_jax.data.parallel_text import find_directory, read_lines
from transformer_jax.errors import UserError

VARIANT = re.compile(r"\([0-9]+\)$")
"""What stands behind a word on the lines of its further pronunciations."""
STRESS = re.compile(r"[0-9]")
BETWEEN = " | "
"""Between the pronunciations of a word that are all right."""


@dataclasses.dataclass(frozen=True)
class Pronunciations(PairSource):
    """``pronunciations(file="cmudict.dict", stress=True)``: the letters of a word, then its phonemes, blanks between.

    A line of the file is ``word PH PH ...``, or ``word(2) PH PH ...`` for a further pronunciation; what follows " #" is
    a remark. The split is by word: the first 8 hex digits of its SHA-256 modulo 100 are 0 to 4 for "valid", 5 to 14 for
    "test". Each pronunciation of a training word is a pair; of others the first is the target, and all are right.

    Attributes:
      file: its name in `data.directory`.
      stress: keeps the digits of vowels, which say how they are stressed.
    """

    file: str = "cmudict.dict"
    stress: bool = True

    def __post_init__(self) -> None:
        if not self.file.strip() or "\0" in self.file:
            raise UserError(f"data.source: pronunciations(file={self.file!r}) must be the name of a file.")

    def read(self, config: DataConfig) -> dict[str, TextSplit]:
        words = self._words(config)
        chosen = {word: _split_of(word) for word in words}
        train = [(word, said) for word, every in words.items() if chosen[word] == "train" for said in every]
        held_out = {
            name: [(word, every) for word, every in words.items() if chosen[word] == name] for name in ("valid", "test")
        }
        return {
            "train": TextSplit([" ".join(word) for word, _ in train], [said for _, said in train]),
            **{
                name: TextSplit(
                    [" ".join(word) for word, _ in pairs],
                    [every[0] for _, every in pairs],
                    [BETWEEN.join(every) for _, every in pairs],
                )
                for name, pairs in held_out.items()
            },
        }

    def _words(self, config: DataConfig) -> dict[str, list[str]]:
        """Word -> its pronunciations, in the order of the file."""
        path = find_directory(config.directory) / self.file
        words: dict[str, list[str]] = {}
        for number, line in enumerate(read_lines(path), 1):
            parts = line.partition(" #")[0].split()
            if len(parts) < 2:
                raise UserError(f"{path}, line {number}: holds no word with phonemes after it.")
            word, *phonemes = parts
            said = " ".join(phonemes if self.stress else [STRESS.sub("", phoneme) for phoneme in phonemes])
            every = words.setdefault(VARIANT.sub("", word), [])
            if said not in every:  # without stress several may be one
                every.append(said)
        return words


def _split_of(word: str) -> str:
    """A hash, so that the pronunciations of a word stay together and no state is kept."""
    place = int(hashlib.sha256(word.encode()).hexdigest()[:8], 16) % 100
    return "valid" if place < 5 else "test" if place < 15 else "train"
