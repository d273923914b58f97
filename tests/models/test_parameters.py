"""How many parameters there are, and how they start."""

import functools

import inside
import jax
import numpy as np
import pytest
import tiny

from transformer_jax.config import freeze
from transformer_jax.describe import describe

NARROW = {"model.d_model": 256, "model.d_k": 32, "model.d_v": 32}
WIDE = {"model.d_model": 1024, "model.d_k": 128, "model.d_v": 128}
BIG = {"model.d_model": 1024, "model.d_ff": 4096, "model.num_heads": 16}
LAYERS = {n: {"model.num_encoder_layers": n, "model.num_decoder_layers": n} for n in (2, 4, 8)}
TABLE_3 = {  # name: overrides, our number at 37,000 rows, the paper's in millions (None: not in the paper)
    "base": ({}, 63_045_632, 65),
    **{f"heads {h}": ({"model.num_heads": h}, 63_045_632, None) for h in (1, 4, 16, 32)},
    "d_k 16": ({"model.d_k": 16}, 55_967_744, 58),
    "d_k 32": ({"model.d_k": 32}, 58_327_040, 60),
    "N 2": (LAYERS[2], 33_644_544, 36),
    "N 4": (LAYERS[4], 48_345_088, 50),
    "N 8": (LAYERS[8], 77_746_176, 80),
    "d_model 256": (NARROW, 26_816_512, 28),
    "d_model 1024": (WIDE, 163_815_424, 168),
    "d_ff 1024": ({"model.d_ff": 1024}, 50_450_432, 53),
    "d_ff 4096": ({"model.d_ff": 4096}, 88_236_032, 90),
    "big": (BIG, 214_171_648, 213),
    "ffn_depth 1": ({"model.ffn_depth": 1}, 41_000_960, None),
    "ffn_depth 3": ({"model.ffn_depth": 3}, 113_401_856, None),
    "ffn_depth 4": ({"model.ffn_depth": 4}, 163_758_080, None),
    "no_wo": ({"model.attention.output_projection": "none"}, 58_327_040, None),
}


def count(overrides):
    return sum(int(np.prod(shape)) for shape in tiny.shapes(freeze({"model.vocab_size": 37_000, **overrides})).values())


@pytest.mark.parametrize("name", TABLE_3)
def test_number_of_parameters(name):
    overrides, expected, in_the_paper = TABLE_3[name]
    found = count(overrides)
    assert found == expected
    if in_the_paper is not None:
        assert found / 1e6 == pytest.approx(in_the_paper, rel=0.07)


@pytest.mark.parametrize("vocab_size", [41_004, 41_208])
def test_the_papers_figures_belong_to_a_vocabulary_of_about_41_100(vocab_size):
    """Ten of the eleven, to rounding: all but the big model's."""
    rows = {name: row for name, row in TABLE_3.items() if row[2] is not None and name != "big"}
    assert len(rows) == 10
    for name, (overrides, at_37_000, in_the_paper) in rows.items():
        more = (vocab_size - 37_000) * overrides.get("model.d_model", 512)
        assert round((at_37_000 + more) / 1e6) == in_the_paper, name


@pytest.mark.parametrize("vocab_size", [41_003, 41_209])
def test_and_to_no_other(vocab_size):
    rows = [row for name, row in TABLE_3.items() if row[2] is not None and name != "big"]
    more = {d_model: (vocab_size - 37_000) * d_model for d_model in (256, 512, 1024)}
    rounded = [round((n + more[overrides.get("model.d_model", 512)]) / 1e6) for overrides, n, _ in rows]
    assert rounded != [in_the_paper for _, _, in_the_paper in rows]


@pytest.mark.parametrize("name", ["base", "big", "ffn_depth 1", "no_wo"])
def test_describe_says_the_same(name):
    overrides, expected, _ = TABLE_3[name]
    found = describe(freeze({"model.vocab_size": 37_000, **overrides}))
    assert found["parameters"] == expected == sum(found["modules"].values())


# --- Initial values ---


@functools.cache
def initial(items=()):
    config = tiny.config({"model.num_encoder_layers": 2, "model.d_model": 32, "model.d_ff": 48, **dict(items)})
    return jax.device_get(jax.jit(functools.partial(inside.init, config))(jax.random.key(3)))


def test_projections_start_xavier_uniform_as_one_matrix():
    bound = np.sqrt(6 / (32 + 32))
    for name in ("query", "key", "value", "out"):
        kernel = initial()["encoder"]["layers"]["self_attention"][name]["kernel"]
        assert np.abs(kernel).max() <= bound
        assert np.abs(kernel).max() > 0.99 * bound
        assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
    for name, (wide, narrow) in {"linear_1": (32, 48), "linear_2": (48, 32)}.items():
        linear = initial()["encoder"]["layers"]["feed_forward"][name]
        assert linear["kernel"].shape[1:] == (wide, narrow)
        assert 0.99 < np.abs(linear["kernel"]).max() / np.sqrt(6 / (32 + 48)) <= 1
        assert np.all(linear["bias"] == 0)


