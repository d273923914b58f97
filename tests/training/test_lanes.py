"""The step of the whole model: repeatable, the same alone and as one of several lanes, and what it was yesterday."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_run

from transformer_jax.config import value_at, with_values
from transformer_jax.errors import UserError
from transformer_jax.run.compile import compile_program
from transformer_jax.run.resolve import traceable
from transformer_jax.training.state import Lane, init_state
from transformer_jax.training.step import build_step

STEPS = 50
OVERRIDES = {
    "model.attention.scale": "constant",
    "model.attention.scale_value": 0.5,
    "optimizer.name": "adamw",
    "optimizer.weight_decay": 0.1,
    "optimizer.warmup_steps": 30,
}
SEEDS = [3, 4, 5]
EVERY_FAMILY = pytest.mark.parametrize("family", tiny.every_family())


@functools.cache
def config_of(family):
    """With a layer in each stack: in fifty steps rounding grows with every further one."""
    layers = {path: 1 for path in tiny.model_fields(family) if path.endswith("_layers")}
    return tiny.config({"model.family": family, **layers, **OVERRIDES})


def numbers(family):
    """Three lanes: one of the config's own numbers, one that differs in all, one that differs in the seed alone."""
    base = {path: value_at(config_of(family), path) for path in traceable(config_of(family))}
    return [base, {path: value / 2 + 0.05 for path, value in base.items()}, base]


def batch_at(family, seed, step):
    return tiny.batch_of(config_of(family), seed=1000 * seed + step, rows=8)


def stacked(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def lanes(of_lanes):
    return Lane(np.asarray(SEEDS, np.int32), stacked([{p: np.float32(v) for p, v in n.items()} for n in of_lanes]))


@functools.cache
def solo_step(family, constants=()):
    """Compiled with these numbers as constants."""
    return jax.jit(build_step(with_values(config_of(family), dict(constants))))


@functools.cache
def step_of_lanes(family):
    return jax.jit(jax.vmap(build_step(config_of(family))))


@functools.cache
def initial(family, seed):
    return jax.device_get(jax.jit(functools.partial(init_state, config_of(family)))(Lane(np.int32(seed), {})))


@functools.cache
def trained_alone(family, lane):
    """Losses of all steps, and the last state."""
    base, own = numbers(family)[0], numbers(family)[lane]
    step = solo_step(family, () if own == base else tuple(own.items()))
    state, losses = initial(family, SEEDS[lane]), []
    for t in range(STEPS):
        state, sums = step(state, batch_at(family, SEEDS[lane], t), Lane(np.int32(SEEDS[lane]), {}))
        losses.append(float(sums["loss"][0] / sums["loss"][1]))
    return np.asarray(losses), jax.device_get(state)


def trained_together(family, planted_at=None, steps=STEPS):
    """Losses [steps, lanes] and the states after each step; NaN is planted in lane 1 at one step."""
    state, losses, states = stacked([initial(family, seed) for seed in SEEDS]), [], []
    for t in range(steps):
        of_lanes = [dict(n) for n in numbers(family)]
        if t == planted_at:
            of_lanes[1]["model.attention.scale_value"] = np.nan
        batches = stacked([batch_at(family, seed, t) for seed in SEEDS])
        state, sums = step_of_lanes(family)(state, batches, lanes(of_lanes))
        losses.append(sums["loss"][0] / sums["loss"][1])
        states.append(jax.device_get(state))
    return np.asarray(losses), states


@functools.cache
def without_nan(family):
    return trained_together(family)


@EVERY_FAMILY
def test_all_lanes_start_as_they_start_alone(family):
    together = jax.jit(jax.vmap(functools.partial(init_state, config_of(family))))(lanes(numbers(family)))
    for lane, seed in enumerate(SEEDS):
        own = jax.tree.map(lambda a, lane=lane: a[lane], together)
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(own), initial(family, seed))
    kernels = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(together.params) if path[-1].key == "kernel"]
    assert kernels
    assert not any(np.allclose(kernel[0], kernel[1]) for kernel in kernels)


