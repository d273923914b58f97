"""Section 3.5 and what may stand in its place: every scheme against a NumPy twin."""

import math

import inside
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from transformer_jax.models.positions import POSITIONS, sinusoids

B, T, S, H, K, D = 2, 5, 7, 4, 6, 8
RNG = np.random.default_rng(0)
X_BTD = RNG.normal(size=(B, T, D)).astype(np.float32)
Q_BTHK = RNG.normal(size=(B, T, H, K)).astype(np.float32)
K_BSHK = RNG.normal(size=(B, S, H, K)).astype(np.float32)
Q_POSITIONS = np.int32([[0, 1, 2, 0, 1], [3, 4, 5, 6, 7]])  # of a packed row, and of one decoded from the middle
K_POSITIONS = np.int32([[0, 1, 2, 0, 1, 2, 0], [0, 1, 2, 3, 30, 90, 300]])
CALLS = {
    "add": (X_BTD, Q_POSITIONS),
    "bias": (H, Q_POSITIONS, K_POSITIONS),
    "rotate": (Q_BTHK, Q_POSITIONS),
    "score": (Q_BTHK, K_BSHK, Q_POSITIONS, K_POSITIONS),
}


def call(scheme, hook, causal=False):
    """What the hook gives, and the scheme's parameter, with random values."""
    arguments = [jnp.asarray(a) if isinstance(a, np.ndarray) else a for a in CALLS[hook]]
    how = {"method": hook} | ({"causal": causal} if hook == "bias" else {})
    shapes = jax.eval_shape(lambda: scheme.init(jax.random.key(0), *arguments, **how)).get("params", {})
    params = jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape).astype(np.float32), shapes)
    return np.asarray(scheme.apply({"params": params}, *arguments, **how)), params


