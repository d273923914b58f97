"""Several examples in one, so that few cells are padding.

Examples are packed once: which of them stand together depends on the data alone, and so does how many there are then.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from transformer_jax.data.examples import Column
from transformer_jax.data.ragged import Int64Array, Ragged

# Packed examples that are open at a time. Wider windows fill them no better and take longer to search.
WINDOW = 64


def assign(lengths: Sequence[Int64Array], capacity: int) -> Int64Array:
    """int64[examples]: the packed example of each; none holds more than `capacity` tokens of a side.

    First fit over a window of open ones. The examples come in an order drawn once for all seeds, because corpora are
    often sorted, by length or by subject, and like ones fill badly and make batches of a kind.

    Args:
      lengths: of the examples, for each side.
    """
    sizes = np.stack(lengths, axis=1)
    packed = np.zeros(len(sizes), np.int64)
    space = np.full((len(lengths), WINDOW), capacity)
    open_ones = np.arange(WINDOW)
    for example in np.random.default_rng(0).permutation(len(sizes)):
        fits = (space >= sizes[example][:, None]).all(axis=0)
        slot = int(np.argmax(fits))
        if not fits[slot]:
            slot = int(np.argmin(space.sum(axis=0)))
            space[:, slot] = capacity
            open_ones[slot] = open_ones.max() + 1
        space[:, slot] -= sizes[example]
        packed[example] = open_ones[slot]
    return np.unique(packed, return_inverse=True)[1]


def pack(sides: Mapping[str, Ragged], capacity: int) -> dict[str, Column]:
    """The columns of packed examples.

    Returns:
      For each side, "inputs" say, "inputs": the tokens of its examples, one after the other; "inputs_segments": 1 for
      the first of them, 2 for the second, ...; "inputs_positions": from 0 on within each.
    """
    packed = assign([side.lengths for side in sides.values()], capacity)
    order = np.argsort(packed, kind="stable")
    counts = np.bincount(packed)
    first = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    segment = np.arange(len(order)) - np.repeat(first[:-1], counts) + 1
    columns: dict[str, Column] = {}
    for name, side in ((name, side.take(order)) for name, side in sides.items()):
        offsets = side.offsets[first]
        positions = np.arange(len(side.values)) - np.repeat(side.offsets[:-1], side.lengths)
        segments = np.repeat(segment, side.lengths)
        columns[name] = Column(Ragged(side.values, offsets), name)
        columns[f"{name}_positions"] = Column(Ragged(positions.astype(np.int32), offsets), name, fill=0)
        columns[f"{name}_segments"] = Column(Ragged(segments.astype(np.int32), offsets), name, fill=0)
    return columns
