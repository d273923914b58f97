"""The step of the whole model: repeatable, the same alone and as one of several lanes, and what it was yesterday."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_run

from transformer_jax.config import with_values
from transformer_jax.errors import UserError
from transformer_jax.run.compile import compile_program
from transformer_jax.run.resolve import traceable
from transformer_jax.training.state import Lane, init_state
from transformer_jax.training.step import build_step

STEPS = 50
CONFIG = tiny.config(
    {
        "model.num_decoder_layers": 1,
        "model.attention.scale": "constant",
        "model.attention.scale_value": 0.5,
        "optimizer.name": "adamw",
        "optimizer.weight_decay": 0.1,
        "optimizer.warmup_steps": 30,
    }
)
BASE = {path: functools.reduce(getattr, path.split("."), CONFIG) for path in traceable(CONFIG)}
OTHER = {path: value / 2 + 0.05 for path, value in BASE.items()}
SEEDS, NUMBERS = [3, 4, 5], [BASE, OTHER, BASE]
"""Three lanes: one of the config's own numbers, one that differs in all, one that differs in the seed alone."""


def batch_at(seed, step):
    return tiny.batch(seed=1000 * seed + step, rows=8)


def stacked(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def lanes(numbers):
    return Lane(np.asarray(SEEDS, np.int32), stacked([{p: np.float32(v) for p, v in n.items()} for n in numbers]))


@functools.cache
def solo_step(numbers=()):
    """Compiled with these numbers as constants."""
    return jax.jit(build_step(with_values(CONFIG, dict(numbers))))


@functools.cache
def step_of_lanes():
    return jax.jit(jax.vmap(build_step(CONFIG)))


@functools.cache
def initial(seed):
    return jax.device_get(jax.jit(functools.partial(init_state, CONFIG))(Lane(np.int32(seed), {})))


@functools.cache
def trained_alone(lane):
    """Losses of all steps, and the last state."""
    step = solo_step(() if NUMBERS[lane] is BASE else tuple(NUMBERS[lane].items()))
    state, losses = initial(SEEDS[lane]), []
    for t in range(STEPS):
        state, sums = step(state, batch_at(SEEDS[lane], t), Lane(np.int32(SEEDS[lane]), {}))
        losses.append(float(sums["loss"][0] / sums["loss"][1]))
    return np.asarray(losses), jax.device_get(state)


def trained_together(planted_at=None, steps=STEPS):
    """Losses [steps, lanes] and the states after each step; NaN is planted in lane 1 at one step."""
    state, losses, states = stacked([initial(seed) for seed in SEEDS]), [], []
    for t in range(steps):
        numbers = [dict(n) for n in NUMBERS]
        if t == planted_at:
            numbers[1]["model.attention.scale_value"] = np.nan
        state, sums = step_of_lanes()(state, stacked([batch_at(s, t) for s in SEEDS]), lanes(numbers))
        losses.append(sums["loss"][0] / sums["loss"][1])
        states.append(jax.device_get(state))
    return np.asarray(losses), states


@functools.cache
def without_nan():
    return trained_together()


def test_all_lanes_start_as_they_start_alone():
    together = jax.jit(jax.vmap(functools.partial(init_state, CONFIG)))(lanes(NUMBERS))
    for lane, seed in enumerate(SEEDS):
        own = jax.tree.map(lambda a, lane=lane: a[lane], together)
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(own), initial(seed))
    kernels = np.asarray(together.params["encoder"]["layers"]["self_attention"]["query"]["kernel"])
    assert not np.allclose(kernels[0], kernels[1])


@pytest.mark.parametrize("lane", range(len(SEEDS)))
def test_a_lane_is_the_run_alone(lane):
    """Same data, initial values and dropout; numbers that are traced give what they give as constants."""
    losses, _ = without_nan()
    alone, state = trained_alone(lane)
    np.testing.assert_allclose(losses[:, lane], alone, rtol=2e-4)
    assert abs(alone[-1] - alone[0]) > 0.1, "nothing was learned, so nothing was compared"
    assert int(state.step) == STEPS
    others = [k for k in range(len(SEEDS)) if k != lane]
    assert not np.any(np.all(np.isclose(losses[:, others], alone[:, None], rtol=2e-4), axis=0))


def test_a_lane_that_diverges_freezes_alone():
    planted = 3
    _, clean = without_nan()
    losses, states = trained_together(planted_at=planted, steps=6)
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
    state, batch, lane = initial(3), batch_at(3, 0), Lane(np.int32(3), {})
    first, again = (jax.device_get(solo_step()(state, batch, lane)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)


def test_dropout_differs_between_steps_and_between_seeds_and_has_the_key_of_its_step():
    state, batch = initial(3), batch_at(3, 0)

    def loss(step, seed):
        at = state.replace(step=np.int32(step))
        return float(solo_step()(at, batch, Lane(np.int32(seed), {}))[1]["loss"][0])

    assert len({loss(0, 3), loss(1, 3), loss(2, 3), loss(0, 4)}) == 4
    key = jax.random.fold_in(jax.random.key(3), 2)
    with jax.disable_jit():
        expected, _ = tiny.totals(CONFIG, state.params, jax.tree.map(jnp.asarray, batch), key)["loss"]
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
