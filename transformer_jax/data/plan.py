"""The batch of step t: which shape it has, and which examples are in it.

A plan depends on the data alone: shapes, their number, and their order over the steps are the same for every seed. The
seed only says which examples of a length class stand in which of its batches. So all seeds of a config can run in one
program, none runs out of memory where another did not, and a run is resumed by asking for the batch of its next step.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from transformer_jax.config import FIELDS, DataConfig
from transformer_jax.data.examples import Column, Examples
from transformer_jax.data.length_classes import LengthClass, batch_size, choose_classes
from transformer_jax.data.packing import pack
from transformer_jax.data.ragged import Int64Array, Ragged, Sequences
from transformer_jax.errors import UserError

Batch = dict[str, npt.NDArray]

# Every lane asks for its own permutation at each step, so many are kept; but with a large corpus they may not take more
# than 2**26 indices, half a gigabyte.
MOST_PERMUTATIONS, MOST_INDICES = 1024, 2**26

# Each shape of an evaluation is one more program to compile, for decoding too, which costs more than padding does. So
# widths are powers of two and sizes follow from them alone: all splits, and `translate`, share their programs.
SMALLEST_WIDTH, EVALUATION_TOKENS = 16, 4096


class Shape(NamedTuple):
    """The shape of a batch, and how many batches of an epoch have it."""

    size: int
    widths: Mapping[str, int]
    batches: int


class Plan:
    """All batches of all epochs of a split.

    Args:
      columns: name of a field of a batch -> its column.
      classes: every example belongs to one.
    """

    def __init__(self, columns: Mapping[str, Column], classes: Sequence[LengthClass]):
        self._columns = columns
        self._classes = classes
        largest = max(len(a_class.members) for a_class in classes)
        kept = min(MOST_PERMUTATIONS, max(2 * len(classes), MOST_INDICES // largest))
        self._shuffled = functools.lru_cache(kept)(self._shuffle)
        self._schedule = functools.lru_cache(2)(self._draw_schedule)

    @property
    def shapes(self) -> list[Shape]:
        """The shapes of the classes: one compiled program each."""
        return [Shape(a_class.size, a_class.widths, a_class.batches) for a_class in self._classes]

    @property
    def batches_per_epoch(self) -> int:
        """Steps in which every example is seen exactly once."""
        return sum(a_class.batches for a_class in self._classes)

    @property
    def padding_share(self) -> dict[str, float]:
        """Side -> the share of its cells that hold no token."""
        shares = {}
        for name, column in self._columns.items():
            if name == column.side and not isinstance(column.rows, np.ndarray):
                cells = sum(shape.batches * shape.size * shape.widths[name] for shape in self.shapes)
                shares[name] = 1 - int(column.rows.lengths.sum()) / cells
        return shares

    def class_at(self, step: int) -> int:
        """Index into `shapes` of the batch of `step`; the same for every seed."""
        return self._locate(step)[1]

    def batch_at(self, step: int, seed: int) -> Batch:
        """The batch of `step` (from 0): a function of the data, `seed` and `step` alone.

        Returns:
          Every field of every example, [size, width] for sequences: "inputs" and "targets", say, int32, filled up with
          PAD; packed ones also have "inputs_positions", "inputs_segments" and the same of the targets.
        """
        epoch, class_index, turn = self._locate(step)
        return self._gather(self._shuffled(seed, epoch, class_index)[turn], self._classes[class_index])

    def in_order(self) -> Iterator[tuple[Int64Array, Batch]]:
        """Every example once: int64[size] of their indices (-1 for places without one), and the batch."""
        for a_class in self._classes:
            for indices in a_class.order:
                yield indices, self._gather(indices, a_class)

    def summary(self) -> dict[str, Any]:
        """For the log and for ``data.json``."""
        return {
            "batches_per_epoch": self.batches_per_epoch,
            "shapes": [shape._asdict() for shape in self.shapes],
            "padding": self.padding_share,
        }

    def _locate(self, step: int) -> tuple[int, int, int]:
        """Epoch, class, and how many batches of that class came before in the epoch."""
        epoch, within = divmod(step, self.batches_per_epoch)
        classes, turns = self._schedule(epoch)
        return epoch, int(classes[within]), int(turns[within])

    def _draw_schedule(self, epoch: int) -> tuple[Int64Array, Int64Array]:
        """int64[batches_per_epoch] each: the class of every batch, and its turn within the class. No seed comes in."""
        counts = [a_class.batches for a_class in self._classes]
        classes = np.random.default_rng([epoch]).permutation(np.repeat(np.arange(len(counts)), counts))
        turns = np.empty_like(classes)
        turns[np.argsort(classes, kind="stable")] = np.concatenate([np.arange(count) for count in counts])
        return classes, turns

    def _shuffle(self, seed: int, epoch: int, class_index: int) -> Int64Array:
        """int64[batches, size]: a class in the order of this seed and epoch; empty places stay at the end."""
        a_class = self._classes[class_index]
        order = a_class.order
        order.reshape(-1)[: len(a_class.members)] = np.random.default_rng([seed, epoch, class_index]).permutation(
            a_class.members
        )
        return order

    def _gather(self, indices: Int64Array, a_class: LengthClass) -> Batch:
        return {
            name: column.gather(indices, a_class.widths[column.side] if column.side else 0)
            for name, column in self._columns.items()
        }


def make_plan(split: Examples, config: DataConfig) -> Plan:
    """The training plan: examples by length, or packed, as `data.batching` says.

    Raises:
      UserError: batches of `data.batch_multiple` examples are far more than there are, or than
        `data.tokens_per_batch`.
    """
    if config.batch_multiple > max(len(split), FIELDS["data.batch_multiple"].default):
        raise UserError(
            f"data.batch_multiple = {config.batch_multiple:,} is more than the {len(split):,} training examples: the "
            "rest of each batch would be empty. Set it lower."
        )
    plan = _packed(split, config) if config.batching == "packed" else _by_length(split, config)
    fewest = config.batch_multiple * max(max(shape.widths.values()) for shape in plan.shapes)
    if fewest > config.tokens_per_batch:
        raise UserError(
            f"data.tokens_per_batch = {config.tokens_per_batch:,} is too few for the longest of the training data: "
            f"data.batch_multiple = {config.batch_multiple:,} such examples are {fewest:,} tokens a side. Set it "
            "higher, or data.batch_multiple or data.max_length lower."
        )
    return plan


def _by_length(split: Examples, config: DataConfig) -> Plan:
    classes = choose_classes(_lengths(split), config.length_classes, config.tokens_per_batch, config.batch_multiple)
    return Plan(split.columns, classes)


def evaluation_batches(split: Examples, config: DataConfig) -> Iterator[tuple[Int64Array, Batch]]:
    """Every example of the split exactly once, in a fixed order, never packed, in shapes that all splits share.

    Yields:
      int64[size]: the example at each place, -1 for a place without one.
      The batch, as `Plan.batch_at` gives it; all sides, where there are any, are as wide as the next power of two.
    """
    lengths = _lengths(split)
    longest = np.maximum.reduce(list(lengths.values()))
    widths = np.maximum(2 ** np.ceil(np.log2(np.maximum(longest, 1))).astype(np.int64), SMALLEST_WIDTH)
    if not split.sides():
        widths = longest
    tokens = min(config.tokens_per_batch, EVALUATION_TOKENS)
    classes = []
    for width in np.unique(widths).tolist():
        size = max(tokens // width // config.batch_multiple, 1) * config.batch_multiple
        members = np.flatnonzero(widths == width)
        members = members[np.argsort(longest[members], kind="stable")]  # those alike in length are done at one time
        classes.append(LengthClass(members, size, dict.fromkeys(lengths, width)))
    if classes:
        yield from Plan(split.columns, classes).in_order()


def _lengths(split: Examples) -> dict[str, Int64Array]:
    """Side -> the length of each example; examples without sequences are all of length 1."""
    sides = {name: side.lengths for name, side in split.sides().items()}
    return sides or {"": np.ones(len(split), np.int64)}


def _packed(split: Examples, config: DataConfig) -> Plan:
    columns = pack({name: _ragged(rows) for name, rows in split.sides().items()}, config.max_length)
    lengths = {name: rows.lengths for name, rows in Examples(columns).sides().items()}
    widths = {name: int(of_side.max()) for name, of_side in lengths.items()}
    count = len(next(iter(lengths.values())))
    size = batch_size(count, max(widths.values()), config.tokens_per_batch, config.batch_multiple)
    return Plan(columns, [LengthClass(np.arange(count), size, widths)])


def _ragged(rows: Sequences) -> Ragged:
    assert isinstance(rows, Ragged)  # sources of windows refuse to be packed
    return rows
