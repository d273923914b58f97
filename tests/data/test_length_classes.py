"""Length classes: valid, within the budget, and as good as any other division."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer_jax.data.length_classes import batch_size, choose_classes

lengths = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=60)


def cells(classes):
    return sum(each.batches * each.size * sum(each.widths.values()) for each in classes)


def cells_of_division(source, target, edges, tokens_per_batch, multiple):
    """Plain twin: classes end at the lengths `edges`; the rows of each are counted by hand."""
    total, key = 0, np.maximum(source, target)
    for low, high in itertools.pairwise((0, *edges)):
        inside = (key > low) & (key <= high)
        width = key[inside].max()
        rows = batch_size(int(inside.sum()), int(width), tokens_per_batch, multiple)
        total += -(-inside.sum() // rows) * rows * (source[inside].max() + target[inside].max())
    return total


@settings(max_examples=60, deadline=None)
@given(lengths, st.integers(1, 6), st.integers(1, 400), st.sampled_from([1, 2, 8]))
def test_classes_hold_every_pair_once_within_the_budget(pairs, most, budget, multiple):
    source, target = np.array(pairs).T
    classes = choose_classes({"inputs": source, "targets": target}, most, budget, multiple)
    assert len(classes) <= most
    assert sorted(np.concatenate([each.members for each in classes])) == list(range(len(pairs)))
    for each in classes:
        assert each.widths["inputs"] == source[each.members].max()
        assert each.widths["targets"] == target[each.members].max()
        width = max(each.widths.values())
        assert each.size % multiple == 0
        assert each.size * width <= budget or each.size == multiple
        assert each.size < len(each.members) + multiple
        assert (each.order[each.order >= 0] == each.members).all()
        assert (each.order[:-1] >= 0).all()  # only the last batch may hold empty rows


@settings(max_examples=40, deadline=None)
@given(lengths, st.integers(1, 3), st.integers(20, 400), st.sampled_from([1, 8]))
def test_no_other_division_costs_fewer_cells(pairs, most, budget, multiple):
    source, target = np.array(pairs).T
    distinct = np.unique(np.maximum(source, target)).tolist()
    divisions = [(*edges, distinct[-1]) for k in range(most) for edges in itertools.combinations(distinct[:-1], k)]
    best = min(cells_of_division(source, target, edges, budget, multiple) for edges in divisions)
    assert cells(choose_classes({"inputs": source, "targets": target}, most, budget, multiple)) == best


def test_better_than_classes_of_equal_width():
    rng = np.random.default_rng(0)
    source = np.minimum(rng.geometric(0.08, 5000), 64)
    target = np.clip(source + rng.integers(-3, 4, 5000), 1, 64)
    uniform = cells_of_division(source, target, range(8, 65, 8), 4096, 8)
    assert cells(choose_classes({"inputs": source, "targets": target}, 8, 4096, 8)) < 0.97 * uniform


@pytest.mark.parametrize(
    ("members", "width", "rows"),
    [
        (1000, 10, 96),  # 1000 rows in batches of at most 100: 11 batches of 91, which is 96 rounded up to 8
        (10, 10, 16),  # no more rows than it takes
        (1000, 500, 8),  # not even 8 rows fit the budget
    ],
)
def test_batch_size(members, width, rows):
    assert batch_size(members, width, 1000, 8) == rows
