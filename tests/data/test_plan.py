"""Plans: what depends on the data, what on the seed, and that every pair is seen."""

import collections
import hashlib
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from transformer_jax.config import DataConfig
from transformer_jax.data import PAD, encode_pairs, evaluation_batches, make_dataset, make_plan
from transformer_jax.errors import UserError

BATCHINGS = ["length_classes", "packed"]


def config(batching="length_classes", **changes):
    settings = {"max_length": 40, "tokens_per_batch": 160, "batch_multiple": 4, "length_classes": 3}
    return DataConfig(
        source="reverse(symbols=12, min_length=1, max_length=19, examples=300)",
        tokenizer="words",
        batching=batching,
        **settings | changes,
    )


@pytest.fixture(scope="module")
def dataset():
    return make_dataset(config())


def plan_of(dataset, batching, **changes):
    return make_plan(dataset.splits["train"], config(batching, **changes))


def digest(batches):
    state = hashlib.sha256()
    for batch in batches:
        for name in sorted(batch):
            state.update(f"{name}{batch[name].shape}".encode() + batch[name].tobytes())
    return state.hexdigest()


def tokens(batches):
    """Every token of the source side with its count."""
    return collections.Counter(itertools.chain.from_iterable(batch["inputs"].ravel().tolist() for batch in batches))


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("epoch", [0, 2])
def test_every_token_once_per_epoch(dataset, batching, epoch):
    plan = plan_of(dataset, batching)
    steps = range(epoch * plan.batches_per_epoch, (epoch + 1) * plan.batches_per_epoch)
    found = tokens(plan.batch_at(step, seed=1) for step in steps)
    del found[PAD]
    assert found == collections.Counter(dataset.splits["train"].sequences("inputs").values.tolist())


def test_every_pair_once_per_epoch(dataset):
    plan, train = plan_of(dataset, "length_classes"), dataset.splits["train"]
    found = []
    for step in range(plan.batches_per_epoch):
        batch = plan.batch_at(step, seed=5)
        for source, target in zip(batch["inputs"], batch["targets"], strict=True):
            if source.any() or target.any():
                found.append((source[source != PAD].tolist(), target[target != PAD].tolist()))
    pairs = zip(*(train.sequences(side) for side in ("inputs", "targets")), strict=True)
    assert sorted(found) == sorted((source.tolist(), target.tolist()) for source, target in pairs)


@pytest.mark.parametrize(
    "changes",
    [{"tokens_per_batch": 320}, {"batch_multiple": 8}, {"length_classes": 1}, {"batching": "packed"}],
    ids=str,
)
def test_what_the_config_says_of_batches_changes_their_shapes(dataset, changes):
    shapes = plan_of(dataset, "length_classes").shapes
    assert plan_of(dataset, **{"batching": "length_classes", **changes}).shapes != shapes


@pytest.mark.parametrize("batching", BATCHINGS)
def test_shapes_and_their_order_are_the_same_for_every_seed(dataset, batching):
    plan = plan_of(dataset, batching)
    counts = collections.Counter()
    for step in range(2 * plan.batches_per_epoch):
        shape = plan.shapes[plan.class_at(step)]
        for seed in (0, 1, 12345):
            batch = plan.batch_at(step, seed)
            assert batch["inputs"].shape == (shape.size, shape.widths["inputs"])
            assert batch["targets"].shape == (shape.size, shape.widths["targets"])
        counts[plan.class_at(step)] += 1
    assert counts == {k: 2 * shape.batches for k, shape in enumerate(plan.shapes)}
    assert sum(shape.batches for shape in plan.shapes) == plan.batches_per_epoch


def test_order_of_shapes_changes_from_epoch_to_epoch(dataset):
    plan = plan_of(dataset, "length_classes")
    epochs = [
        [plan.class_at(epoch * plan.batches_per_epoch + i) for i in range(plan.batches_per_epoch)] for epoch in (0, 1)
    ]
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])


@pytest.mark.parametrize("batching", BATCHINGS)
def test_seed_and_epoch_change_the_pairs_of_a_batch(dataset, batching):
    plan = plan_of(dataset, batching)
    length = plan.batches_per_epoch
    of = {
        (seed, epoch): digest(plan.batch_at(epoch * length + i, seed) for i in range(length))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(of.values())) == 4


