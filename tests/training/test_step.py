"""The step on an objective so small that every number can be followed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.config import freeze
from transformer_jax.tasks import TASKS
from transformer_jax.training.optimizer import build_optimizer
from transformer_jax.training.state import Lane, TrainState
from transformer_jax.training.step import build_step

SGD = {"optimizer.name": "sgd", "optimizer.schedule": "constant", "optimizer.learning_rate": 0.5}
LANE = Lane(np.int32(7), {})


class Linear:
    """The loss of an example is w . x; `noise` is drawn from the key."""

    def measure(self, config, model, params, batch, key):
        noise = jax.random.normal(key)[None]
        counts = batch.get("count", jnp.ones(len(batch["x"])))
        return {"loss": (batch["x"] @ params["w"], counts), "noise": (noise, jnp.ones(1))}


class Steep:
    """A finite loss with a gradient that is not."""

    def measure(self, config, model, params, batch, key):
        return {"loss": (jnp.sqrt(params["w"]), jnp.ones(2) / 2)}


@pytest.fixture(autouse=True)
def _linear_task(monkeypatch):
    monkeypatch.setitem(TASKS, "translation", Linear())


def start(config, w=(1.0, 2.0)):
    params = {"w": jnp.asarray(w)}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=build_optimizer(config).init(params),
        average=params if config.optimizer.ema_decay is not None else None,
        skipped=jnp.zeros((), jnp.int32),
        alive=jnp.ones((), bool),
    )


def batch(*rows):
    return {"x": jnp.asarray(rows, jnp.float32)}


GOOD, BAD = batch((4, 0), (0, 2)), batch((np.nan, 0), (0, 2))


def run(config, batches, state=None):
    """States after each step, and what the steps measured."""
    step, states, measured = build_step(config), [start(config) if state is None else state], []
    for b in batches:
        state, sums = step(states[-1], b, LANE)
        states.append(state)
        measured.append({name: [float(x) for x in pair] for name, pair in sums.items()})
    return states, measured


def test_one_step_by_hand():
    states, (measured,) = run(freeze(SGD), [GOOD])
    np.testing.assert_allclose(states[1].params["w"], [1 - 0.5 * 4 / 2, 2 - 0.5 * 2 / 2])
    assert measured["loss"] == [1 * 4 + 2 * 2, 2]
    assert measured["gradient_norm"] == [pytest.approx(np.hypot(2, 1)), 1]
    assert measured["update_norm"] == [pytest.approx(np.hypot(2, 1) / 2), 1]
    assert measured["learning_rate"] == [0.5, 1]
    assert int(states[1].step) == 1


def test_a_batch_without_tokens_changes_nothing():
    states, (measured,) = run(freeze(SGD), [{"x": jnp.zeros((0, 2))}])
    np.testing.assert_array_equal(states[1].params["w"], states[0].params["w"])
    assert measured["loss"] == [0, 0]
    assert bool(states[1].alive)


def test_the_gradient_norm_is_measured_before_clipping():
    states, (measured,) = run(freeze({**SGD, "optimizer.clip_norm": 0.1}), [GOOD])
    assert measured["gradient_norm"][0] == pytest.approx(np.hypot(2, 1))
    assert measured["update_norm"][0] == pytest.approx(0.05)
    assert np.linalg.norm(states[1].params["w"] - states[0].params["w"]) == pytest.approx(0.05, rel=1e-4)


def test_the_average_follows_the_parameters_and_is_what_is_evaluated():
    states, _ = run(freeze({**SGD, "optimizer.ema_decay": 0.75}), [GOOD] * 3)
    average = np.float32([1, 2])
    for state in states[1:]:
        average = 0.75 * average + 0.25 * np.asarray(state.params["w"])
        np.testing.assert_allclose(state.average["w"], average, rtol=1e-6)
        assert state.evaluated is state.average
    plain = run(freeze(SGD), [GOOD])[0][-1]
    assert plain.average is None
    assert plain.evaluated is plain.params


def test_the_key_of_step_t_is_the_seeds_with_t_folded_in():
    _, measured = run(freeze(SGD), [GOOD] * 3)
    expected = [float(jax.random.normal(jax.random.fold_in(jax.random.key(7), t))) for t in range(3)]
    assert [m["noise"][0] for m in measured] == pytest.approx(expected)
    other_seed = build_step(freeze(SGD))(start(freeze(SGD)), GOOD, Lane(np.int32(8), {}))[1]
    assert float(other_seed["noise"][0]) not in expected


def test_a_step_that_is_not_finite_stops_the_lane_for_good():
    states, measured = run(freeze({**SGD, "optimizer.ema_decay": 0.5}), [GOOD, BAD, GOOD])
    assert [bool(s.alive) for s in states] == [True, True, False, False]
    assert [int(s.step) for s in states] == [0, 1, 1, 1]
    for state in states[2:]:
        for field in ("params", "average", "opt_state"):
            jax.tree.map(np.testing.assert_array_equal, getattr(state, field), getattr(states[1], field))
    assert np.isnan(measured[1]["loss"][0])


def test_skip_leaves_the_update_out_and_goes_on():
    config = freeze({**SGD, "optimizer.name": "adam", "optimizer.schedule": "noam", "train.on_nonfinite": "skip"})
    states, measured = run(config, [GOOD, BAD, GOOD])
    without, measured_without = run(config, [GOOD, GOOD])
    assert [bool(s.alive) for s in states] == [True] * 4
    assert [int(s.step) for s in states] == [0, 1, 2, 3]
    assert [int(s.skipped) for s in states] == [0, 0, 1, 1]
    jax.tree.map(np.testing.assert_array_equal, states[3].params, without[2].params)
    jax.tree.map(np.testing.assert_array_equal, states[3].opt_state, without[2].opt_state)
    assert measured[2]["learning_rate"] == measured_without[1]["learning_rate"]  # what is logged is what was used


def test_a_gradient_that_is_not_finite_counts_though_the_loss_is():
    config = freeze(SGD)

    TASKS["translation"] = Steep()  # the fixture puts the old one back
    states, (measured,) = run(config, [GOOD], start(config, w=(0.0, 1.0)))
    assert np.isfinite(measured["loss"][0])
    assert not bool(states[1].alive)
    np.testing.assert_array_equal(states[1].params["w"], [0.0, 1.0])


ZERO_GRADIENT = batch((4, 0), (2, 0))  # of the second parameter: Adam's update of it is 0 / epsilon


@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer.name": "adam", "optimizer.epsilon": 0.0},  # NaN in one entry
        {"optimizer.name": "adamw", "optimizer.epsilon": 0.0, "optimizer.ema_decay": 0.5},
        {"optimizer.learning_rate": 1e25},  # finite, but nothing that could be measured or trained on
    ],
)
def test_an_update_that_is_not_finite_counts_though_loss_and_gradient_are(changes, policy):
    config = freeze({**SGD, **changes, "train.on_nonfinite": policy})
    states, (measured,) = run(config, [ZERO_GRADIENT])
    assert np.isfinite([measured[name][0] for name in ("loss", "gradient_norm")]).all()
    assert not np.isfinite(measured["update_norm"][0])
    for field in ("params", "average", "opt_state"):
        jax.tree.map(np.testing.assert_array_equal, getattr(states[1], field), getattr(states[0], field))
    found = [int(states[1].step), int(states[1].skipped), bool(states[1].alive)]
    assert found == ([0, 0, False] if policy == "stop" else [1, 1, True])


def test_of_two_lanes_only_the_one_whose_update_is_not_finite_stops():
    config = freeze(SGD)
    lanes = Lane(np.int32([7, 7]), {"optimizer.learning_rate": np.float32([1e30, 0.25])})
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), start(config))
    states, _ = jax.vmap(build_step(config), in_axes=(0, None, 0))(both, GOOD, lanes)
    assert states.alive.tolist() == [False, True]
    assert states.step.tolist() == [0, 1]
    np.testing.assert_allclose(states.params["w"], [[1, 2], [1 - 0.25 * 2, 2 - 0.25 * 1]])


def test_numbers_of_the_lane_stand_in_for_those_of_the_config():
    config = freeze(SGD)
    lane = Lane(np.int32(7), {"optimizer.learning_rate": np.float32(0.25)})
    state, sums = build_step(config)(start(config), GOOD, lane)
    np.testing.assert_allclose(state.params["w"], [1 - 0.25 * 2, 2 - 0.25 * 1])
    assert float(sums["learning_rate"][0]) == 0.25


def test_parts_of_a_batch_on_two_devices_make_the_step_of_the_whole():
    """The axis of devices is one of vmap."""
    config = freeze(SGD)
    step = build_step(config, axis="devices")
    parts = {"x": jnp.float32([[[4, 0], [0, 0]], [[0, 2], [8, 0]]])}
    states, sums = jax.vmap(step, in_axes=(None, 0, None), axis_name="devices")(start(config), parts, LANE)
    expected, (measured,) = run(config, [batch(*parts["x"].reshape(4, 2))])
    for device in range(2):
        np.testing.assert_allclose(states.params["w"][device], expected[1].params["w"])
        assert [float(x[device]) for x in sums["loss"]] == measured["loss"]
    assert measured["noise"][0] not in [float(n) for n in sums["noise"][0]]


def test_parts_that_follow_each_other_make_the_step_of_the_whole():
    """Rows of unlike weight: the mean of the means of the parts would be another."""
    rows, counts = np.float32([[4, 0], [0, 2], [8, 0], [1, 1]]), np.float32([1, 5, 3, 2])
    found = []
    for parts in (1, 2, 4):
        config = freeze({**SGD, "train.accumulate": parts})
        states, (measured,) = run(config, [{"x": jnp.asarray(rows), "count": jnp.asarray(counts)}])
        found.append((states[1].params["w"], measured["loss"]))
    mean = rows.sum(axis=0) / counts.sum()
    for params, loss in found:
        np.testing.assert_allclose(params, [1, 2] - 0.5 * mean, rtol=1e-6)
        np.testing.assert_allclose(loss, [(rows @ [1, 2]).sum(), counts.sum()], rtol=1e-6)
    by_parts = [rows[part::2].sum(axis=0) / counts[part::2].sum() for part in range(2)]
    assert not np.allclose(np.mean(by_parts, axis=0), mean)


def test_parts_that_follow_each_other_drop_other_units():
    noises = [run(freeze({**SGD, "train.accumulate": n}), [batch((4, 0), (0, 2))])[1][0]["noise"] for n in (1, 2)]
    keys = [jax.random.fold_in(jax.random.fold_in(jax.random.key(7), 0), part) for part in range(2)]
    drawn = [float(jax.random.normal(key)) for key in keys]
    assert drawn[0] != drawn[1]
    np.testing.assert_allclose(noises[1], [sum(drawn), 2], rtol=1e-6)
    assert noises[0] != noises[1]
