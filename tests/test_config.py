"""The schema: one statement of every knob, strict on the way in, complete on the way out."""

import dataclasses
import json
import math
import tomllib
from pathlib import Path

import jax.numpy as jnp
import pytest
import tiny

from transformer_jax.config import (
    FAMILIES,
    FIELDS,
    TASK_CONFIGS,
    Config,
    attention_at,
    check_value,
    config_hash,
    default_config,
    derive,
    fields_of,
    freeze,
    not_read,
    replace,
    schema,
    to_dict,
    value_at,
    with_values,
)
from transformer_jax.errors import UserError
from transformer_jax.tasks import TASKS

# Table 3's base row and Section 5, read from the paper and not from the code.
THE_PAPER = {
    "model.num_encoder_layers": 6,
    "model.num_decoder_layers": 6,
    "model.d_model": 512,
    "model.d_ff": 2048,
    "model.num_heads": 8,
    "model.d_k": 64,
    "model.d_v": 64,
    "model.ffn_depth": 2,
    "model.dropout_rate": 0.1,
    "model.ffn_dropout_rate": 0.0,
    "model.positions": "sinusoidal",
    "model.feed_forward": "relu",
    "model.residual": "post_norm",
    "model.norm": "layer_norm",
    "model.norm_epsilon": 1e-6,
    "model.decoder_mask": "causal",
    "model.attention.score": "dot",
    "model.attention.scale": "inv_sqrt_d_k",
    "model.attention.weights": "softmax",
    "model.attention.projections": "linear",
    "model.attention.output_projection": "linear",
    "model.attention.use_bias": False,
    "model.attention.qk_norm": "none",
    "model.attention.dropout_rate": 0.0,
    "model.embedding.tying": "three_way",
    "model.embedding.scale": "sqrt_d_model",
    "model.embedding.output_bias": False,
    "data.tokens_per_batch": 25_000,
    "optimizer.name": "adam",
    "optimizer.learning_rate": 1.0,
    "optimizer.schedule": "noam",
    "optimizer.warmup_steps": 4000,
    "optimizer.beta_1": 0.9,
    "optimizer.beta_2": 0.98,
    "optimizer.epsilon": 1e-9,
    "optimizer.weight_decay": 0.0,
    "optimizer.clip_norm": None,
    "optimizer.ema_decay": None,
    "train.steps": 100_000,
    "train.label_smoothing": 0.1,
    "decode.strategy": "beam",
    "decode.beam_size": 4,
    "decode.alpha": 0.6,
    "decode.max_extra_length": 50,
}


@pytest.mark.parametrize("path", THE_PAPER)
def test_the_defaults_are_the_papers(path):
    assert value_at(freeze({}), path) == THE_PAPER[path]


def test_the_first_entry_of_every_table_is_the_papers():
    for path, table in tiny.TABLES.items():
        assert next(iter(table)) == EVERY_FIELD[path].default


CHOOSERS = ("model.family", "task.name")
"""The fields that say which other fields there are."""
CHOICES = [(family, task) for family in FAMILIES for task in TASK_CONFIGS]
EVERY_FIELD = {path: field for choice in CHOICES for path, field in schema(*choice).items()}
"""Those of all families and tasks."""


@pytest.mark.parametrize("path", EVERY_FIELD)
def test_every_field_says_what_it_is_and_has_a_default_that_it_accepts(path):
    field = EVERY_FIELD[path]
    assert field.knob.doc
    assert check_value(field, field.default) == field.default
    if field.knob.traced:
        assert field.type is float


def test_a_config_survives_json():
    config = freeze({"model.d_model": 24, "model.num_heads": 3, "model.attention.cross.scale": "none"})
    again = freeze(json.loads(json.dumps(to_dict(config))))
    assert again == config
    assert config_hash(again) == config_hash(config)


def test_every_field_changes_the_hash():
    for family, task in CHOICES:
        config = freeze({"model.family": family, "task.name": task})
        fields = [path for path in fields_of(config) if path not in CHOOSERS]
        hashes = {config_hash(with_values(config, {path: "another"})) for path in fields}
        assert len(hashes | {config_hash(config)}) == len(fields) + 1


def test_family_and_task_change_the_hash():
    configs = [freeze(dict(zip(CHOOSERS, choice, strict=True))) for choice in CHOICES]
    assert len({config_hash(config) for config in configs}) == len(CHOICES)
    assert [config_hash(config) for config in configs if config == freeze({})] == [config_hash(freeze({}))]


def test_the_config_of_a_file_is_locked_and_complete():
    config = default_config()
    assert freeze(config) == freeze({})
    with pytest.raises(AttributeError):
        config.model.d_modle = 3
    with pytest.raises(TypeError):
        config.model.d_model = "wide"
    config.model.d_k = 7
    config.model.attention.decoder.scale = "none"
    config.evaluate.metrics = ("exact_match",)
    assert freeze(config).model.d_k == 7


def test_unset_widths_are_derived_after_all_overrides():
    assert freeze({"model.num_heads": 4}).model.head_widths == (128, 128)
    assert freeze({"model.num_heads": 4, "model.d_k": 3}).model.head_widths == (3, 128)
    assert freeze({"model.num_heads": 7, "model.d_k": 3, "model.d_v": 5}).model.head_widths == (3, 5)
    config = freeze({"model.num_heads": 4})
    assert derive(config) == config
    with pytest.raises(ValueError, match="not derived"):
        _ = Config().model.head_widths


