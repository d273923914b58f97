"""The update rules against NumPy, and which of their knobs act."""

import jax
import numpy as np
import optax
import pytest

from transformer_jax.config import FIELDS, freeze, is_read, replace, with_values
from transformer_jax.errors import UserError
from transformer_jax.training.optimizer import build_optimizer, check_trained, held

RNG = np.random.default_rng(0)
SHAPES = {"linear": {"kernel": (3, 2), "bias": (2,)}, "table": {"embedding": (4, 3)}, "norm": {"scale": (3,)}}
IS_SHAPE = {"is_leaf": lambda node: isinstance(node, tuple)}
PARAMS = jax.tree.map(lambda shape: np.float32(RNG.normal(size=shape)), SHAPES, **IS_SHAPE)
GRADIENTS = [
    jax.tree.map(lambda shape, n=n: np.float32(n * RNG.normal(size=shape)), SHAPES, **IS_SHAPE) for n in (3, 1, 2)
]
RATE, B1, B2, EPS, DECAY = 0.5, 0.8, 0.95, 0.1, 0.3
BASE = {
    "optimizer.schedule": "constant",
    "optimizer.learning_rate": RATE,
    "optimizer.beta_1": B1,
    "optimizer.beta_2": B2,
    "optimizer.epsilon": EPS,
}


def trained(config):
    """The parameters after each of three updates."""
    optimizer = build_optimizer(config)
    params, state, found = PARAMS, optimizer.init(PARAMS), []
    for gradient in GRADIENTS:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        found.append(params)
    return found


def adam_in_numpy(decay, gradients):
    """Kingma and Ba 2015, Algorithm 1; decoupled decay (Loshchilov and Hutter 2019) where `decay` says so."""

    def leaf(path, p, *gradients):
        m = v = 0.0
        for t, g in enumerate(gradients, start=1):
            m, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g**2
            update = (m / (1 - B1**t)) / (np.sqrt(v / (1 - B2**t)) + EPS)
            p = p - RATE * (update + (DECAY * p if decay(path) else 0))
        return p

    return jax.tree_util.tree_map_with_path(leaf, PARAMS, *gradients)


def lion_in_numpy(gradients):
    """Chen et al. 2023, Algorithm 2."""

    def leaf(path, p, *gradients):
        m = 0.0
        for g in gradients:
            p = p - RATE * (np.sign(B1 * m + (1 - B1) * g) + (DECAY * p if is_matrix(path) else 0))
            m = B2 * m + (1 - B2) * g
        return p

    return jax.tree_util.tree_map_with_path(leaf, PARAMS, *gradients)


def is_matrix(path):
    return path[-1].key in ("kernel", "embedding")


TWINS = {
    "adam": lambda gradients: adam_in_numpy(lambda path: False, gradients),
    "adamw": lambda gradients: adam_in_numpy(is_matrix, gradients),
    "lion": lion_in_numpy,
    "sgd": lambda gradients: jax.tree.map(lambda p, *each: p - RATE * sum(each), PARAMS, *gradients),
}


def clipped(gradient, norm):
    """Scaled to a global norm of at most `norm`."""
    factor = min(1, norm / np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(gradient))))
    return jax.tree.map(lambda g: factor * g, gradient)


@pytest.mark.parametrize("clip", [None, 4.0])
@pytest.mark.parametrize("name", TWINS)
def test_update_rule_equals_its_twin(name, clip):
    """Gradients are clipped before the rule sees them: two of the three are."""
    config = {**BASE, "optimizer.name": name, "optimizer.weight_decay": DECAY, "optimizer.clip_norm": clip}
    found = trained(freeze(config))[-1]
    seen = GRADIENTS if clip is None else [clipped(gradient, clip) for gradient in GRADIENTS]
    twin = TWINS[name](seen)
    for (path, leaf), expected in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(twin), strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=1e-5, err_msg=str(path))


