"""Packed rows: nothing lost, nothing mixed up."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer_jax.config import DataConfig
from transformer_jax.data import Examples, make_plan
from transformer_jax.data.examples import columns_of
from transformer_jax.data.packing import assign, pack
from transformer_jax.data.ragged import Ragged

CAPACITY = 12
side = st.lists(st.integers(4, 99), min_size=1, max_size=CAPACITY)
pairs_of_tokens = st.lists(st.tuples(side, side), min_size=1, max_size=40)


def ragged(pairs):
    return Ragged.from_rows([pair[0] for pair in pairs]), Ragged.from_rows([pair[1] for pair in pairs])


def unpack(batch):
    """The pairs in the rows of a batch, taken apart by segment ids alone; checks positions on the way."""
    for row in range(len(batch["inputs"])):
        segments = [batch[f"{side}_segments"][row] for side in ("inputs", "targets")]
        assert set(segments[0]) - {0} == set(segments[1]) - {0}
        for number in range(1, segments[0].max() + 1):
            pair = []
            for name, segment in zip(("inputs", "targets"), segments, strict=True):
                cells = np.flatnonzero(segment == number)
                assert (np.diff(cells) == 1).all()
                assert (batch[f"{name}_positions"][row, cells] == np.arange(len(cells))).all()
                pair.append(batch[name][row, cells].tolist())
            yield tuple(pair)
        for name, segment in zip(("inputs", "targets"), segments, strict=True):
            assert not batch[name][row, segment == 0].any()
            assert not batch[f"{name}_positions"][row, segment == 0].any()


@settings(max_examples=50, deadline=None)
@given(pairs_of_tokens)
def test_packed_batches_hold_every_pair_once(pairs):
    inputs, targets = ragged(pairs)
    split = Examples(columns_of(inputs=inputs, targets=targets))
    config = DataConfig(batching="packed", max_length=CAPACITY, tokens_per_batch=48, batch_multiple=2)
    plan = make_plan(split, config)
    ((rows, widths, batches),) = plan.shapes
    assert rows % 2 == 0
    assert rows * max(widths.values()) <= 48
    seen = []
    for step in range(batches):
        batch = plan.batch_at(step, seed=3)
        assert {name: array.shape for name, array in batch.items()} == {
            f"{name}{suffix}": (rows, width)
            for name, width in widths.items()
            for suffix in ("", "_positions", "_segments")
        }
        assert all(array.dtype == np.int32 for array in batch.values())
        seen += unpack(batch)
    assert sorted(seen) == sorted(pairs)


@given(pairs_of_tokens)
def test_no_row_overflows(pairs):
    inputs, targets = ragged(pairs)
    rows = assign([inputs.lengths, targets.lengths], CAPACITY)
    assert set(rows) == set(range(rows.max() + 1))
    for lengths in (inputs.lengths, targets.lengths):
        assert np.bincount(rows, weights=lengths).max() <= CAPACITY


def test_rows_are_nearly_full_even_if_the_corpus_is_sorted():
    lengths = np.sort(np.random.default_rng(1).integers(2, 30, 4000))
    rows = assign([lengths, lengths], 128)
    assert lengths.sum() / (128 * (rows.max() + 1)) > 0.95


def test_packing_wastes_less_than_one_pair_a_row():
    pairs = [([5] * 3, [6] * 4)] * 300
    fields = pack(dict(zip(("inputs", "targets"), ragged(pairs), strict=True)), CAPACITY)
    assert len(fields["inputs"].rows) == 100  # three targets of four tokens fill a row