@pytest.mark.parametrize("batching", BATCHINGS)
def test_pairs_that_stand_together_are_others_in_every_epoch_and_for_every_seed(dataset, batching):
    """Whatever the order in which the batches come."""
    plan = plan_of(dataset, batching)

    def company(seed, epoch):
        steps = range(epoch * plan.batches_per_epoch, (epoch + 1) * plan.batches_per_epoch)
        return {frozenset(row.tobytes() for row in plan.batch_at(step, seed)["inputs"] if row.any()) for step in steps}

    found = [company(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len(found[0]) > 5
    for one, other in itertools.combinations(found, 2):
        assert len(one & other) <= 1  # a class may be a single batch


@pytest.mark.parametrize("batching", BATCHINGS)
def test_seeking_equals_iterating(dataset, batching):
    plan = plan_of(dataset, batching)
    last = 3 * plan.batches_per_epoch
    forward = [digest([plan.batch_at(step, seed=7)]) for step in range(last)]
    fresh = plan_of(dataset, batching)
    backward = [digest([fresh.batch_at(step, seed=7)]) for step in reversed(range(last))]
    assert forward == backward[::-1]
    fresh.batch_at(0, seed=7)["inputs"][:] = 99  # what a caller does to a batch is its own affair
    assert digest([fresh.batch_at(0, seed=7)]) == forward[0]


def test_many_interleaved_seeds_draw_each_permutation_once(dataset, monkeypatch):
    drawn = collections.Counter()
    plan = plan_of(dataset, "length_classes")
    draw = np.random.default_rng

    def counting(entropy):
        drawn[tuple(entropy)] += 1
        return draw(entropy)

    monkeypatch.setattr(np.random, "default_rng", counting)
    for step in range(plan.batches_per_epoch):
        for seed in range(64):
            plan.batch_at(step, seed)
    assert len(drawn) == 64 * len(plan.shapes) + 1  # one per seed and class, and the order of the shapes
    assert set(drawn.values()) == {1}


FRESH = """
import sys
from pathlib import Path
sys.path.insert(0, {directory!r})
from test_plan import config, digest
from transformer_jax.data import make_dataset, make_plan
for batching in ("length_classes", "packed"):
    plan = make_plan(make_dataset(config()).splits["train"], config(batching))
    print(digest(plan.batch_at(step, seed=11) for step in (0, 1, 40)))
"""


def test_same_batches_in_a_fresh_process(dataset):
    program = FRESH.format(directory=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    plans = [plan_of(dataset, batching) for batching in BATCHINGS]
    assert done.stdout.split() == [digest(plan.batch_at(step, seed=11) for step in (0, 1, 40)) for plan in plans], (
        done.stderr
    )


@pytest.mark.parametrize("batching", BATCHINGS)
def test_batches_that_cannot_be_filled_or_kept_small_are_refused(dataset, batching):
    """At the bound they are not, and the default serves a corpus of one pair too."""
    train = dataset.splits["train"]
    plan = plan_of(dataset, batching, batch_multiple=len(train), tokens_per_batch=10**6)
    assert [shape.size for shape in plan.shapes] == [len(train)] * len(plan.shapes)
    for multiple in (len(train) + 1, 100_000):
        with pytest.raises(
            UserError, match=f"batch_multiple = {multiple:,} is more than the {len(train):,} training examples"
        ):
            plan_of(dataset, batching, batch_multiple=multiple, tokens_per_batch=10**6)
    one = train.first(1)
    assert make_plan(one, config(batching, batch_multiple=8)).shapes[0].size == 8
    longest = max(max(shape.widths.values()) for shape in plan_of(dataset, batching).shapes)
    least = 4 * longest
    for shape in plan_of(dataset, batching, tokens_per_batch=least).shapes:
        assert shape.size * max(shape.widths.values()) <= least
    for tokens in (1, least - 1):
        with pytest.raises(UserError, match=f"tokens_per_batch = {tokens} is too few .* {least} tokens a side"):
            plan_of(dataset, batching, tokens_per_batch=tokens)


@pytest.mark.parametrize("batching", BATCHINGS)
def test_padding_share_is_what_the_batches_hold(dataset, batching):
    plan = plan_of(dataset, batching)
    batches = [plan.batch_at(step, seed=0) for step in range(plan.batches_per_epoch)]
    assert set(plan.padding_share) == {"inputs", "targets"}
    for name, share in plan.padding_share.items():
        cells = np.concatenate([batch[name].ravel() for batch in batches])
        assert share == pytest.approx((cells == PAD).mean())
    summary = plan.summary()
    assert summary["padding"] == plan.padding_share
    assert sum(shape["batches"] for shape in summary["shapes"]) == plan.batches_per_epoch


@pytest.mark.parametrize("batching", BATCHINGS)
def test_evaluation_sees_every_pair_once_in_few_shapes(dataset, batching):
    split = dataset.splits["test"]
    found, shapes = [], set()
    for indices, batch in evaluation_batches(split, config(batching)):
        assert set(batch) == {"inputs", "targets"}
        shapes.add(batch["inputs"].shape + batch["targets"].shape)
        for index, source, target in zip(indices.tolist(), batch["inputs"], batch["targets"], strict=True):
            if index < 0:
                assert not source.any()
                assert not target.any()
                continue
            found.append(index)
            assert source[source != PAD].tolist() == split.sequences("inputs")[index].tolist()
            assert target[target != PAD].tolist() == split.sequences("targets")[index].tolist()
    assert sorted(found) == list(range(len(split)))
    assert len(shapes) <= 4


def test_lines_to_translate_even_empty_ones(dataset):
    split = encode_pairs(["1 2 3", "", "4 " * 90], ["", "", ""], config(), dataset.assets)
    assert split.truncated == 1
    indices = np.concatenate([indices for indices, _ in evaluation_batches(split, config())])
    assert sorted(indices[indices >= 0]) == [0, 1, 2]
    assert not list(evaluation_batches(encode_pairs([], [], config(), dataset.assets), config()))
