"""Every pair of slot values is refused in a sentence or can be built."""

import functools
import itertools

import inside
import jax
import jax.numpy as jnp
import pytest
import tiny

from transformer_jax.config import FAMILIES, with_values
from transformer_jax.errors import UserError
from transformer_jax.models import build


def factors(family):
    """Slot -> its values. The slots of attention are set for each place apart, where there are several."""
    fields = tiny.model_fields(family)
    slots = {path: tiny.choices(path, fields) for path in fields if len(tiny.choices(path, fields)) > 1}
    places = {path.split(".")[2] for path in slots if path.startswith("model.attention.") and path.count(".") == 3}
    apart = {path for path in slots if places and path.startswith("model.attention.") and path.count(".") == 2}
    return {path: values for path, values in slots.items() if path not in apart} | {"model.ffn_depth": [2, 1, 3]}


def pairwise(factors, accepted):
    """Rows such that any two values of any two factors that can stand together do so in one of them, and the rest.

    Greedy, in a fixed order. `accepted(row)` says whether a row, complete or not, can be.
    """
    left = {
        frozenset([(a, x), (b, y)])
        for a, b in itertools.combinations(factors, 2)
        for x, y in itertools.product(factors[a], factors[b])
    }
    rows, refused = [], []
    for pair in sorted(left, key=lambda pair: sorted(map(str, pair))):
        if pair not in left:
            continue
        if not accepted(row := dict(pair)):
            refused.append(row)
            continue
        for name in sorted(factors.keys() - row.keys(), key=lambda name: (-len(factors[name]), name)):
            gain = functools.partial(_new_pairs, left, row, name)
            ranked = sorted(factors[name], key=gain, reverse=True)
            row[name] = next(value for value in ranked if accepted(row | {name: value}))
        left -= {frozenset(pair) for pair in itertools.combinations(row.items(), 2)}
        rows.append(row)
    return rows, refused


def _new_pairs(left, row, name, value):
    return sum(frozenset([(name, value), other]) in left for other in row.items())


def test_the_rows_cover_every_pair_that_can_be():
    factors = {"a": [1, 2, 3], "b": ["x", "y"], "c": [True, False]}
    rows, refused = pairwise(factors, lambda row: not (row.get("a") == 3 and row.get("b") == "y"))
    assert refused == [{"a": 3, "b": "y"}]
    assert len(rows) < 11
    for a, b in itertools.combinations(factors, 2):
        together = {(row[a], row[b]) for row in rows}
        assert together == set(itertools.product(factors[a], factors[b])) - {(3, "y")}


# Relatives are made of the same parts: theirs take as long again.
OF_FAMILIES = [name if name == "transformer" else pytest.param(name, marks=pytest.mark.long) for name in FAMILIES]


@pytest.mark.parametrize("family", OF_FAMILIES)
def test_every_pair_of_slot_values_is_refused_or_built(family):
    base, of_family = tiny.config({"model.family": family}), factors(family)
    rows, refused = pairwise(of_family, lambda row: tiny.accepted(with_values(base, row)))
    most, second = sorted(map(len, of_family.values()))[-1:-3:-1]
    assert most * second <= len(rows) + len(refused) <= 250
    for row in rows:
        logits, _ = inside.shapes_in_training(with_values(base, row))
        assert (logits.shape[0], logits.shape[-1], logits.dtype) == (1, 11, jnp.float32), row
    assert 0 < len(refused) < 60
    for row in refused:
        with pytest.raises(UserError, match="model"):
            build.check(with_values(base, row))


HEADS_DO_NOT_FILL = {"model.num_heads": 3, "model.d_k": 4, "model.d_v": 4}
REFUSED = [
    ({"model.attention.output_projection": "none", **HEADS_DO_NOT_FILL}, ["12", "d_model = 8"]),
    ({"model.attention.projections": "no_query", **HEADS_DO_NOT_FILL}, ["d_k = 12", "d_model = 8"]),
    ({"model.attention.cross.projections": "no_key", **HEADS_DO_NOT_FILL}, ["attention.cross", "d_k = 12"]),
    ({"model.attention.decoder.projections": "no_value", **HEADS_DO_NOT_FILL}, ["attention.decoder", "d_v = 12"]),
    ({"model.attention.projections": "none", "model.d_v": 3}, ["d_v = 6", "d_model = 8"]),
    ({"model.attention.projections": "shared_key_value", "model.d_k": 3}, ["d_k = d_v", "3 and 4"]),
    ({"model.attention.projections": "shared", "model.d_v": 3}, ["d_k = d_v", "4 and 3"]),
    ({"model.positions": "rotary", "model.d_k": 3}, ["d_k = 3", "odd"]),
    ({"model.positions": "rotary", "model.attention.encoder.score": "additive"}, ["attention.encoder.score"]),
    ({"model.feed_forward": "swiglu", "model.ffn_depth": 3}, ["ffn_depth = 3", "swiglu"]),
    ({"model.feed_forward": "gelu", "model.ffn_depth": 1}, ["gelu", "ffn_depth = 1"]),
    ({"model.feed_forward": "linear", "model.ffn_depth": 1}, ["linear", "ffn_depth = 1"]),
    ({"model.residual": "pre_norm", "model.norm": "none"}, ["'pre_norm'", "model.norm is 'none'"]),
    (
        {"model.positions": "t5", "model.attention.decoder.weights": "uniform"},
        ["'t5' acts on the scores", "model.attention.decoder.weights = 'uniform'"],
    ),
    ({"model.feed_forward": "none()"}, ["model.feed_forward", "none()"]),
    ({"model.positions": "learned(max_length=23)"}, ["max_length=66"]),
    ({"model.positions": "t5(buckets=3)"}, ["t5(buckets=3)", "4 buckets"]),
    ({"model.positions": "t5(max_distance=8)"}, ["max_distance"]),
    ({"model.positions": "index(divisor=0)"}, ["divisor"]),
    ({"model.positions": "sinusoidal(bass=10)"}, ["'bass'", "'base'"]),
    ({"model.attention.decoder.weights": "softmacks"}, ["model.attention.decoder.weights", "'softmax'"]),
]


@pytest.mark.parametrize(("overrides", "words"), REFUSED, ids=[str(sorted(o.items())[0]) for o, _ in REFUSED])
def test_what_cannot_be_built_is_refused_in_a_sentence(overrides, words):
    with pytest.raises(UserError) as refused:
        build.check(tiny.config(overrides))
    for word in words:
        assert word in str(refused.value)


def test_rotary_leaves_cross_attention_free():
    build.check(tiny.config({"model.positions": "rotary", "model.attention.cross.score": "additive"}))


def test_depth_does_not_grow_the_program():
    def equations(layers):
        config = tiny.config({"model.num_encoder_layers": layers, "model.num_decoder_layers": layers})
        params = jax.eval_shape(functools.partial(inside.init, config), jax.random.key(0))
        batch = {"inputs": jnp.ones((2, 3), jnp.int32), "targets": jnp.ones((2, 4), jnp.int32)}
        jaxpr = jax.make_jaxpr(build.build_model(config.model).apply)(params, batch)
        return str(jaxpr).count("dot_general")

    assert equations(2) == equations(7) > 0


def test_a_cache_has_batch_and_heads_in_front():
    keys, values, length = inside.cache_shapes(tiny.config({"model.d_v": 3}), rows=5, max_length=7)
    assert (keys, values, length) == ((5, 2, 4, 7), (5, 2, 7, 3), 0)
