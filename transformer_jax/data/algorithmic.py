"""Copy, reverse and sort: tasks whose answer is known, small enough for a test to learn."""

import dataclasses
import math

import numpy as np

from transformer_jax.config import WIDEST, DataConfig
from transformer_jax.data.corpus import TextSplit
from transformer_jax.errors import UserError

MOST_DRAWN = 10**8


@dataclasses.dataclass(frozen=True)
class Copy:
    """``copy(symbols=20)``: the target is the source.

    All sequences are different, so no example of "valid" or "test" occurs in "train".

    Attributes:
      symbols: size of the alphabet; its words are ``0``, ``1``, ...
      min_length, max_length: symbols a sequence; lengths are drawn uniformly.
      examples: of the training split; "valid" and "test" have a tenth each, at least one. All are made at once, so
        examples * max_length is at most MOST_DRAWN.
    """

    symbols: int = 20
    min_length: int = 1
    max_length: int = 10
    examples: int = 2000

    def __post_init__(self) -> None:
        if not (self.symbols >= 1 and 1 <= self.min_length <= self.max_length and self.examples >= 1):
            raise UserError(
                f"data.source: {self} needs symbols and examples from 1 on and 1 <= min_length <= max_length."
            )
        if self.max_length > WIDEST or self.examples * self.max_length > MOST_DRAWN:
            raise UserError(
                f"data.source: {self} is too large; at most: max_length = {WIDEST:,}, and examples * max_length = "
                f"{MOST_DRAWN:,}."
            )
        # Half of the space at most: beyond it, drawing different sequences takes ever longer.
        space = sum(self.symbols**n for n in range(self.min_length, min(self.max_length, self.min_length + 64) + 1))
        if 2 * self._total() > space:
            raise UserError(
                f"data.source: {self} asks for {self._total()} different sequences (valid and test included) where "
                f"only {space} exist; at most half can be used. Lower examples, or raise symbols or max_length."
            )

    def check(self, config: DataConfig) -> None:
        """Nothing else of the config matters."""

    def read(self, config: DataConfig) -> dict[str, TextSplit]:
        """The same examples at every call."""
        rng = np.random.default_rng([self.symbols, self.min_length, self.max_length, self.examples])
        sequences: dict[tuple[int, ...], None] = {}  # a set that keeps its order
        while len(sequences) < self._total():
            length = int(rng.integers(self.min_length, self.max_length + 1))
            sequences[tuple(rng.integers(self.symbols, size=length).tolist())] = None
        drawn, held = list(sequences), self._held_out()
        return {
            "train": self._split(drawn[2 * held :]),
            "valid": self._split(drawn[:held]),
            "test": self._split(drawn[held : 2 * held]),
        }

    def answer(self, sequence: list[int]) -> list[int]:
        """The target of a source."""
        return sequence

    def _held_out(self) -> int:
        return math.ceil(self.examples / 10)

    def _total(self) -> int:
        return self.examples + 2 * self._held_out()

    def _split(self, sequences: list[tuple[int, ...]]) -> TextSplit:
        return TextSplit(
            [" ".join(map(str, sequence)) for sequence in sequences],
            [" ".join(map(str, self.answer(list(sequence)))) for sequence in sequences],
        )


@dataclasses.dataclass(frozen=True)
class Reverse(Copy):
    """``reverse(...)``: the target is the source backwards. Options as for `Copy`."""

    def answer(self, sequence: list[int]) -> list[int]:
        return sequence[::-1]


@dataclasses.dataclass(frozen=True)
class Sort(Copy):
    """``sort(...)``: the target is the source in ascending order. Options as for `Copy`."""

    def answer(self, sequence: list[int]) -> list[int]:
        return sorted(sequence)
