"""Section 3.2: Eq. 1, multi-head attention against Linen's own, and every score, scale and weighting against NumPy."""

import functools

import flax.linen as nn
import inside
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from transformer_jax.models.attention import attention
from transformer_jax.models.projections import OUTPUT_PROJECTIONS, PROJECTIONS
from transformer_jax.models.scales import SCALES
from transformer_jax.models.scores import SCORES
from transformer_jax.models.weights import WEIGHTS

B, T, S, H, K, V, D = 2, 3, 4, 2, 6, 5, 8
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def softmax_in_numpy(logits, mask):
    exponentials = np.where(mask, np.exp(logits - logits.max(-1, keepdims=True)), 0)
    return exponentials / np.maximum(exponentials.sum(-1, keepdims=True), 1e-30)


def test_attention_is_equation_1():
    q, k, v = normal(B, T, H, K), normal(B, S, H, K), normal(B, S, H, V)
    found, weights = attention(q, k, v, np.ones((B, 1, T, S), bool), scale=K**-0.5)
    for b in range(B):
        for h in range(H):
            expected = softmax_in_numpy(q[b, :, h] @ k[b, :, h].T / np.sqrt(K), True)
            np.testing.assert_allclose(weights[b, h], expected, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(found[b, :, h], expected @ v[b, :, h], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("place", ["encoder", "cross"])
def test_multi_head_attention_equals_linens_on_shared_weights(place):
    config = tiny.config()
    _, attend = inside.multi_head_attention(config, place)
    params = {n: {"kernel": normal(D, H, D // H)} for n in ("query", "key", "value")}
    params["out"] = {"kernel": normal(H, D // H, D)}
    x_BTD = normal(B, T, D)
    memory_BSD = x_BTD if place == "encoder" else normal(B, S, D)
    mask = np.tril(np.ones((T, memory_BSD.shape[1]), bool))[None, None].repeat(B, 0)
    mask[0, :, -1, 1] = False
    found = attend(params, x_BTD, memory_BSD, mask)
    linen = nn.MultiHeadDotProductAttention(H, use_bias=False, deterministic=True)
    expected = linen.apply({"params": params}, x_BTD, memory_BSD, mask=mask)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_multi_head_attention_equals_linens_with_biases_too():
    config = tiny.config({"model.attention.use_bias": True})
    _, attend = inside.multi_head_attention(config, "encoder")
    x_BTD, mask = normal(B, T, D), np.ones((B, 1, T, T), bool)
    linen = nn.MultiHeadDotProductAttention(H, deterministic=True)
    params = jax.tree.map(lambda a: normal(*a.shape), linen.init(jax.random.key(0), x_BTD, mask=mask)["params"])
    found = attend(params, x_BTD, x_BTD, mask)
    np.testing.assert_allclose(found, linen.apply({"params": params}, x_BTD, mask=mask), rtol=1e-5, atol=1e-5)


# --- Projections ---

PROJECTED_BY = {
    "linear": ("query", "key", "value"),
    "hidden": ("query", "key", "value"),
    "no_query": (None, "key", "value"),
    "no_key": ("query", None, "value"),
    "no_value": ("query", "key", None),
    "none": (None, None, None),
    "shared_query_key": ("query", "query", "value"),
    "shared_key_value": ("query", "key", "key"),
    "shared": ("query", "query", "query"),
    "grouped": ("query", "key", "value"),
}
"""What makes queries, keys and values; None: head i takes slice i."""


def projected_in_numpy(x_TD, params, name, head):
    width = D // H
    if name is None:
        return x_TD[:, head * width : (head + 1) * width]
    if "Dense_0" in params[name]:
        hidden, linear = params[name]["Dense_0"], params[name]["DenseGeneral_0"]
        return np.maximum(x_TD @ hidden["kernel"] + hidden["bias"], 0) @ linear["kernel"][:, head]
    if "DenseGeneral_0" in params[name]:  # one head for all
        return x_TD @ params[name]["DenseGeneral_0"]["kernel"][:, 0]
    return x_TD @ params[name]["kernel"][:, head]


def normed_in_numpy(x_TK, name, params):
    if name == "none":
        return x_TK
    if name == "rms_norm":
        return x_TK / np.sqrt((x_TK**2).mean(-1, keepdims=True) + 1e-6) * params["scale"]
    centred = x_TK - x_TK.mean(-1, keepdims=True)
    return centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-6) * params["scale"] + params["bias"]


@pytest.mark.parametrize("qk_norm", ["none", "rms_norm", "layer_norm"])
@pytest.mark.parametrize("output", OUTPUT_PROJECTIONS)
@pytest.mark.parametrize("projections", PROJECTIONS)
def test_multi_head_attention_of_every_projection_is_that_of_numpy(projections, output, qk_norm):
    slots = {"projections": projections, "output_projection": output, "qk_norm": qk_norm}
    config = tiny.config({f"model.attention.{slot}": value for slot, value in slots.items()})
    shapes, attend = inside.multi_head_attention(config, "cross")
    x_BTD, memory_BSD = normal(B, T, D), normal(B, S, D)
    mask = np.ones((B, 1, T, S), bool)
    params = jax.tree.map(lambda a: normal(*a.shape), shapes(x_BTD, memory_BSD))
    found = attend(params, x_BTD, memory_BSD, mask)
    by_query, by_key, by_value = PROJECTED_BY[projections]
    for b in range(B):
        heads = []
        for h in range(H):
            query = projected_in_numpy(x_BTD[b], params, by_query, h)
            key = projected_in_numpy(memory_BSD[b], params, by_key, h)
            query = normed_in_numpy(query, qk_norm, params.get("query_norm"))
            key = normed_in_numpy(key, qk_norm, params.get("key_norm"))
            weights = softmax_in_numpy(query @ key.T / np.sqrt(D // H), True)
            heads.append(weights @ projected_in_numpy(memory_BSD[b], params, by_value, h))
        concatenated = np.concatenate(heads, axis=-1)
        expected = concatenated if output == "none" else concatenated @ params["out"]["kernel"].reshape(D, D)
        np.testing.assert_allclose(found[b], expected, rtol=1e-4, atol=1e-4)


def test_groups_of_heads_share_keys_and_values():
    """Four heads, of which the first two have the keys and values of the first group."""
    changes = {"model.num_heads": 4, "model.attention.projections": "grouped(groups=2)"}
    shapes, attend = inside.multi_head_attention(tiny.config(changes), "cross")
    x_BTD, memory_BSD, mask = normal(B, T, D), normal(B, S, D), np.ones((B, 1, T, S), bool)
    params = jax.tree.map(lambda a: normal(*a.shape), shapes(x_BTD, memory_BSD))
    assert params["key"]["DenseGeneral_0"]["kernel"].shape == (D, 2, D // 4)
    each = {"query": params["query"], "out": params["out"]}
    each |= {n: {"kernel": params[n]["DenseGeneral_0"]["kernel"][:, [0, 0, 1, 1]]} for n in ("key", "value")}
    _, attend_all = inside.multi_head_attention(tiny.config({"model.num_heads": 4}), "cross")
    found = attend(params, x_BTD, memory_BSD, mask)
    np.testing.assert_allclose(found, attend_all(each, x_BTD, memory_BSD, mask), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [0, 3, -2])
def test_groups_that_do_not_divide_the_heads_are_refused(groups):
    assert tiny.accepted(tiny.config({"model.attention.projections": "grouped(groups=2)"}))
    assert not tiny.accepted(tiny.config({"model.attention.projections": f"grouped(groups={groups})"}))


# --- Scores ---


def score_in_numpy(name, q, k, params):
    """The score of one query and one key of one head."""
    if name == "bilinear":
        return q @ params["kernel"] @ k
    if name == "additive":
        return params["v"] @ np.tanh(q + k)
    if name == "elu":
        return np.dot(*(np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))) for x in (q, k)))
    cosine = q @ k / np.linalg.norm(q) / np.linalg.norm(k)
    return {"dot": q @ k, "cosine": K * cosine}[name]


@pytest.mark.parametrize("name", SCORES)
def test_score(name):
    q, k = normal(B, T, H, K), normal(B, S, H, K)
    module = SCORES[name]()
    shapes = jax.eval_shape(module.init, jax.random.key(0), q, k).get("params", {})
    params = {n: normal(*leaf.shape) for n, leaf in shapes.items()}
    found = module.apply({"params": params}, q, k)
    assert found.shape == (B, H, T, S)
    for b, h, t, s in np.ndindex(B, H, T, S):
        own = {n: value[h] for n, value in params.items()}
        expected = score_in_numpy(name, q[b, t, h], k[b, s, h], own)
        np.testing.assert_allclose(found[b, h, t, s], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SCORES)
def test_scores_stay_float32_in_bfloat16(name):
    q, k = (jnp.asarray(normal(B, T, H, K), jnp.bfloat16) for _ in range(2))
    found = jax.eval_shape(lambda q, k: SCORES[name]().init_with_output(jax.random.key(0), q, k)[0], q, k)
    assert found.dtype == jnp.float32


# --- Scales ---

SCALES_IN_NUMPY = {"inv_sqrt_d_k": 1 / np.sqrt(K), "none": 1.0, "inv_d_k": 1 / K, "constant": 0.3}


class Head(nn.Module):
    """What a scale sees of the attention module it acts in."""

    name_of_scale: str
    num_heads: int = H
    d_k: int = K

    @nn.compact
    def __call__(self):
        return SCALES[self.name_of_scale](self, 0.3)


@pytest.mark.parametrize("name", SCALES)
def test_scale(name):
    factor, variables = Head(name).init_with_output(jax.random.key(0))
    if name == "learned":
        assert variables["params"]["scale"].shape == (H,)
        np.testing.assert_allclose(np.broadcast_to(factor, (B, H, T, S)), 1 / np.sqrt(K), rtol=1e-6)
        changed = Head(name).apply({"params": {"scale": np.float32([2, 3])}})
        np.testing.assert_array_equal(np.broadcast_to(changed, (B, H, T, S))[0, :, 0, 0], [2, 3])
    else:
        assert factor == pytest.approx(SCALES_IN_NUMPY[name])
        assert "params" not in variables


def test_scale_multiplies_relative_scores_but_not_the_bias():
    q, k, v = normal(B, T, H, K), normal(B, S, H, K), np.eye(S, dtype=np.float32)[None, :, None].repeat(H, 2)
    v = np.broadcast_to(v, (B, S, H, S))
    relative, bias = normal(B, H, T, S), normal(B, H, T, S)
    found, _ = attention(q, k, v, np.ones((B, 1, T, S), bool), scale=0.3, relative_score=relative, bias=bias)
    logits = 0.3 * (np.einsum("BTHK,BSHK->BHTS", q, k) + relative) + bias
    np.testing.assert_allclose(np.moveaxis(found, 1, 2), softmax_in_numpy(logits, True), rtol=1e-5, atol=1e-6)


# --- Weights ---


def sparsemax_in_numpy(row):
    """The threshold by bisection: the weights max(l - threshold, 0) sum to 1."""
    low, high = row.min() - 1, row.max()
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(row - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(row - high, 0)


WEIGHTS_IN_NUMPY = {
    "softmax": lambda row: np.exp(row) / np.exp(row).sum(),
    "sigmoid": lambda row: 1 / (1 + np.exp(-row + np.log(len(row)))),
    "sparsemax": sparsemax_in_numpy,
    "softmax_off_by_one": lambda row: np.exp(row) / (1 + np.exp(row).sum()),
    "uniform": lambda row: np.full(len(row), 1 / len(row)),
    "proportional": lambda row: np.maximum(row, 0) / (np.maximum(row, 0).sum() or 1),
    "talking_heads": lambda row: np.exp(row) / np.exp(row).sum(),  # as it starts
}


def weighted(name, logits, mask, params=None):
    """What an entry makes of logits, with the parameters that it starts with or these."""
    entry = WEIGHTS[name]()
    if not isinstance(entry, nn.Module):
        return entry(logits, mask)
    variables = entry.init(jax.random.key(0), logits, mask) if params is None else {"params": params}
    return entry.apply(variables, logits, mask)


def test_heads_talk_before_and_after_the_softmax():
    logits, mask = normal(B, H, T, S), RNG.random((B, 1, T, S)) < 0.7
    mask[..., 0] = True
    params = {name: normal(H, H) for name in ("logits", "weights")}
    mixed = np.einsum("BHTS,HG->BGTS", logits, params["logits"])
    expected = np.einsum("BHTS,HG->BGTS", softmax_in_numpy(mixed, mask), params["weights"])
    np.testing.assert_allclose(weighted("talking_heads", logits, mask, params), expected, rtol=1e-5, atol=1e-6)


def test_the_score_elu_in_proportion_is_linear_attention():
    """phi(Q) (phi(K)^T V) over phi(Q) (phi(K)^T 1): what has a cost of T + S, computed in that order."""
    q, k, v = normal(B, T, H, K), normal(B, S, H, K), normal(B, S, H, V)
    everything = np.ones((B, 1, T, S), bool)
    found, _ = attention(
        q, k, v, everything, scale=0.3, score=SCORES["elu"]().bind({}), weights=WEIGHTS["proportional"]()
    )
    phi_q, phi_k = (np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))) for x in (q, k))
    above = np.einsum("BTHK,BHKV->BTHV", phi_q, np.einsum("BSHK,BSHV->BHKV", phi_k, v))
    below = np.einsum("BTHK,BHK->BTH", phi_q, phi_k.sum(1))
    np.testing.assert_allclose(found, above / below[..., None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_over_the_allowed_keys(name):
    logits, mask = 2 * normal(B, H, T, S), RNG.random((B, 1, T, S)) < 0.7
    mask[..., 0] = True
    found = np.asarray(weighted(name, logits, mask))
    assert found.shape == (B, H, T, S)
    for b, h, t in np.ndindex(B, H, T):
        allowed = mask[b, 0, t]
        expected = WEIGHTS_IN_NUMPY[name](logits[b, h, t, allowed].astype(np.float64))
        np.testing.assert_allclose(found[b, h, t, allowed], expected, rtol=1e-5, atol=1e-6)
        assert np.all(found[b, h, t, ~allowed] == 0)


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_row_that_may_attend_to_nothing_is_zero_and_harms_no_gradient(name):
    logits, mask = normal(B, H, T, S), np.ones((B, 1, T, S), bool)
    mask[0, 0, 1] = False
    weights = weighted(name, logits, mask)
    gradient = jax.grad(lambda x: jnp.sum(jnp.sin(weighted(name, x, mask) * np.arange(S))))(logits)
    assert np.all(weights[0, :, 1] == 0)
    assert np.all(np.isfinite(gradient))
    assert np.all(gradient[0, :, 1] == 0)
    assert np.any(np.delete(np.asarray(gradient), 1, axis=2) != 0) == (name != "uniform")


@pytest.mark.parametrize("size", [3e4, 2.0**24, 2.0**30, 1e35, 3e38])
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_stand_logits_of_any_size(name, size):
    """The two largest, alone or among others that count for nothing, share what there is; so do all that are equal."""
    some, all_equal = np.float32([[[[size, -size, 0, size]]]]), np.float32([[[[size] * 4, [-size] * 4]]])
    function = functools.partial(weighted, name, mask=np.ones((1, 1, 1, 4), bool))
    for logits in (some, all_equal):
        assert np.all(np.isfinite(function(logits)))
        assert np.all(np.isfinite(jax.grad(lambda x: jnp.sum(function(x) ** 2))(logits)))
    if name in ("softmax", "sparsemax"):
        np.testing.assert_array_equal(function(some)[0, 0, 0], [0.5, 0, 0, 0.5])
        np.testing.assert_allclose(function(all_equal), np.full((1, 1, 2, 4), 0.25))


def test_every_slot_of_one_place_acts_there_alone():
    """Attention slots can be set for each place apart."""
    base = tiny.config()
    params, batch = tiny.params(base), tiny.batch()
    found = {"base": tiny.logits(base, params, batch)}
    for place in ("encoder", "decoder", "cross"):
        found[place] = tiny.logits(tiny.config({f"model.attention.{place}.scale": "none"}), params, batch)
    found["all"] = tiny.logits(tiny.config({"model.attention.scale": "none"}), params, batch)
    each = {f"model.attention.{place}.scale": "none" for place in ("encoder", "decoder", "cross")}
    np.testing.assert_array_equal(tiny.logits(tiny.config(each), params, batch), found["all"])
    names = list(found)
    for i, one in enumerate(names):
        for other in names[:i]:
            assert not np.allclose(found[one], found[other]), (one, other)
