"""Examples of like length together: which classes cost the fewest cells."""

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from transformer_jax.data.ragged import Int64Array

Count = TypeVar("Count", int, Int64Array)


@dataclasses.dataclass(frozen=True)
class LengthClass:
    """Batches of one shape.

    Attributes:
      members: int64[n], the examples that belong here, in data order.
      size: how many examples a batch has; the last batch is filled up with empty ones.
      widths: side -> its width in a batch; no member is longer.
    """

    members: Int64Array
    size: int
    widths: Mapping[str, int]

    @property
    def batches(self) -> int:
        """Batches that hold every member once."""
        return -(-len(self.members) // self.size)

    @property
    def order(self) -> Int64Array:
        """int64[batches, size]: the members in data order, then -1 for places without an example."""
        padded = np.full(self.batches * self.size, -1, np.int64)
        padded[: len(self.members)] = self.members
        return padded.reshape(self.batches, self.size)


def batch_size(members: Count, width: int, tokens_per_batch: int, batch_multiple: int) -> Count:
    """Examples of a batch of at most `width` tokens each, so that `members` fill their batches evenly.

    A multiple of `batch_multiple`; times `width` it is at most `tokens_per_batch`, except that it is always at least
    `batch_multiple`; never more than it takes to hold all members.
    """
    most = max(tokens_per_batch // width // batch_multiple, 1) * batch_multiple
    batches = -(-members // most)
    return -(-members // (batches * batch_multiple)) * batch_multiple


def choose_classes(
    lengths: Mapping[str, Int64Array], most_classes: int, tokens_per_batch: int, batch_multiple: int
) -> list[LengthClass]:
    """At most `most_classes` classes with the fewest cells in an epoch, places without an example included.

    Examples are ordered by the length of their longest side and cut into runs; dynamic programming over the distinct
    lengths finds the best cuts. Of equally good divisions the one with the fewest classes is taken.

    Args:
      lengths: side -> int64[examples].
    """
    longest = np.maximum.reduce(list(lengths.values()))
    keys, key_of, sizes = np.unique(longest, return_inverse=True, return_counts=True)
    widths = np.zeros((len(lengths), len(keys)), np.int64)  # the longest of each side among the examples of each key
    for side, of_side in enumerate(lengths.values()):
        np.maximum.at(widths[side], key_of, of_side)

    most_classes = min(most_classes, len(keys))
    # cells[k, j]: fewest cells for the keys below j in k classes; start[k, j]: the first key of the last of these.
    cells = np.full((most_classes + 1, len(keys) + 1), np.inf)
    start = np.zeros(cells.shape, np.int64)
    cells[0, 0] = 0
    for end in range(1, len(keys) + 1):
        members = np.cumsum(sizes[:end][::-1])[::-1]  # in a class of keys i..end-1, for every i
        size = batch_size(members, int(keys[end - 1]), tokens_per_batch, batch_multiple)
        example_cells = np.maximum.accumulate(widths[:, :end][:, ::-1], axis=1)[:, ::-1].sum(axis=0)
        total = cells[:-1, :end] + -(-members // size) * size * example_cells
        start[1:, end] = total.argmin(axis=1)
        cells[1:, end] = total.min(axis=1)

    classes: list[LengthClass] = []
    end = len(keys)
    for k in range(int(cells[:, end].argmin()), 0, -1):
        first = int(start[k, end])
        members = np.flatnonzero((key_of >= first) & (key_of < end))
        count = batch_size(len(members), int(keys[end - 1]), tokens_per_batch, batch_multiple)
        width = dict(zip(lengths, widths[:, first:end].max(axis=1).tolist(), strict=True))
        classes.append(LengthClass(members, count, width))
        end = first
    return classes[::-1]
