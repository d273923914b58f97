"""jit on one device, jit on eight and pmap compute the same, on batches whose rows are of very unlike length."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from transformer_jax.config import FAMILIES, freeze
from transformer_jax.errors import UserError
from transformer_jax.parallel.layout import DETERMINISTIC, JitLayout, PmapLayout, make_layout

pytestmark = pytest.mark.newest

EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)
SCRIPT = Path(__file__).parent / "eight_devices.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """JAX fixes the number of devices when it starts: the eight are another process's."""
    file = tmp_path_factory.mktemp("parallel") / "results.npz"
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, str(SCRIPT), str(file)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(file) as arrays:
        return dict(arrays)


def compare(results, family, one, other, dropout_rate):
    a, b = (
        {key: results[f"{family}/{name}/{dropout_rate}/{key}"] for key in ("loss", "count", "params")}
        for name in (one, other)
    )
    moved = np.abs(a["params"][-1] - a["params"][0]).max()
    assert moved > 0.2, "the parameters did not move: equality says nothing"
    np.testing.assert_array_equal(a["count"], b["count"])
    np.testing.assert_allclose(b["loss"][0], a["loss"][0], rtol=1e-5)
    gradients = [run["params"][0] - run["params"][1] for run in (a, b)]  # SGD: times the learning rate
    np.testing.assert_allclose(gradients[1], gradients[0], atol=1e-5)
    np.testing.assert_allclose(b["loss"], a["loss"], rtol=1e-4)
    np.testing.assert_allclose(b["params"][-1], a["params"][-1], atol=1e-4)


@EVERY_FAMILY
@pytest.mark.parametrize("layout", ["jit_8", "pmap_8"])
def test_eight_devices_train_as_one_does(results, family, layout):
    compare(results, family, "jit_1", layout, dropout_rate=0.0)


@EVERY_FAMILY
@pytest.mark.parametrize("layout", ["jit_1", "jit_8", "pmap_8"])
def test_several_steps_in_a_call_are_the_same_steps(results, family, layout):
    np.testing.assert_allclose(
        results[f"{family}/{layout}/dispatched/loss"], results[f"{family}/jit_1/0.0/loss"], rtol=1e-4
    )
    np.testing.assert_allclose(
        results[f"{family}/{layout}/dispatched/params"], results[f"{family}/jit_1/0.0/params"][-1], atol=1e-4
    )


@EVERY_FAMILY
def test_under_jit_dropout_too_is_that_of_one_device(results, family):
    compare(results, family, "jit_1", "jit_8", dropout_rate=0.5)
    assert not np.allclose(results[f"{family}/jit_1/0.0/loss"], results[f"{family}/jit_1/0.5/loss"])


@EVERY_FAMILY
def test_under_pmap_each_device_drops_other_units(results, family):
    assert not np.allclose(results[f"{family}/pmap_8/0.5/loss"], results[f"{family}/pmap_8/0.0/loss"])
    total, squares = results["noise"]
    variance = squares / 8 - (total / 8) ** 2
    assert variance > 0.1  # 0 if all drew the same number


@EVERY_FAMILY
@pytest.mark.parametrize("layout", ["jit_8", "pmap_8"])
def test_rows_of_an_evaluation_come_back_in_order(results, family, layout):
    rows = results[f"{family}/jit_1/rows"]
    assert rows.shape == (16,)
    assert len(np.unique(rows.round(3))) > 10
    for found in ("rows", "rows_apart"):
        np.testing.assert_allclose(results[f"{family}/{layout}/{found}"], rows, rtol=1e-5, atol=1e-5)


KEYS = ("params", "rows", "apart", "shards")


@pytest.mark.parametrize(("lanes", "shards"), [(8, 8), (3, 1)])
def test_lanes_are_split_over_devices_where_they_can_be_and_come_to_the_same(results, lanes, shards):
    one, eight = ({key: results[f"lanes_{lanes}/{n}/{key}"] for key in KEYS} for n in (1, 8))
    assert eight["shards"] == shards
    assert one["params"].shape == (lanes, 2)
    assert one["rows"].shape == (lanes, 8)
    assert len(np.unique(one["params"].round(4), axis=0)) == lanes
    np.testing.assert_allclose(eight["params"], one["params"], rtol=1e-5, atol=1e-6)
    for found in ("rows", "apart"):
        np.testing.assert_allclose(eight[found], one[found], rtol=1e-5, atol=1e-6)
    assert not np.allclose(one["rows"], one["apart"])
    np.testing.assert_allclose(one["rows"][0], one["apart"][0], rtol=1e-5)  # of the batch of the first lane


def test_unset_as_many_devices_as_divide_the_rows(results):
    assert results["devices"] == 8
    assert results["devices_of_four_rows"] == 4
    assert results["devices_of_six_rows"] == 6


def test_strategies():
    assert isinstance(make_layout(freeze({"parallel.data": 1})), JitLayout)
    assert isinstance(make_layout(freeze({"parallel.strategy": "pmap", "parallel.data": 1})), PmapLayout)


def test_where_it_is_asked_for_the_compiler_is_told_to_be_deterministic(monkeypatch):
    told = []
    monkeypatch.setattr("jax.jit", lambda function, **options: told.append(options["compiler_options"]))
    for asked in (True, False):
        layout = make_layout(freeze({"train.deterministic": asked, "parallel.data": 1}))
        layout.compile_rows(lambda params, batch: batch)
        layout.compile_steps(lambda: lambda state, batch, lane, count: state)
    assert told == [DETERMINISTIC] * 2 + [{}] * 2


@pytest.mark.parametrize(
    ("overrides", "lanes", "words"),
    [
        ({"parallel.data": 4096}, 1, ["parallel.data = 4096", "devices"]),
        ({"parallel.strategy": "pmap", "train.deterministic": True}, 1, ["train.deterministic", "'jit'"]),
        ({"parallel.strategy": "pmap"}, 2, ["'pmap'", "lanes need 'jit'"]),
    ],
)
def test_what_cannot_be_is_refused(overrides, lanes, words):
    with pytest.raises(UserError) as refused:
        make_layout(freeze(overrides), lanes)
    assert [word for word in words if word not in str(refused.value)] == []


def test_a_device_count_that_does_not_divide_the_rows_is_refused(monkeypatch):
    monkeypatch.setattr("jax.local_device_count", lambda: 8)
    with pytest.raises(UserError, match=r"parallel\.data = 3 .* data\.batch_multiple = 8"):
        make_layout(freeze({"parallel.data": 3}))
