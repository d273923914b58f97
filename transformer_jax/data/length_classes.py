"""Pairs of like length together: which classes cost the fewest cells."""

import dataclasses
from typing import TypeVar

import numpy as np

from transformer_jax.data.ragged import Int64Array

Count = TypeVar("Count", int, Int64Array)


@dataclasses.dataclass(frozen=True)
class LengthClass:
    """Batches of one shape.

    Attributes:
      members: int64[n], the rows of the data that belong here, in data order.
      rows: of a batch; the last batch is filled up with empty rows.
      source_width, target_width: of a batch; no member is longer.
    """

    members: Int64Array
    rows: int
    source_width: int
    target_width: int

    @property
    def batches(self) -> int:
        """Batches that hold every member once."""
        return -(-len(self.members) // self.rows)

    @property
    def order(self) -> Int64Array:
        """int64[batches, rows]: the members in data order, then -1 for empty rows."""
        padded = np.full(self.batches * self.rows, -1, np.int64)
        padded[: len(self.members)] = self.members
        return padded.reshape(self.batches, self.rows)


def batch_rows(members: Count, width: int, tokens_per_batch: int, batch_multiple: int) -> Count:
    """Rows of a batch of at most `width` tokens a row, so that `members` fill their batches evenly.

    A multiple of `batch_multiple`; rows * width is at most `tokens_per_batch`, except that there are always
    `batch_multiple` rows; never more rows than it takes to hold all members.
    """
    most = max(tokens_per_batch // width // batch_multiple, 1) * batch_multiple
    batches = -(-members // most)
    return -(-members // (batches * batch_multiple)) * batch_multiple


def choose_classes(
    source_lengths: Int64Array,
    target_lengths: Int64Array,
    most_classes: int,
    tokens_per_batch: int,
    batch_multiple: int,
) -> list[LengthClass]:
    """At most `most_classes` classes with the fewest cells in an epoch, empty rows included.

    Pairs are ordered by the length of their longer side and cut into runs; dynamic programming over the distinct
    lengths finds the best cuts. Of equally good divisions the one with the fewest classes is taken.
    """
    keys, key_of, sizes = np.unique(np.maximum(source_lengths, target_lengths), return_inverse=True, return_counts=True)
    widths = np.zeros((2, len(keys)), np.int64)  # longest source and target among the pairs of each key
    for side, lengths in enumerate((source_lengths, target_lengths)):
        np.maximum.at(widths[side], key_of, lengths)

    most_classes = min(most_classes, len(keys))
    # cells[k, j]: fewest cells for the keys below j in k classes; start[k, j]: the first key of the last of these.
    cells = np.full((most_classes + 1, len(keys) + 1), np.inf)
    start = np.zeros(cells.shape, np.int64)
    cells[0, 0] = 0
    for end in range(1, len(keys) + 1):
        pairs = np.cumsum(sizes[:end][::-1])[::-1]  # in a class of keys i..end-1, for every i
        height = batch_rows(pairs, int(keys[end - 1]), tokens_per_batch, batch_multiple)
        row_cells = np.maximum.accumulate(widths[:, :end][:, ::-1], axis=1)[:, ::-1].sum(axis=0)
        total = cells[:-1, :end] + -(-pairs // height) * height * row_cells
        start[1:, end] = total.argmin(axis=1)
        cells[1:, end] = total.min(axis=1)

    classes: list[LengthClass] = []
    end = len(keys)
    for k in range(int(cells[:, end].argmin()), 0, -1):
        first = int(start[k, end])
        members = np.flatnonzero((key_of >= first) & (key_of < end))
        rows = batch_rows(len(members), int(keys[end - 1]), tokens_per_batch, batch_multiple)
        source_width, target_width = widths[:, first:end].max(axis=1).tolist()
        classes.append(LengthClass(members, rows, source_width, target_width))
        end = first
    return classes[::-1]
