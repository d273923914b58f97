"""The batch of step t: which shape it has, and which pairs are in it.

A plan depends on the data alone: shapes, their number, and their order over the steps are the same for every seed. The
seed only says which pairs of a length class stand in which of its batches. So all seeds of a config can run in one
program, none runs out of memory where another did not, and a run is resumed by asking for the batch of its next step.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from transformer_jax.config import FIELDS, DataConfig
from transformer_jax.data.dataset import EncodedSplit
from transformer_jax.data.length_classes import LengthClass, batch_rows, choose_classes
from transformer_jax.data.packing import pack
from transformer_jax.data.ragged import Int32Array, Int64Array, Ragged
from transformer_jax.errors import UserError

Batch = dict[str, Int32Array]

# Every lane of a population asks for its own permutation at each step, so many are kept; but with a large corpus they
# may not take more than 2**26 indices, half a gigabyte.
MOST_PERMUTATIONS, MOST_INDICES = 1024, 2**26

# Each shape of an evaluation is one more program to compile, for decoding too, which costs more than padding does. So
# widths are powers of two and rows follow from them alone: all splits, and `translate`, share their programs.
SMALLEST_WIDTH, EVALUATION_TOKENS = 16, 4096


class Shape(NamedTuple):
    """Of a batch, and how many batches of an epoch have it."""

    rows: int
    source_width: int
    target_width: int
    batches: int


class Plan:
    """All batches of all epochs of a split.

    Args:
      fields: entries of a batch -> the rows of the data; the names of the source side begin with "inputs".
      classes: every row of the data belongs to one.
    """

    def __init__(self, fields: Mapping[str, Ragged], classes: Sequence[LengthClass]):
        self._fields = fields
        self._classes = classes
        largest = max(len(each.members) for each in classes)
        kept = min(MOST_PERMUTATIONS, max(2 * len(classes), MOST_INDICES // largest))
        self._shuffled = functools.lru_cache(kept)(self._shuffle)
        self._schedule = functools.lru_cache(2)(self._draw_schedule)

    @property
    def shapes(self) -> list[Shape]:
        """The shapes of the classes: one compiled program each."""
        return [Shape(each.rows, each.source_width, each.target_width, each.batches) for each in self._classes]

    @property
    def batches_per_epoch(self) -> int:
        """Steps in which every pair is seen exactly once."""
        return sum(each.batches for each in self._classes)

    @property
    def padding_share(self) -> tuple[float, float]:
        """Share of cells, of the source and of the target side, that hold no token."""
        source = sum(shape.batches * shape.rows * shape.source_width for shape in self.shapes)
        target = sum(shape.batches * shape.rows * shape.target_width for shape in self.shapes)
        return 1 - len(self._fields["inputs"].values) / source, 1 - len(self._fields["targets"].values) / target

    def class_at(self, step: int) -> int:
        """Index into `shapes` of the batch of `step`; the same for every seed."""
        return self._locate(step)[1]

    def batch_at(self, step: int, seed: int) -> Batch:
        """The batch of `step` (from 0): a function of the data, `seed` and `step` alone.

        Returns:
          "inputs": int32[rows, source_width] and "targets": int32[rows, target_width], filled up with PAD; packed ones
          also have "inputs_positions", "inputs_segments" and the same of the targets, filled up with 0.
        """
        epoch, class_index, turn = self._locate(step)
        return self._gather(self._shuffled(seed, epoch, class_index)[turn], self._classes[class_index])

    def in_order(self) -> Iterator[tuple[Int64Array, Batch]]:
        """Every row of the data once: int64[rows] of their indices (-1 for empty rows), and the batch."""
        for each in self._classes:
            for indices in each.order:
                yield indices, self._gather(indices, each)

    def summary(self) -> dict[str, Any]:
        """For the log and for ``result.json``."""
        source, target = self.padding_share
        return {
            "batches_per_epoch": self.batches_per_epoch,
            "shapes": [shape._asdict() for shape in self.shapes],
            "source_padding": source,
            "target_padding": target,
        }

    def _locate(self, step: int) -> tuple[int, int, int]:
        """Epoch, class, and how many batches of that class came before in the epoch."""
        epoch, within = divmod(step, self.batches_per_epoch)
        classes, turns = self._schedule(epoch)
        return epoch, int(classes[within]), int(turns[within])

    def _draw_schedule(self, epoch: int) -> tuple[Int64Array, Int64Array]:
        """int64[batches_per_epoch] each: the class of every batch, and its turn within the class. No seed comes in."""
        counts = [each.batches for each in self._classes]
        classes = np.random.default_rng([epoch]).permutation(np.repeat(np.arange(len(counts)), counts))
        turns = np.empty_like(classes)
        turns[np.argsort(classes, kind="stable")] = np.concatenate([np.arange(count) for count in counts])
        return classes, turns

    def _shuffle(self, seed: int, epoch: int, class_index: int) -> Int64Array:
        """int64[batches, rows]: the rows of a class in the order of this seed and epoch; empty rows stay at the end."""
        each = self._classes[class_index]
        order = each.order
        order.reshape(-1)[: len(each.members)] = np.random.default_rng([seed, epoch, class_index]).permutation(
            each.members
        )
        return order

    def _gather(self, indices: Int64Array, each: LengthClass) -> Batch:
        return {
            name: rows.gather(indices, each.source_width if name.startswith("inputs") else each.target_width)
            for name, rows in self._fields.items()
        }


def make_plan(split: EncodedSplit, config: DataConfig) -> Plan:
    """The training plan: pairs by length, or packed, as `data.batching` says.

    Raises:
      UserError: batches of `data.batch_multiple` rows are far more than the pairs, or than `data.tokens_per_batch`.
    """
    if config.batch_multiple > max(len(split), FIELDS["data.batch_multiple"].default):
        raise UserError(
            f"data.batch_multiple = {config.batch_multiple:,} is more than the {len(split):,} training pairs: the "
            "rest of each batch would be empty. Set it lower."
        )
    plan = _packed(split, config) if config.batching == "packed" else _by_length(split, config)
    fewest = config.batch_multiple * max(max(shape.source_width, shape.target_width) for shape in plan.shapes)
    if fewest > config.tokens_per_batch:
        raise UserError(
            f"data.tokens_per_batch = {config.tokens_per_batch:,} is too few for the longest of the training data: "
            f"data.batch_multiple = {config.batch_multiple:,} such rows are {fewest:,} tokens a side. Set it higher, "
            "or data.batch_multiple or data.max_length lower."
        )
    return plan


def _by_length(split: EncodedSplit, config: DataConfig) -> Plan:
    classes = choose_classes(
        split.inputs.lengths,
        split.targets.lengths,
        config.length_classes,
        config.tokens_per_batch,
        config.batch_multiple,
    )
    return Plan({"inputs": split.inputs, "targets": split.targets}, classes)


def evaluation_batches(split: EncodedSplit, config: DataConfig) -> Iterator[tuple[Int64Array, Batch]]:
    """Every pair of the split exactly once, in a fixed order, never packed, in shapes that all splits share.

    Yields:
      int64[rows]: the pair of each row, -1 for an empty row.
      The batch, as `Plan.batch_at` gives it; both sides are as wide as the next power of two.
    """
    longest = np.maximum(split.inputs.lengths, split.targets.lengths)
    widths = np.maximum(2 ** np.ceil(np.log2(np.maximum(longest, 1))).astype(np.int64), SMALLEST_WIDTH)
    tokens = min(config.tokens_per_batch, EVALUATION_TOKENS)
    classes = []
    for width in np.unique(widths).tolist():
        rows = max(tokens // width // config.batch_multiple, 1) * config.batch_multiple
        classes.append(LengthClass(np.flatnonzero(widths == width), rows, width, width))
    if classes:
        yield from Plan({"inputs": split.inputs, "targets": split.targets}, classes).in_order()


def _packed(split: EncodedSplit, config: DataConfig) -> Plan:
    fields = pack(split.inputs, split.targets, config.max_length)
    num_rows = len(fields["inputs"])
    widths = [int(fields[name].lengths.max()) for name in ("inputs", "targets")]
    rows = batch_rows(num_rows, max(widths), config.tokens_per_batch, config.batch_multiple)
    return Plan(fields, [LengthClass(np.arange(num_rows), rows, *widths)])