def sinusoid(p, i, width=D):
    angle = p / 10000 ** (2 * (i // 2) / width)
    return math.sin(angle) if i % 2 == 0 else math.cos(angle)


def rotated(vector, p):
    """As complex numbers: coordinates 2i, 2i + 1 times exp(i p theta)."""
    turns = np.exp(1j * p * 10000.0 ** (-np.arange(0, K, 2) / K))
    turned = (vector[0::2] + 1j * vector[1::2]) * turns
    return np.stack([turned.real, turned.imag], -1).reshape(-1)


def t5_bucket(offset, causal, buckets=32, max_distance=128):
    """As in the paper's own code: n = -offset, half of the buckets for keys ahead where there are any."""
    buckets, n = (buckets, max(-offset, 0)) if causal else (buckets // 2, abs(offset))
    exact = buckets // 2
    if n >= exact:
        n = min(buckets - 1, exact + int(math.log(n / exact) / math.log(max_distance / exact) * (buckets - exact)))
    return n + (buckets if offset > 0 and not causal else 0)


def add_twin(name, params):
    """[B, T, D] by position p: what becomes of the embedding x."""
    last = {"index": lambda p: p / 100, "log_index": lambda p: math.log(1 + p)}

    def at(x, p):
        if name == "sinusoidal":
            return x + np.array([sinusoid(p, i) for i in range(D)])
        if name == "learned":
            return x + params["embedding"][p]
        return np.append(x[:-1], last[name](p)) if name in last else x

    return np.array([[at(X_BTD[b, t], Q_POSITIONS[b, t]) for t in range(T)] for b in range(B)])


def pair_twin(name, hook, causal, params, b, h, t, s):
    """What is added to the score of one query and key."""
    offset = int(K_POSITIONS[b, s] - Q_POSITIONS[b, t])
    if (name, hook) == ("t5", "bias"):
        return params["bias"][t5_bucket(offset, causal), h]
    if (name, hook) == ("alibi", "bias"):
        return -(2.0 ** (-8 * (h + 1) / H)) * abs(offset)
    if (name, hook) == ("shaw", "score"):
        return Q_BTHK[b, t, h] @ params["keys"][min(max(offset, -16), 16) + 16]
    if (name, hook) == ("transformer_xl", "score"):  # further apart than there are keys no two tokens stand
        distance = np.array([sinusoid(-min(max(offset, -S), S), i, H * K) for i in range(H * K)])
        r = distance @ params["r"]["kernel"][:, h]
        return params["u"][h] @ K_BSHK[b, s, h] + (Q_BTHK[b, t, h] + params["v"][h]) @ r
    return 0.0


@pytest.mark.parametrize("name", POSITIONS)
def test_scheme_equals_its_twin_in_all_four_hooks(name):
    scheme = POSITIONS[name]()
    added, params = call(scheme, "add")
    np.testing.assert_allclose(added, add_twin(name, params), rtol=1e-5, atol=1e-5)

    turned, _ = call(scheme, "rotate")
    for b, t, h in np.ndindex(B, T, H):
        q, p = Q_BTHK[b, t, h], Q_POSITIONS[b, t]
        np.testing.assert_allclose(turned[b, t, h], rotated(q, p) if name == "rotary" else q, rtol=1e-4, atol=1e-5)

    for hook, causal in (("bias", False), ("bias", True), ("score", False)):
        found, params = call(scheme, hook, causal)
        found = np.broadcast_to(found, (B, H, T, S))
        for b, h, t, s in np.ndindex(B, H, T, S):
            expected = pair_twin(name, hook, causal, params, b, h, t, s)
            np.testing.assert_allclose(found[b, h, t, s], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in POSITIONS if name != "none"])
def test_every_scheme_has_a_hook_of_its_own(name):
    neutral = {"add": X_BTD, "bias": 0.0, "rotate": Q_BTHK, "score": 0.0}
    own = [hook for hook, value in neutral.items() if not np.array_equal(call(POSITIONS[name](), hook)[0], value)]
    assert len(own) == 1


def test_rotary_scores_depend_on_the_distance_alone():
    rotary = POSITIONS["rotary"]()
    q, k = Q_BTHK[:1, :1], Q_BTHK[1:, :1]

    def score(p, s):
        turned = [rotary.apply({}, x, np.int32([[at]]), method="rotate") for x, at in ((q, p), (k, s))]
        return np.einsum("BTHK,BTHK->H", *turned)

    np.testing.assert_allclose(score(3, 5), score(40, 42), rtol=1e-4, atol=1e-4)
    assert not np.allclose(score(3, 5), score(3, 6))


def test_sinusoids_are_interleaved_and_end_with_a_sine_when_odd():
    table = np.asarray(sinusoids(np.arange(300)[None], D))[0]
    expected = np.array([[sinusoid(p, i) for i in range(D)] for p in range(300)])
    np.testing.assert_allclose(table, expected, atol=1e-4)
    odd = np.asarray(sinusoids(np.arange(4)[None], 5))[0]
    assert odd.shape == (4, 5)
    np.testing.assert_allclose(odd[:, 4], np.sin(np.arange(4) / 10000 ** (4 / 5)), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("spec", "hook"), [("sinusoidal", "add"), ("rotary", "rotate")])
def test_the_base_of_the_frequencies_can_be_set(spec, hook):
    scheme = POSITIONS[spec]
    assert not np.allclose(call(scheme(), hook)[0], call(scheme(base=10), hook)[0])


def test_t5_looks_back_in_the_decoder_and_both_ways_in_the_encoder():
    """Which entries of the two tables the logits depend on: distances are 0 to 11 on both sides."""
    config = tiny.config({"model.positions": "t5"})
    batch = {side: tiny.sentences([12], 12, seed) for seed, side in enumerate(("inputs", "targets"))}
    weights = np.random.default_rng(1).normal(size=(12, 11))

    def combination(params):
        return (inside.logits(config, params, batch["inputs"], batch["targets"])[0] * weights).sum()

    gradients = jax.jit(jax.grad(combination))(tiny.params(config))
    acting = {
        stack: set(np.flatnonzero(np.abs(gradients[stack]["positions"]["bias"]).sum(-1)).tolist())
        for stack in ("encoder", "decoder")
    }
    offsets = range(-11, 12)
    assert acting == {
        "encoder": {t5_bucket(offset, causal=False) for offset in offsets},
        "decoder": {t5_bucket(offset, causal=True) for offset in offsets},
    }
