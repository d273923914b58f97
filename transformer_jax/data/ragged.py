"""Sequences in one flat array: of different lengths, or windows of it."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


class Sequences(Protocol):
    """Rows of integers."""

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, index: int) -> Int32Array:
        """One of them."""

    @property
    def lengths(self) -> Int64Array:
        """int64[rows]."""

    def take(self, indices: Int64Array) -> "Sequences":
        """The rows `indices`, in that order."""

    def gather(self, indices: Int64Array, width: int, fill: int) -> Int32Array:
        """int32[len(indices), width]: the rows `indices`, filled up with `fill`; index -1 is an empty row.

        `width` must be at least the length of every row asked for.
        """


@dataclasses.dataclass(frozen=True)
class Windows:
    """Row i is ``values[starts[i]:starts[i] + width]``; rows may overlap.

    Attributes:
      values: int32[total].
      starts: int64[rows].
    """

    values: Int32Array
    starts: Int64Array
    width: int

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Int32Array:
        return self.values[self.starts[index] : self.starts[index] + self.width]

    @property
    def lengths(self) -> Int64Array:
        """int64[rows]."""
        return np.full(len(self.starts), self.width, np.int64)

    def take(self, indices: Int64Array) -> "Windows":
        """The rows `indices`, in that order."""
        return dataclasses.replace(self, starts=self.starts[indices])

    def gather(self, indices: Int64Array, width: int, fill: int) -> Int32Array:
        """See `Sequences.gather`."""
        return _gather(self.values, self.starts[indices], np.where(indices < 0, 0, self.width), width, fill)


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Row i is ``values[offsets[i]:offsets[i + 1]]``.

    Attributes:
      values: int32[total].
      offsets: int64[rows + 1], from 0 to total, never falling.
    """

    values: Int32Array
    offsets: Int64Array

    @staticmethod
    def from_rows(rows: Sequence[Sequence[int]]) -> "Ragged":
        """Copies `rows`."""
        lengths = np.array([len(row) for row in rows], np.int64)
        return Ragged(np.fromiter(itertools.chain.from_iterable(rows), np.int32), _offsets(lengths))

    @staticmethod
    def concatenate(parts: Sequence["Ragged"]) -> "Ragged":
        """The rows of all `parts`, one part after the other."""
        lengths = np.concatenate([np.zeros(0, np.int64), *(part.lengths for part in parts)])
        values = np.concatenate([np.zeros(0, np.int32), *(part.values for part in parts)])
        return Ragged(values, _offsets(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Int32Array:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> Int64Array:
        """int64[rows]."""
        return np.diff(self.offsets)

    def take(self, indices: Int64Array) -> "Ragged":
        """The rows `indices`, in that order."""
        return self._sliced(self.offsets[indices], self.offsets[indices + 1] - self.offsets[indices])

    def truncate(self, length: int, last: int) -> "Ragged":
        """Every row longer than `length` cut to it, its final value replaced by `last`."""
        lengths = self.lengths
        cut = self._sliced(self.offsets[:-1], np.minimum(lengths, length))
        cut.values[cut.offsets[1:][lengths > length] - 1] = last
        return cut

    def gather(self, indices: Int64Array, width: int, fill: int) -> Int32Array:
        """See `Sequences.gather`."""
        starts = self.offsets[indices]
        lengths = np.where(indices < 0, 0, self.offsets[indices + 1] - starts)
        return _gather(self.values, starts, lengths, width, fill)

    def _sliced(self, starts: Int64Array, lengths: Int64Array) -> "Ragged":
        offsets = _offsets(lengths)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Ragged(self.values[np.repeat(starts, lengths) + within], offsets)


def _gather(values: Int32Array, starts: Int64Array, lengths: Int64Array, width: int, fill: int) -> Int32Array:
    columns = np.arange(width)
    cells = np.minimum(starts[:, None] + columns, len(values) - 1)
    return np.where(columns < lengths[:, None], values[cells], np.int32(fill))


def _offsets(lengths: Int64Array) -> Int64Array:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
