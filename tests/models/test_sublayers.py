"""Sections 3.1, 3.3, 3.4 and 5.4: feed-forward, Add & Norm, embedding, dropout, masks, each against NumPy."""

import functools

import inside
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import tiny

from transformer_jax.models.embedding import Embedding
from transformer_jax.models.feed_forward import FEED_FORWARDS
from transformer_jax.models.masks import DECODER_MASKS, segment_mask
from transformer_jax.models.regularisation import Dropout
from transformer_jax.models.residual import NORMS, RESIDUALS, AddNorm, left_out
from transformer_jax.models.tokens import tokens_of
from transformer_jax.vocabulary import PAD

B, T, D, F = 2, 3, 6, 10
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, T, D)).astype(np.float32)
ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * scipy.stats.norm.cdf(x),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "linear": lambda x: x,
    "swiglu": lambda x: x / (1 + np.exp(-x)),
    "geglu": lambda x: x * scipy.stats.norm.cdf(x),
}


def random_params(module, *arguments):
    shapes = inside.param_shapes(module, *arguments)
    return jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("name", [name for name in FEED_FORWARDS if name != "none"])
def test_feed_forward(name, depth):
    gated = name in ("swiglu", "geglu")
    if gated and depth != 2:
        pytest.skip("refused by models.build.check")
    module = FEED_FORWARDS[name](d_model=D, d_ff=F, depth=depth, dropout=functools.partial(Dropout, 0.0))
    params = random_params(module, X)
    activation, expected = ACTIVATIONS[name], X
    if gated:
        gate = activation(X @ params["gate"]["kernel"])
        expected = gate * (X @ params["linear_1"]["kernel"]) @ params["linear_2"]["kernel"]
    else:
        for i in range(1, depth + 1):
            expected = expected @ params[f"linear_{i}"]["kernel"] + params[f"linear_{i}"]["bias"]
            expected = activation(expected) if i < depth else expected
    found = inside.apply(module, params, X)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in FEED_FORWARDS if name != "none"])
