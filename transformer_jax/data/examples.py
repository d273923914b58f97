"""The examples of a split as arrays: one column for each field of a batch."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from transformer_jax.data.ragged import Int64Array, Sequences
from transformer_jax.vocabulary import PAD


@dataclasses.dataclass(frozen=True)
class Column:
    """A field of all examples.

    Attributes:
      rows: entry i is that of example i: sequences, or arrays of one shape for all, [examples, ...].
      side: fields of one side ("inputs", "targets") have one width in a batch. Arrays, as wide as they are, have none.
      fill: what stands behind the end of a ragged entry, and in the places of a batch that hold no example.
    """

    rows: Sequences | npt.NDArray
    side: str | None = None
    fill: int = PAD

    def gather(self, indices: Int64Array, width: int) -> npt.NDArray:
        """The entries of those examples, [len(indices), width] if they are sequences; at index -1 only `fill`."""
        if not isinstance(self.rows, np.ndarray):
            return self.rows.gather(indices, width, self.fill)
        empty = (indices < 0).reshape(-1, *[1] * (self.rows.ndim - 1))
        return np.where(empty, np.asarray(self.fill, self.rows.dtype), self.rows[indices])

    def take(self, indices: Int64Array) -> "Column":
        """The column of those examples, in that order."""
        rows = self.rows[indices] if isinstance(self.rows, np.ndarray) else self.rows.take(indices)
        return dataclasses.replace(self, rows=rows)


@dataclasses.dataclass(frozen=True)
class Examples:
    """A split.

    Attributes:
      columns: name of a field of a batch -> its column.
      texts: what people read and metrics compare, untouched: name -> a text for each example. Empty where nobody needs
        them, as in "train".
      dropped: examples left out because a side was too long (only "train", and `data.over_long` "drop").
      cut: int64[n], the examples of which a side was cut to `data.max_length`.
    """

    columns: Mapping[str, Column]
    texts: Mapping[str, list[str]] = dataclasses.field(default_factory=dict)
    dropped: int = 0
    cut: Int64Array = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())).rows)

    @property
    def truncated(self) -> int:
        """How many examples were cut."""
        return len(self.cut)

    def losses(self, name: str, max_length: int) -> list[str]:
        """A sentence on the examples that were left out, and one on those that were cut, where there are any."""
        limit = f"data.max_length = {max_length} tokens"
        said = []
        if self.dropped:
            share = f"{self.dropped:,} of {len(self) + self.dropped:,} examples of {name}"
            said.append(f"{share} left out: a side is longer than {limit}.")
        if self.truncated:
            share = f"{self.truncated:,} of {len(self):,} examples of {name}"
            said.append(f"{share} cut: a side is longer than {limit}, and what lies beyond is not seen.")
        return said

    def sides(self) -> dict[str, Sequences]:
        """Side -> the field that its width is measured by, the one of the same name."""
        return {name: self.sequences(name) for name, column in self.columns.items() if column.side == name}

    def sequences(self, name: str) -> Sequences:
        """The rows of a field of sequences."""
        rows = self.columns[name].rows
        assert not isinstance(rows, np.ndarray), name
        return rows

    def first(self, count: int) -> "Examples":
        """The first examples of it."""
        kept = np.arange(min(count, len(self)))
        columns = {name: column.take(kept) for name, column in self.columns.items()}
        return Examples(columns, {name: texts[:count] for name, texts in self.texts.items()})


def columns_of(**sides: Sequences) -> dict[str, Column]:
    """A column for each side that is one sequence of tokens."""
    return {name: Column(rows, side=name) for name, rows in sides.items()}
