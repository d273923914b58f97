"""A knob that does nothing is a bug: each field matters exactly where it says that it is read.

A field matters if another value of it changes the parameters, or what a tiny training step computes from the same
parameters, dropout on. All values of slots and of fields with named choices are tried, one after another.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from transformer_jax.config import FAMILIES, fields_of, is_read, replace, value_at, with_values
from transformer_jax.tasks import TASKS

ONE_CHOICE = {"model.family"}
PLACES = [f"model.attention.{place}" for place in ("encoder", "decoder", "cross")]
NUMBERS = {
    "model.attention.window": [0],
    "model.d_k": [6],
    "model.d_v": [6],
    "model.source_vocab_size": [17],
    "model.norm_epsilon": [0.5],
}
EVERY_FIELD = [(family, path) for family in FAMILIES for path in tiny.model_fields(family) if path not in ONE_CHOICE]
OF_HEADS = ("model.d_model", "model.num_heads", "model.d_v")
HEADS_ARE_FREE = {"model.attention.projections": "linear", "model.attention.output_projection": "linear"}
"""Of the base, mostly: else heads must fill the vector, and no size can change alone."""
IN_PARTS_OF_ALL = ("model.attention.", "model.embedding.", "model.dropout_rate", "model.dtype")
FILLS_IN = {"task.name": "masked_language_modelling", "model.num_classes": 0}
CONDITIONS = [  # in this config that field is read, or not
    ("model.attention.scale_value", {"model.attention.scale": "constant"}, True),
    ("model.attention.scale_value", {"model.attention.decoder.scale": "constant"}, True),
    ("model.attention.scale_value", {"model.attention.scale": "constant", "model.attention.weights": "uniform"}, False),
    ("model.attention.encoder.scale_value", {"model.attention.scale": "constant"}, True),
    ("model.attention.cross.scale_value", {"model.attention.cross.scale": "constant"}, True),
    ("model.attention.cross.scale_value", {"model.attention.decoder.scale": "constant"}, False),
    ("model.attention.scale", {"model.attention.weights": "uniform"}, False),
    ("model.attention.use_bias", {"model.attention.projections": "none"}, True),
    (
        "model.attention.use_bias",
        {"model.attention.projections": "none", "model.attention.output_projection": "none"},
        False,
    ),
    (
        "model.attention.encoder.use_bias",
        {"model.attention.encoder.projections": "none", "model.attention.encoder.output_projection": "none"},
        False,
    ),
    ("model.attention.scale", {f"{place}.scale": "inv_sqrt_d_k" for place in PLACES}, False),
    ("model.attention.dropout_rate", {f"{place}.dropout_rate": 0.5 for place in PLACES}, False),
    ("model.attention.dropout_rate", {f"{place}.dropout_rate": 0.5 for place in PLACES[:2]}, True),
    ("model.source_vocab_size", {"model.embedding.tying": "none"}, True),
    ("model.d_ff", {"model.feed_forward": "none"}, False),
    ("model.d_ff", {"model.ffn_depth": 1}, False),
    ("model.ffn_depth", {"model.feed_forward": "none"}, False),
    ("model.ffn_dropout_rate", {"model.feed_forward": "none"}, False),
    ("model.ffn_dropout_rate", {"model.ffn_depth": 1}, False),
    ("model.norm_epsilon", {"model.norm": "none"}, False),
    ("model.norm_epsilon", {"model.norm": "none", "model.attention.decoder.qk_norm": "rms_norm"}, True),
    *[
        (f"model.{name}", without_attention, False)
        for without_attention in ({"model.mixing": "convolution"}, {"model.context": "fixed"})
        for name in ("num_heads", "d_k", "d_v", "attention.score", "attention.use_bias", "attention.dropout_rate")
    ],
    (
        "model.residual",
        {"model.cell": "gru", "model.num_encoder_layers": 1, "model.num_decoder_layers": 1},
        False,
    ),
    ("model.norm_epsilon", {"model.cell": "gru", "model.attention.qk_norm": "rms_norm"}, True),
    ("model.pooling", FILLS_IN, False),
    ("model.embedding.tying", FILLS_IN, True),
    ("model.embedding.output_bias", FILLS_IN, True),
    ("model.embedding.norm", {"model.norm": "none"}, False),
]

CONDITIONS_OF = [
    (family, path, overrides, read)
    for family in FAMILIES
    for path, overrides, read in CONDITIONS
    if {path, *overrides} <= tiny.model_fields(family).keys() | {"task.name"}
    and family in TASKS[overrides.get("task.name", tiny.of_family(family).get("task.name", "translation"))].families
]


def marked(cases):
    """Cases (family, path, ...), of which some are long."""
    return [
        pytest.param(*case, marks=pytest.mark.long)
        if case[0] in tiny.LONG and case[1].startswith(IN_PARTS_OF_ALL)
        else case
        for case in cases
    ]


def alternatives(path, config):
    """Other values of a field than the one it has, or inherits."""
    place = next((place for place in PLACES if path.startswith(f"{place}.")), "model.attention")
    general = path.replace(place, "model.attention")
    value = value_at(config, general)
    if choices := tiny.choices(path, fields_of(config)):
        return [choice for choice in choices if choice != value]
    if general in NUMBERS:
        return NUMBERS[general]
    return [value / 2 + 0.2] if fields_of(config)[path].base_type is float else [2 * value]


@functools.cache
def computed(config):
    """Loss and token count of a step, dropout on; the loss is not averaged, so that nothing small is lost."""
    batch = jax.tree.map(jnp.asarray, tiny.batch_of(config))
    with jax.disable_jit():
        totals = tiny.totals(config, tiny.params(config), batch, jax.random.key(1))
    return float(totals["loss"][0]), float(totals["nll"][0])


def differs(config, other):
    return tiny.shapes(config) != tiny.shapes(other) or computed(config) != computed(other)


@pytest.mark.parametrize(("family", "path"), marked(EVERY_FIELD))
def test_field_of_the_base(family, path):
    check(path, tiny.config({"model.family": family, **(HEADS_ARE_FREE if path in OF_HEADS else {})}))


@pytest.mark.parametrize(("family", "path", "overrides", "read"), marked(CONDITIONS_OF))
def test_field_that_is_read_under_a_condition(family, path, overrides, read):
    config = tiny.config({"model.family": family, **overrides})
    assert is_read(fields_of(config)[path], config) == read
    check(path, config)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_condition_is_seen_true_and_false(family):
    """Those of one place have the condition of all."""
    fields, base = tiny.model_fields(family), tiny.config({"model.family": family})
    conditional = {path for path, field in fields.items() if field.knob.read_if is not None}
    for path in conditional - {path for path in fields if path.startswith(tuple(PLACES))}:
        seen = {read for of, tried, _, read in CONDITIONS_OF if (of, tried) == (family, path)}
        assert seen | {is_read(fields[path], base)} == {True, False}, path


def check(path, config):
    read = is_read(fields_of(config)[path], config)
    tried = [replace(config, {path: value}) for value in alternatives(path, config)]
    tried = [other for other in tried if tiny.accepted(other)]
    assert tried, f"no other value of {path} is accepted"
    for other in tried[:1] if path.startswith(tuple(PLACES)) else tried:
        assert differs(config, other) == read, f"{path} = {value_at(other, path)!r}: is_read says {read}"


def test_label_smoothing_changes_the_loss_and_not_the_nll():
    (loss, nll), (other_loss, other_nll) = (computed(tiny.config({"train.label_smoothing": e})) for e in (0.1, 0.3))
    assert loss != other_loss
    assert nll == other_nll


TRACED = [(family, path) for family, path in EVERY_FIELD if tiny.model_fields(family)[path].knob.traced]


@pytest.mark.parametrize(("family", "path"), marked(TRACED))
def test_a_traced_number_gives_what_the_constant_gives(family, path):
    config = tiny.config({"model.family": family, "model.attention.scale": "constant", path: 0.3})
    traced = with_values(config, {path: jnp.float32(0.3)})
    batch, params = jax.tree.map(jnp.asarray, tiny.batch_of(config)), tiny.params(config)
    with jax.disable_jit():
        loss, _ = tiny.totals(traced, params, batch, jax.random.key(1))["loss"]
    assert float(loss) == pytest.approx(computed(config)[0], rel=1e-5)
    assert np.isfinite(loss)