def test_feed_forward_drops_hidden_units_after_the_non_linearity(name):
    """W_2 is the identity: what comes out is what was hidden, doubled, or nothing."""
    gated = name in ("swiglu", "geglu")
    sizes = {"d_model": D, "d_ff": 3 * D // 2 if gated else D, "depth": 2}
    module = FEED_FORWARDS[name](**sizes, dropout=functools.partial(Dropout, 0.5))
    params = random_params(module, X)
    params["linear_2"] = {n: np.eye(D) if n == "kernel" else np.zeros(D) for n in params["linear_2"]}
    hidden, found = (np.asarray(inside.apply(module, params, X, key=key)) for key in (None, jax.random.key(0)))
    dropped = found == 0
    np.testing.assert_allclose(found[~dropped], 2 * hidden[~dropped], rtol=1e-5)
    assert 0.2 < dropped[hidden != 0].mean() < 0.8


@pytest.mark.parametrize("name", ["swiglu", "geglu"])
def test_gated_feed_forward_has_as_many_weights_as_the_plain_one(name):
    sizes = {"d_model": 30, "d_ff": 300, "depth": 2, "dropout": functools.partial(Dropout, 0.0)}
    x = np.zeros((1, 1, 30), np.float32)
    count = {
        n: sum(
            p.size
            for path, p in jax.tree_util.tree_leaves_with_path(random_params(FEED_FORWARDS[n](**sizes), x))
            if path[-1].key == "kernel"
        )
        for n in (name, "relu")
    }
    assert count[name] == count["relu"] == 2 * 30 * 300


# --- Add & Norm ---


def norm_in_numpy(name, x, params, epsilon):
    if name == "none":
        return x
    centred = x - x.mean(-1, keepdims=True) if name == "layer_norm" else x
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * params["scale"]
    return normed + params.get("bias", 0.0)


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("residual", RESIDUALS)
def test_add_and_norm(residual, name):
    norm = functools.partial(NORMS[name], epsilon=0.1, dtype=jnp.float32)
    module = AddNorm(RESIDUALS[residual], norm, functools.partial(Dropout, 0.5))
    params = random_params(module, X, jnp.sin)
    normed = functools.partial(norm_in_numpy, name, params=params.get("norm"), epsilon=0.1)
    expected = {
        "post_norm": lambda: normed(X + np.sin(X)),
        "pre_norm": lambda: X + np.sin(normed(X)),
        "none": lambda: normed(np.sin(X)),
    }[residual]()
    found = inside.apply(module, params, X, jnp.sin)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("residual", RESIDUALS)
def test_dropout_acts_on_the_sublayer_and_not_on_the_residual_stream(residual):
    module = AddNorm(RESIDUALS[residual], NORMS["none"], functools.partial(Dropout, 0.5))
    found = inside.apply(module, {}, X, jnp.ones_like, key=jax.random.key(0))
    rest = np.asarray(found) - (0 if residual == "none" else X)
    assert set(np.round(rest.ravel(), 4)) == {0.0, 2.0}


def test_a_sublayer_that_is_left_out_leaves_the_stream_as_it_is_and_has_no_parameters():
    module = AddNorm(left_out, NORMS["layer_norm"], functools.partial(Dropout, 0.5))
    np.testing.assert_array_equal(inside.apply(module, {}, X, jnp.sin), X)
    assert not inside.param_shapes(module, X, jnp.sin)
    assert "feed_forward" not in str(tiny.shapes(tiny.config({"model.feed_forward": "none"})))


def test_pre_norm_normalises_the_output_of_each_stack():
    pre, post = (set(tiny.shapes(tiny.config({"model.residual": r}))) for r in ("pre_norm", "post_norm"))
    added = {f"['{stack}']['norm']['{name}']" for stack in ("encoder", "decoder") for name in ("scale", "bias")}
    assert pre - post == added
    assert post <= pre


# --- Embedding and softmax ---


@pytest.mark.parametrize(("scale", "factor"), [("sqrt_d_model", 8**0.5), ("one", 1.0)])
def test_embedding_scale(scale, factor):
    embedding = inside.source_embedding(tiny.config({"model.embedding.scale": scale}))
    table = RNG.normal(size=(11, 8)).astype(np.float32)
    found = embedding.apply({"params": {"embedding": table}}, np.int32([[3, 0]]))
    np.testing.assert_allclose(found, factor * table[[[3, 0]]], rtol=1e-6)


def test_logits_are_products_with_the_table_without_scale():
    table = RNG.normal(size=(11, D)).astype(np.float32)
    found = Embedding(11, D, scale=3.0).apply({"params": {"embedding": table}}, X, method="logits")
    np.testing.assert_allclose(found, X @ table.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tying", tiny.choices("model.embedding.tying"))
def test_tables_of_each_tying(tying):
    shapes = tiny.shapes(tiny.config({"model.embedding.tying": tying, "model.source_vocab_size": 13}))
    tables = {path: shape for path, shape in shapes.items() if path.endswith("['embedding']")}
    expected = {
        "three_way": {"source_embedding": 11},
        "decoder": {"source_embedding": 13, "target_embedding": 11},
        "none": {"source_embedding": 13, "target_embedding": 11, "softmax": 11},
    }[tying]
    assert tables == {f"['{name}']['embedding']": (rows, 8) for name, rows in expected.items()}


USES = {"source": 5, "target": 7, "softmax": 9}
"""A row that only this use reads: 5 is in the source alone, 7 in the target alone, 9 is asked for alone."""


def test_which_uses_a_table_has_at_each_tying():
    """Which of its rows move the logit of 9."""
    found = {}
    for tying in tiny.choices("model.embedding.tying"):
        config = tiny.config({"model.embedding.tying": tying})

        def logit(params, config=config):
            return inside.logits(config, params, np.int32([[4, 5]]), np.int32([[6, 7]]))[0, 1, 9]

        gradients = jax.jit(jax.grad(logit))(tiny.params(config))
        for table in [name for name, leaves in gradients.items() if set(leaves) == {"embedding"}]:
            moves = np.abs(gradients[table]["embedding"]).sum(-1) > 1e-6
            found[tying, table] = {use for use, row in USES.items() if moves[row]}
    assert found == {
        ("three_way", "source_embedding"): {"source", "target", "softmax"},
        ("decoder", "source_embedding"): {"source"},
        ("decoder", "target_embedding"): {"target", "softmax"},
        ("none", "source_embedding"): {"source"},
        ("none", "target_embedding"): {"target"},
        ("none", "softmax"): {"softmax"},
    }


def test_output_bias_is_added_to_the_logits():
    base, biased = tiny.config(), tiny.config({"model.embedding.output_bias": True})
    params = tiny.params(base)
    bias = np.arange(11, dtype=np.float32)
    found = tiny.logits(biased, {**params, "output_bias": {"bias": bias}}, tiny.batch())
    np.testing.assert_allclose(found, tiny.logits(base, params, tiny.batch()) + bias, rtol=1e-5, atol=1e-5)


# --- Dropout and masks ---


@pytest.mark.parametrize("rate", [0.3, jnp.float32(0.3)], ids=["number", "traced"])
def test_dropout_keeps_the_mean(rate):
    x = jnp.ones((200, 200))
    found = inside.apply(Dropout(rate), {}, x, key=jax.random.key(1))
    assert set(np.unique(np.asarray(found).round(4))) == {0.0, np.float32(1 / 0.7).round(4)}
    assert float(jnp.mean(found)) == pytest.approx(1, abs=0.02)
    np.testing.assert_array_equal(inside.apply(Dropout(rate), {}, x), x)


def test_masks():
    tokens = np.int32([[5, 6, 0], [0, 0, 0]])
    segments = tokens_of({"inputs": tokens}, "inputs").segments
    np.testing.assert_array_equal(segments, [[1, 1, 0], [0, 0, 0]])
    mask = segment_mask(np.int32([[1, 1, 2, 0]]), np.int32([[1, 2, 2, 0]]))
    expected = [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(mask[0, 0], np.array(expected, bool))
    positions = np.arange(3)[None]
    np.testing.assert_array_equal(DECODER_MASKS["causal"](positions, positions)[0, 0], np.tri(3, dtype=bool))
    assert np.all(DECODER_MASKS["none"](positions, positions))
    assert PAD == 0