def test_the_first_update_has_the_rate_of_step_1():
    config = freeze({"optimizer.name": "sgd", "optimizer.warmup_steps": 10, "model.d_model": 16})
    optimizer = build_optimizer(config)
    updates, _ = optimizer.update(GRADIENTS[0], optimizer.init(PARAMS), PARAMS)
    expected = -(16**-0.5) * 1 * 10**-1.5 * GRADIENTS[0]["norm"]["scale"]
    np.testing.assert_allclose(updates["norm"]["scale"], expected, rtol=1e-5)


@pytest.mark.parametrize("clip", [0.5, 1e6])
def test_clipping_scales_gradients_whose_global_norm_is_larger(clip):
    config = freeze({**BASE, "optimizer.name": "sgd", "optimizer.clip_norm": clip})
    norm = np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(GRADIENTS[0])))
    factor = min(1, clip / norm)
    for found, p, g in zip(*map(jax.tree.leaves, (trained(config)[0], PARAMS, GRADIENTS[0])), strict=True):
        np.testing.assert_allclose(found, p - RATE * factor * g, rtol=1e-4, atol=1e-6)


def test_weight_decay_may_be_a_tracer_and_touches_matrices_alone():
    config = freeze({**BASE, "optimizer.name": "adamw"})

    @jax.jit
    def after(decay):
        return trained(with_values(config, {"optimizer.weight_decay": decay}))[0]

    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), after(DECAY), after(0.0))
    assert moved == {
        "linear": {"kernel": True, "bias": False},
        "table": {"embedding": True},
        "norm": {"scale": False},
    }


ALTERNATIVES = {
    "optimizer.name": ["sgd", "adamw", "lion"],
    "optimizer.schedule": ["noam", "cosine", "constant"],
    "optimizer.warmup_steps": [3],
    "optimizer.clip_norm": [0.5],
    "optimizer.ema_decay": [],  # test_step.py
}
RULES = [{"optimizer.name": name} for name in TWINS] + [{"optimizer.schedule": "constant"}]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: "-".join(rule.values()))
@pytest.mark.parametrize(
    "path", [path for path in FIELDS if path.startswith("optimizer.") and path != "optimizer.trained"]
)
def test_field_acts_exactly_where_it_says_that_it_is_read(path, rule):
    """Weight decay is on, so that the rules that have it differ from those without."""
    fixed = {"optimizer.schedule": "inverse_sqrt", "optimizer.warmup_steps": 2, "optimizer.weight_decay": DECAY}
    config = freeze({**BASE, **fixed, **rule})
    for value in ALTERNATIVES.get(path, [0.037]):
        other = replace(config, {path: value})
        if other != config:
            same = jax.tree.map(np.array_equal, trained(config), trained(other))
            assert (not all(jax.tree.leaves(same))) == is_read(FIELDS[path], config), value


def test_modules_that_are_not_trained_have_no_gradient_and_do_not_decay():
    config = replace(freeze({**BASE, "optimizer.name": "adamw"}), {"optimizer.weight_decay": DECAY})
    chosen = replace(config, {"optimizer.trained": ("table", "norm")})

    def gradient(config):
        def loss(params):
            return sum((leaf**2).sum() for leaf in jax.tree.leaves(held(config, params)))

        return jax.grad(loss)(PARAMS)

    def ends(config):
        optimizer = build_optimizer(config)
        updates, _ = optimizer.update(gradient(config), optimizer.init(PARAMS), PARAMS)
        return optax.apply_updates(PARAMS, updates)

    everything, some = ends(config), ends(chosen)
    jax.tree.map(np.testing.assert_array_equal, some["linear"], PARAMS["linear"])
    for name in ("table", "norm"):
        jax.tree.map(np.testing.assert_array_equal, some[name], everything[name])
    assert not np.array_equal(everything["linear"]["kernel"], PARAMS["linear"]["kernel"])
    with pytest.raises(UserError, match=r"no module 'tables'. Allowed: linear, norm, table"):
        check_trained(replace(config, {"optimizer.trained": ("tables",)}), PARAMS)