def refused(overrides):
    with pytest.raises(UserError) as error:
        freeze(overrides)
    return str(error.value)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("model.num_haeds", 8, ["config.model.num_haeds", "'model.num_heads'"]),
        ("optimiser.name", "adam", ["config.optimiser.name", "'optimizer.name'"]),
        ("model.num_heads", "8", ["'8'", "int", "str"]),
        ("model.num_heads", 8.0, ["8.0", "int", "float"]),
        ("model.num_heads", True, ["True", "int", "bool"]),
        ("model.num_heads", 0, ["= 0", "from 1 to 4096"]),
        ("model.num_heads", None, ["None", "int"]),
        ("model.num_heads", 7, ["7", "512", "model.d_k"]),
        ("model.dropout_rate", 1.0, ["1.0", "from 0 to 0.99"]),
        ("model.dropout_rate", -0.1, ["-0.1", "from 0 to 0.99"]),
        ("model.dropout_rate", "0.1", ["'0.1'", "float"]),
        ("model.dropout_rate", math.nan, ["nan"]),
        ("model.attention.decoder.dropout_rate", 1.5, ["attention.decoder.dropout_rate = 1.5", "from 0 to 0.99"]),
        ("model.attention.encoder.use_bias", 1, ["attention.encoder.use_bias", "bool"]),
        ("model.attention.scale_value", math.inf, ["inf"]),
        ("optimizer.learning_rate", math.inf, ["inf"]),
        ("optimizer.beta_1", 1, ["= 1", "0.99999"]),
        ("model.residual", "post-norm", ["'post-norm'", "'post_norm'", "pre_norm, none"]),
        ("model.residual", 3, ["= 3", "post_norm"]),
        ("evaluate.metrics", "bleu", ["'bleu'", "list of names"]),
        ("evaluate.metrics", [1], ["[1]", "list of names"]),
        ("seed", -1, ["-1"]),
        ("model", 3, ["config.model does not exist"]),
    ],
)
def test_what_is_not_in_the_schema_is_refused_with_path_value_and_what_is_allowed(path, value, words):
    message = refused({path: value})
    assert [word for word in [path, *words] if word not in message] == []


def test_an_int_is_a_float_and_a_list_is_a_tuple():
    config = freeze({"optimizer.learning_rate": 2, "evaluate.metrics": ["bleu"]})
    assert isinstance(config.optimizer.learning_rate, float)
    assert config.evaluate.metrics == ("bleu",)


def test_attention_of_one_place_inherits_what_it_does_not_set():
    config = freeze({"model.attention.scale": "none", "model.attention.cross.scale": "inv_d_k"})
    assert [attention_at(config.model, place).scale for place in config.model.places] == ["none", "none", "inv_d_k"]
    off = freeze({"model.attention.use_bias": True, "model.attention.encoder.use_bias": False})
    assert [attention_at(off.model, place).use_bias for place in config.model.places] == [False, True, True]
    names = {field.name for field in dataclasses.fields(attention_at(config.model, "cross"))}
    for place in config.model.places:
        assert {p.rpartition(".")[2] for p in FIELDS if p.startswith(f"model.attention.{place}.")} == names


def test_a_number_may_be_a_tracer():
    traced = with_values(freeze({}), {"train.label_smoothing": jnp.float32(0.5)})
    assert traced.train.label_smoothing == 0.5
    assert traced.train.steps == 100_000


def test_not_read_names_what_the_base_does_not_use():
    base = set(not_read(freeze({})))
    assert {"model.attention.scale_value", "model.source_vocab_size", "optimizer.weight_decay"} <= base
    assert "model.d_ff" not in base
    assert "model.d_ff" in not_read(freeze({"model.ffn_depth": 1}))
    assert "model.attention.decoder.scale_value" in base
    assert "optimizer.warmup_steps" in not_read(freeze({"optimizer.schedule": "constant"}))
    assert replace(freeze({}), {"seed": 3}).seed == 3


# --- The fields of rooms in which no other test changes one after the other ---

ROOMS = ("seed", "task", "data", "train", "parallel", "decode", "evaluate")
ELSEWHERE = [path for path in EVERY_FIELD if path.split(".")[0] in ROOMS]
if len(TASKS) == 1:
    ELSEWHERE.remove("task.name")  # a field with a single value cannot act
MUTANTS = Path(__file__).parent / "mutation" / "mutants.toml"
IDLE = {mutant["field"] for mutant in tomllib.loads(MUTANTS.read_text())["mutant"] if "field" in mutant}


@pytest.mark.parametrize("path", ELSEWHERE)
def test_that_a_field_acts_is_held_by_a_test(path):
    """By one that is known to fail where the field is idle: `./launch.sh test -m mutation` sees to that."""
    assert path in IDLE, f"no mutant of {MUTANTS.name} makes {path} idle"


def test_mutants_name_fields_that_there_are():
    assert set(ELSEWHERE) >= IDLE


def test_every_number_has_bounds():
    """Beyond them a shape or a step could not be counted, and a refusal would come from somewhere deep."""
    numbers = [field for field in FIELDS.values() if field.base_type in (int, float)]
    assert numbers
    assert [field.path for field in numbers if field.knob.low is None or field.knob.high is None] == []