def test_layers_start_different():
    kernel = initial()["encoder"]["layers"]["self_attention"]["query"]["kernel"]
    assert not np.allclose(kernel[0], kernel[1])


def test_embedding_starts_normal_with_variance_1_over_d_model():
    config = tiny.config({"model.d_model": 32, "model.vocab_size": 4000})
    table = inside.source_embedding(config).init(jax.random.key(0), np.int32([[0]]))["params"]["embedding"]
    assert np.std(table) == pytest.approx(32**-0.5, rel=0.01)
    assert abs(np.mean(table)) < 0.001


@pytest.mark.parametrize("heads", [1, 8])
def test_row_a_starts_from_the_same_numbers(heads):
    """Head counts differ in how the matrices are cut, not in the matrices."""
    base, row = initial(), initial((("model.num_heads", heads),))
    for path, leaf in jax.tree_util.tree_leaves_with_path(base):
        other = functools.reduce(lambda node, part: node[part.key], path, row)
        np.testing.assert_array_equal(np.ravel(leaf), np.ravel(other), err_msg=str(path))


def test_variants_share_the_initial_values_of_what_they_have_in_common():
    variant = initial(
        (
            ("model.attention.scale", "learned"),
            ("model.attention.output_projection", "none"),
            ("model.positions", "learned"),
            ("model.embedding.tying", "none"),
        )
    )
    base = initial()
    flat = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(variant)}
    common = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(base):
        name = jax.tree_util.keystr(path)
        if name in flat:
            np.testing.assert_array_equal(leaf, flat[name], err_msg=name)
            common += 1
    assert common == len(jax.tree.leaves(base)) - 3  # all but W_O, in three places


SPREAD = {  # what it is set by, the end of the path, standard deviation, bound (None: normal)
    "learned positions": ({"model.positions": "learned"}, "decoder/positions/embedding", 32**-0.5, None),
    "T5": ({"model.positions": "t5(buckets=512, max_distance=1000)"}, "encoder/positions/bias", 1.0, None),
    "Shaw": ({"model.positions": "shaw(max_distance=50)"}, "self_attention/relative/keys", None, 6 / (101 + 16)),
    "bilinear": ({"model.attention.score": "bilinear"}, "cross_attention/score_function/kernel", None, 6 / (16 + 16)),
    "additive": ({"model.attention.score": "additive", "model.d_k": 800}, "score_function/v", 1.0, None),
    "hidden": ({"model.attention.projections": "hidden"}, "query/Dense_0/kernel", None, 6 / (32 + 32)),
    "hidden's second": ({"model.attention.projections": "hidden"}, "key/DenseGeneral_0/kernel", None, 6 / (32 + 32)),
    "gate": ({"model.feed_forward": "swiglu"}, "feed_forward/gate/kernel", None, 6 / (32 + 32)),
    "gated": ({"model.feed_forward": "geglu"}, "feed_forward/linear_1/kernel", None, 6 / (32 + 32)),
    "softmax": ({"model.embedding.tying": "none", "model.vocab_size": 500}, "softmax/embedding", 32**-0.5, None),
}


@pytest.mark.parametrize("name", SPREAD)
def test_parameters_of_a_slot_start_with_the_spread_of_their_source(name):
    overrides, end, deviation, squared_bound = SPREAD[name]
    found = [value for path, value in named(initial(tuple(overrides.items()))) if path.endswith(end)]
    assert found, f"no parameter is called {end}"
    for values in found:
        if squared_bound is None:
            assert values.std() == pytest.approx(deviation, rel=0.08)
            assert np.abs(values).max() > 2.5 * deviation  # normal, not uniform
        else:
            bound = squared_bound**0.5
            assert 0.98 * bound < np.abs(values).max() <= bound
            assert values.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)


STARTS = {"scale": 1.0, "bias": 0.0}


def test_norms_start_as_the_identity_and_biases_at_0():
    overrides = {
        "model.attention.use_bias": True,
        "model.attention.qk_norm": "layer_norm",
        "model.attention.projections": "hidden",
        "model.embedding.output_bias": True,
    }
    seen = set()
    for path, values in named(initial(tuple(overrides.items()))):
        last = path.rpartition("/")[2]
        if last in STARTS:
            seen.add(path.split("/")[-2])
            assert np.all(values == STARTS[last]), path
    assert {"query_norm", "norm", "Dense_0", "DenseGeneral_0", "out", "linear_2", "output_bias"} <= seen


def named(params):
    """(path, values) of every parameter."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), value) for path, value in leaves]