@pytest.mark.parametrize("lane", range(len(SEEDS)))
@EVERY_FAMILY
def test_a_lane_is_the_run_alone(family, lane):
    """Same data, initial values and dropout; numbers that are traced give what they give as constants."""
    losses, _ = without_nan(family)
    alone, state = trained_alone(family, lane)
    np.testing.assert_allclose(losses[:, lane], alone, rtol=2e-4)
    assert abs(alone[-1] - alone[0]) > 0.1, "nothing was learned, so nothing was compared"
    assert int(state.step) == STEPS
    others = [k for k in range(len(SEEDS)) if k != lane]
    assert not np.any(np.all(np.isclose(losses[:, others], alone[:, None], rtol=2e-4), axis=0))


@EVERY_FAMILY
def test_a_lane_that_diverges_freezes_alone(family):
    planted = 3
    _, clean = without_nan(family)
    losses, states = trained_together(family, planted_at=planted, steps=6)
    assert np.isnan(losses[planted, 1])
    assert np.isfinite(losses[:, [0, 2]]).all()
    assert states[-1].alive.tolist() == [True, False, True]
    assert states[-1].step.tolist() == [6, planted, 6]
    for t, state in enumerate(states):
        frozen_at = clean[min(t, planted - 1)]
        for found, neighbours, frozen in zip(
            *map(jax.tree.leaves, (state.params, clean[t].params, frozen_at.params)), strict=True
        ):
            np.testing.assert_array_equal(found[[0, 2]], neighbours[[0, 2]])
            np.testing.assert_array_equal(found[1], frozen[1])


@pytest.mark.parametrize("generator", ["rbg", "unsafe_rbg"])
def test_generators_whose_numbers_depend_on_the_batch_are_refused(generator):
    with jax.default_prng_impl(generator):
        with pytest.raises(UserError, match=f"Lanes need .* threefry2x32, but .* chose {generator}"):
            compile_program(tiny_run.config(), lanes=2)
        compile_program(tiny_run.config())


def test_the_step_is_pure():
    state, batch, lane = initial("transformer", 3), batch_at("transformer", 3, 0), Lane(np.int32(3), {})
    first, again = (jax.device_get(solo_step("transformer")(state, batch, lane)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)


def test_dropout_differs_between_steps_and_between_seeds_and_has_the_key_of_its_step():
    state, batch = initial("transformer", 3), batch_at("transformer", 3, 0)

    def loss(step, seed):
        at = state.replace(step=np.int32(step))
        return float(solo_step("transformer")(at, batch, Lane(np.int32(seed), {}))[1]["loss"][0])

    assert len({loss(0, 3), loss(1, 3), loss(2, 3), loss(0, 4)}) == 4
    key = jax.random.fold_in(jax.random.key(3), 2)
    expected, _ = jax.jit(functools.partial(tiny.totals, config_of("transformer")))(state.params, batch, key)["loss"]
    assert loss(2, 3) == pytest.approx(float(expected), rel=1e-5)


GOLDEN = {
    1: {"loss": 36.37629, "nll": 36.27178, "gradient_norm": 2.26017, "update_norm": 2.03197},
    2: {"loss": 29.19806, "nll": 28.21806, "gradient_norm": 0.96803, "update_norm": 2.8642},
}
CHANGED = """The first steps of the tiny base model have changed: every run made before is another experiment now.
If you did not mean to change the numbers, find out what did. If you did, put the numbers below into GOLDEN, raise the
NUMERICS in run/identity.py, under which runs are reused, and say in the commit why results differ.
"""


def test_the_first_steps_of_the_base_are_what_they_were():
    config = tiny.config({"optimizer.warmup_steps": 4})
    batch, lane = jax.tree.map(jnp.asarray, tiny.batch()), Lane(np.int32(0), {})
    state, step, found = jax.jit(functools.partial(init_state, config))(lane), jax.jit(build_step(config)), {}
    for t in GOLDEN:
        state, sums = step(state, batch, lane)
        found[t] = {name: round(float(sums[name][0]), 5) for name in GOLDEN[t]}
    for t, expected in GOLDEN.items():
        assert found[t] == pytest.approx(expected, rel=1e-4), f"{CHANGED}\n{found}"
