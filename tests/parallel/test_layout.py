"""jit on one device, jit on eight and pmap compute the same, on batches whose rows are of very unlike length."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from transformer_jax.config import FAMILIES, freeze
from transformer_jax.errors import UserError
from transformer_jax.parallel.layout import DETERMINISTIC, JitLayout, PmapLayout, make_layout
from transformer_jax.parallel.mesh import mesh_sizes

pytestmark = pytest.mark.newest

EVERY_FAMILY = pytest.mark.parametrize("family", tiny.every_family())
VOCABULARY = 22
"""That of `eight_devices.py`, where no other size is 22 or 11."""
SCRIPT = Path(__file__).parent / "eight_devices.py"


@pytest.fixture(scope="module")
def results(request, tmp_path_factory):
    """JAX fixes the number of devices when it starts: the eight are another process's."""
    file = tmp_path_factory.mktemp("parallel") / "results.npz"
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    asked = [item.callspec.params for item in request.session.items if item.path == request.path and _varies(item)]
    families = sorted({"transformer"} | {params["family"] for params in asked if "family" in params})
    done = subprocess.run([sys.executable, str(SCRIPT), str(file), *families], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(file) as arrays:
        return dict(arrays)


def _varies(item):
    return hasattr(item, "callspec")


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


FSDP = ("transformer", "fsdp_8")


def on(*layouts):
    return [
        pytest.param(*case, marks=pytest.mark.long) if case[0] in tiny.LONG else case
        for case in [FSDP, *itertools.product(FAMILIES, layouts)]
    ]


ON_EIGHT = on("jit_8", "mesh_8", "pmap_8")


@pytest.mark.parametrize(("family", "layout"), ON_EIGHT)
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


@pytest.mark.parametrize(("family", "layout"), on("jit_8", "mesh_8"))
def test_under_jit_dropout_too_is_that_of_one_device(results, family, layout):
    compare(results, family, "jit_1", layout, dropout_rate=0.5)
    assert not np.allclose(results[f"{family}/jit_1/0.0/loss"], results[f"{family}/jit_1/0.5/loss"])


@pytest.mark.parametrize("dropout_rate", [0.0, 0.5])
def test_lanes_whose_parameters_are_split_train_as_each_alone(results, dropout_rate):
    compare(results, "transformer", "jit_1", "lanes_8", dropout_rate)


def test_a_device_keeps_its_part_of_the_parameters_and_of_what_the_optimizer_remembers(results):
    """Bytes of what XLA's program is given; beside it come the batch, and vectors that only one of the axes splits."""
    whole, rest = results["transformer/fsdp_8/state_bytes"], 800
    assert whole / 8 > 4 * rest
    assert whole / 8 < results["transformer/fsdp_8/argument_bytes"] < whole / 8 + rest
    assert whole / 4 < results["transformer/mesh_8/argument_bytes"] < whole / 4 + rest


@pytest.mark.parametrize("layout", ["fsdp_8", "mesh_8"])
def test_matrices_are_gathered_where_a_layer_needs_them_and_logits_and_moments_never(results, layout):
    shapes, reasons = (results[f"transformer/{layout}/{name}"] for name in ("gathered", "gathered_for"))
    assert len(shapes) > 10
    assert [reason for reason in reasons if "jvp(" not in reason] == []  # the update is no part of the gradient
    assert [shape for shape in shapes if re.search(rf",({VOCABULARY}|{VOCABULARY // 2})\]", shape)] == []


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


@pytest.mark.parametrize("layout", ["fsdp_8", "mesh_8"])
def test_rows_of_parameters_that_are_split_are_the_same(results, layout):
    rows = results["transformer/jit_1/rows"]
    np.testing.assert_allclose(results[f"transformer/{layout}/rows"], rows, rtol=1e-5, atol=1e-5)


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
        ({"parallel.fsdp": 0}, 1, ["parallel.fsdp = 0", "-1"]),
    ],
)
def test_what_cannot_be_is_refused(overrides, lanes, words):
    with pytest.raises(UserError) as refused:
        make_layout(freeze(overrides), lanes)
    assert [word for word in words if word not in str(refused.value)] == []


def test_parts_that_follow_each_other_are_shared_evenly_too():
    assert mesh_sizes(freeze({"train.accumulate": 2}), 1, 8)["data"] == 4
    with pytest.raises(UserError, match=r"train\.accumulate = 3 does not divide data\.batch_multiple = 8"):
        mesh_sizes(freeze({"train.accumulate": 3}), 1, 8)
    with pytest.raises(UserError, match=r"parallel\.data = 8 x train\.accumulate = 2 does not divide"):
        mesh_sizes(freeze({"train.accumulate": 2, "parallel.data": 8}), 1, 8)


def sizes(overrides, lanes=1, available=8):
    return tuple(
        mesh_sizes(freeze({f"parallel.{name}": n for name, n in overrides.items()}), lanes, available).values()
    )


@pytest.mark.parametrize(
    ("overrides", "lanes", "expected"),  # lanes, examples, examples and parameters, the inside of layers
    [
        ({}, 1, (1, 8, 1, 1)),
        ({}, 16, (8, 1, 1, 1)),
        ({}, 3, (1, 8, 1, 1)),
        ({"fsdp": -1}, 1, (1, 1, 8, 1)),
        ({"fsdp": 4}, 1, (1, 2, 4, 1)),
        ({"data": 2, "tensor": -1}, 1, (1, 2, 1, 4)),
        ({"data": 2, "fsdp": 2, "tensor": 2}, 1, (1, 2, 2, 2)),
        ({"data": 1}, 1, (1, 1, 1, 1)),
        ({"tensor": 2}, 4, (4, 1, 1, 2)),
        ({"population": 2}, 4, (2, 4, 1, 1)),
        ({"population": 2, "fsdp": 4}, 1, (1, 2, 4, 1)),
    ],
)
def test_devices_that_no_axis_asks_for_share_lanes_or_examples(overrides, lanes, expected):
    assert sizes(overrides, lanes) == expected


@pytest.mark.parametrize(
    ("overrides", "lanes", "words"),
    [
        ({"data": 3}, 1, "parallel.data = 3 does not divide data.batch_multiple = 8"),
        ({"data": 2, "fsdp": 8}, 1, "parallel.data = 2 x parallel.fsdp = 8, but there are 8 devices"),
        ({"data": -1, "fsdp": -1}, 1, "parallel.data and parallel.fsdp are both -1"),
        ({"tensor": 3, "data": -1}, 1, "parallel.data = -1: the other axes take 3 devices"),
        ({"fsdp": 3}, 1, "parallel.fsdp = 3 does not divide data.batch_multiple = 8"),
        ({"population": 4}, 6, "parallel.population = 4 does not divide the 6 lanes"),
    ],
)
def test_a_mesh_that_cannot_be_is_refused(overrides, lanes, words):
    with pytest.raises(UserError, match=re.escape(words)):
        sizes(overrides, lanes)


def test_parameters_are_split_under_jit_alone(monkeypatch):
    monkeypatch.setattr("jax.device_count", lambda: 8)
    with pytest.raises(UserError, match=r"parallel\.tensor = 2 needs parallel\.strategy = 'jit'"):
        make_layout(freeze({"parallel.strategy": "pmap", "parallel.tensor": 2}))
