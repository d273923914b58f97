"""Several pairs in one row, so that few cells are padding.

Pairs are packed once: which of them share a row depends on the data alone, and so does the number of rows.
"""

import numpy as np

from transformer_jax.data.ragged import Int64Array, Ragged

# Rows that are open at a time. Wider windows fill rows no better and take longer to search.
WINDOW = 64


def assign_rows(source_lengths: Int64Array, target_lengths: Int64Array, capacity: int) -> Int64Array:
    """int64[pairs]: the row of each pair; no row holds more than `capacity` tokens on a side. Every row is used.

    First fit over a window of open rows. The pairs come in an order drawn once for all seeds, because corpora are often
    sorted, by length or by subject, and rows of like pairs fill badly and make batches of a kind.
    """
    rows = np.zeros(len(source_lengths), np.int64)
    space = np.full((2, WINDOW), capacity)
    open_rows = np.arange(WINDOW)
    lengths = np.stack([source_lengths, target_lengths], axis=1)
    for pair in np.random.default_rng(0).permutation(len(rows)):
        fits = (space >= lengths[pair][:, None]).all(axis=0)
        slot = fits.argmax()
        if not fits[slot]:
            slot = space.sum(axis=0).argmin()
            space[:, slot] = capacity
            open_rows[slot] = open_rows.max() + 1
        space[:, slot] -= lengths[pair]
        rows[pair] = open_rows[slot]
    return np.unique(rows, return_inverse=True)[1]


def pack(inputs: Ragged, targets: Ragged, capacity: int) -> dict[str, Ragged]:
    """The rows of packed batches.

    Returns:
      "inputs", "targets": the tokens of the pairs of each row, one after the other.
      "inputs_segments", "targets_segments": 1 for the first pair of the row, 2 for the second, ...
      "inputs_positions", "targets_positions": from 0 on within each pair.
    """
    row_of = assign_rows(inputs.lengths, targets.lengths, capacity)
    pairs = np.argsort(row_of, kind="stable")
    per_row = np.bincount(row_of)
    first_pair = np.concatenate([np.zeros(1, np.int64), np.cumsum(per_row)])
    segment = np.arange(len(pairs)) - np.repeat(first_pair[:-1], per_row) + 1
    fields: dict[str, Ragged] = {}
    for name, side in (("inputs", inputs.take(pairs)), ("targets", targets.take(pairs))):
        offsets = side.offsets[first_pair]
        positions = np.arange(len(side.values)) - np.repeat(side.offsets[:-1], side.lengths)
        fields[name] = Ragged(side.values, offsets)
        fields[f"{name}_positions"] = Ragged(positions.astype(np.int32), offsets)
        fields[f"{name}_segments"] = Ragged(np.repeat(segment, side.lengths).astype(np.int32), offsets)
    return fields
