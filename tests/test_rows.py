"""Every row on every config: accepted, buildable, with as many parameters as it should have."""

import ast
import functools
import itertools
from pathlib import Path

import numpy as np
import pytest
import tiny

from configs.rows import NOTES, PARTNERS, ROWS
from transformer_jax.config import Config, attention_at, fields_of, flatten, replace, to_dict
from transformer_jax.errors import UserError
from transformer_jax.loading import load_config, load_module
from transformer_jax.run.resolve import validate

CONFIGS = Path(__file__).parent.parent / "configs"
FILES = sorted(path.name for path in CONFIGS.glob("*.py") if "def get_config" in path.read_text())
VOCABULARY = {"model.vocab_size": 37_000}


@functools.cache
def load(file: str, row: str = "base") -> Config:
    """With a vocabulary, where there are words."""
    config = load_config(f"{CONFIGS / file}:{row}")
    return replace(config, {path: size for path, size in VOCABULARY.items() if path in fields_of(config)})


def counted(config: Config) -> int:
    return sum(int(np.prod(shape)) for shape in tiny.shapes(config).values())


def by_hand(config: Config) -> int:
    """The parameters of Section 3 and of the slots, added up."""
    model = config.model
    d, tables = model.d_model, {"three_way": 1, "decoder": 2, "none": 3}[model.embedding.tying]
    norm = {"layer_norm": 2 * d, "rms_norm": d, "none": 0}[model.norm]
    feed_forward = 0 if model.feed_forward == "none" else feed_forward_by_hand(config) + norm
    encoder = attention_by_hand(config, "encoder") + norm + feed_forward
    decoder = attention_by_hand(config, "decoder") + attention_by_hand(config, "cross") + 2 * norm + feed_forward
    of_a_stack = {"learned": 512 * d, "t5": 32 * model.num_heads}.get(model.positions, 0)
    of_a_stack += norm if model.residual == "pre_norm" else 0
    layers = model.num_encoder_layers * encoder + model.num_decoder_layers * decoder
    return tables * model.vocab_size * d + layers + 2 * of_a_stack


def feed_forward_by_hand(config: Config) -> int:
    model = config.model
    if model.feed_forward in ("swiglu", "geglu"):
        return 3 * model.d_model * round(2 * model.d_ff / 3)
    widths = [model.d_model, *[model.d_ff] * (model.ffn_depth - 1), model.d_model]
    return sum(a * b + b for a, b in itertools.pairwise(widths))


def attention_by_hand(config: Config, place: str) -> int:
    model, slots = config.model, attention_at(config.model, place)
    h, (d_k, d_v) = model.num_heads, model.head_widths
    query, key, value = (model.d_model * h * width for width in (d_k, d_k, d_v))
    total = {
        "linear": query + key + value,
        "no_query": key + value,
        "no_key": query + value,
        "no_value": query + key,
        "none": 0,
        "shared_query_key": query + value,
        "shared_key_value": query + key,
        "shared": query,
        "hidden": query + key + value + sum(h * width + (h * width) ** 2 for width in (d_k, d_k, d_v)),
        "grouped": query + (key + value) // h,
        "grouped(groups=2)": query + 2 * (key + value) // h,
    }[slots.projections]
    total += value if slots.output_projection == "linear" else 0
    total += {"bilinear": h * d_k**2, "additive": h * d_k}.get(slots.score, 0)
    total += h if slots.scale == "learned" else 0
    total += {"none": 0, "rms_norm": 2 * d_k, "layer_norm": 4 * d_k}[slots.qk_norm]
    total += 2 * h**2 if slots.weights == "talking_heads" else 0
    relative = {"shaw": 33 * d_k, "transformer_xl": (h * d_k) ** 2 + 2 * h * d_k}
    return total + (relative.get(model.positions, 0) if place != "cross" else 0)


def test_there_are_the_configs_that_the_documents_name():
    assert {"base.py", "scan.py", "scan_short.py", "multi30k.py"} <= set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_every_row_is_accepted(file):
    for row in load_module(CONFIGS / file, "ROWS").ROWS:
        try:
            validate(load(file, row))
        except UserError as refused:  # for want of a place, say, that only the paper's family has
            assert "model." in str(refused), row
            assert load(file).model.family != "transformer"


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("file", ["base.py", "scan_short.py"])  # the widest and the narrowest
def test_row_has_its_number_of_parameters(file, row):
    config = load(file, row)
    assert counted(config) == by_hand(config)


ATTENTION = "model.attention"
CHANGES = {  # what each row changes in the base of Table 3, as its name says it
    "base": {},
    "heads_8": {},
    **{f"heads_{n}": {"model.num_heads": n, "model.d_k": 512 // n, "model.d_v": 512 // n} for n in (1, 2, 4, 16, 32)},
    **{f"heads_{n}_fixed_d_k": {"model.num_heads": n} for n in (1, 4, 16, 32)},
    "ffn_depth_1": {"model.ffn_depth": 1},
    "ffn_depth_1_partner": {"model.d_ff": 256},
    "ffn_depth_3": {"model.ffn_depth": 3},
    "ffn_depth_3_matched": {"model.ffn_depth": 3, "model.d_ff": 1024},
    "ffn_depth_4": {"model.ffn_depth": 4},
    "ffn_depth_4_matched": {"model.ffn_depth": 4, "model.d_ff": 799},
    "ffn_gelu": {"model.feed_forward": "gelu"},
    "ffn_linear": {"model.feed_forward": "linear"},
    "ffn_swiglu": {"model.feed_forward": "swiglu"},
    "ffn_geglu": {"model.feed_forward": "geglu"},
    "ffn_none": {"model.feed_forward": "none"},
    "scale_none": {f"{ATTENTION}.scale": "none"},
    "scale_inv_d_k": {f"{ATTENTION}.scale": "inv_d_k"},
    "scale_learned": {f"{ATTENTION}.scale": "learned"},
    "wide_heads": {"model.d_k": 256},
    "wide_heads_scale_none": {"model.d_k": 256, f"{ATTENTION}.scale": "none"},
    "wider_heads": {"model.d_k": 1024},
    "wider_heads_scale_none": {"model.d_k": 1024, f"{ATTENTION}.scale": "none"},
    "no_wo": {f"{ATTENTION}.output_projection": "none"},
    "no_wo_partner": {"model.d_k": 32},
    "no_wo_matched": {f"{ATTENTION}.output_projection": "none", "model.d_ff": 2432},
    "no_wo_no_wv": {f"{ATTENTION}.output_projection": "none", f"{ATTENTION}.projections": "no_value"},
    "no_wq": {f"{ATTENTION}.projections": "no_query"},
    "no_wk": {f"{ATTENTION}.projections": "no_key"},
    "no_wv": {f"{ATTENTION}.projections": "no_value"},
    "no_projections": {f"{ATTENTION}.projections": "none"},
    "shared_wq_wk": {f"{ATTENTION}.projections": "shared_query_key"},
    "shared_wk_wv": {f"{ATTENTION}.projections": "shared_key_value"},
    "shared_wq_wk_wv": {f"{ATTENTION}.projections": "shared"},
    "hidden_projections": {f"{ATTENTION}.projections": "hidden"},
    "score_bilinear": {f"{ATTENTION}.score": "bilinear"},
    "score_additive": {f"{ATTENTION}.score": "additive"},
    "score_cosine": {f"{ATTENTION}.score": "cosine"},
    "qk_rms_norm": {f"{ATTENTION}.qk_norm": "rms_norm"},
    "weights_sigmoid": {f"{ATTENTION}.weights": "sigmoid"},
    "weights_sparsemax": {f"{ATTENTION}.weights": "sparsemax"},
    "weights_off_by_one": {f"{ATTENTION}.weights": "softmax_off_by_one"},
    "weights_uniform": {f"{ATTENTION}.weights": "uniform"},
    "linear_attention": {f"{ATTENTION}.score": "elu", f"{ATTENTION}.weights": "proportional"},
    "talking_heads": {f"{ATTENTION}.weights": "talking_heads"},
    "multi_query": {f"{ATTENTION}.projections": "grouped"},
    "grouped_query": {f"{ATTENTION}.projections": "grouped(groups=2)"},
    "local": {f"{ATTENTION}.encoder.window": 4, f"{ATTENTION}.decoder.window": 4},
    "cross_weights_uniform": {f"{ATTENTION}.cross.weights": "uniform"},
    "positions_learned": {"model.positions": "learned"},
    "positions_none": {"model.positions": "none"},
    "positions_index": {"model.positions": "index(divisor=1.0)"},
    "positions_index_over_100": {"model.positions": "index(divisor=100.0)"},
    "positions_log_index": {"model.positions": "log_index"},
    "positions_rotary": {"model.positions": "rotary"},
    "positions_t5": {"model.positions": "t5"},
    "positions_shaw": {"model.positions": "shaw"},
    "positions_alibi": {"model.positions": "alibi"},
    "positions_transformer_xl": {"model.positions": "transformer_xl"},
    "pre_norm": {"model.residual": "pre_norm"},
    "no_residual": {"model.residual": "none"},
    "rms_norm": {"model.norm": "rms_norm"},
    "no_norm": {"model.norm": "none"},
    "tied_decoder": {"model.embedding.tying": "decoder"},
    "untied": {"model.embedding.tying": "none"},
    "embedding_scale_one": {"model.embedding.scale": "one"},
    "unmasked": {"model.decoder_mask": "none"},
    "averaged": {"evaluate.checkpoint": "average:5"},
    "best_checkpoint": {"evaluate.checkpoint": "best"},
    "ema": {"optimizer.ema_decay": 0.99},
}


def test_every_row_changes_what_its_name_says_and_nothing_else():
    base = flatten(to_dict(load("base.py")))
    found = {
        row: {path: value for path, value in flatten(to_dict(load("base.py", row))).items() if value != base[path]}
        for row in ROWS
    }
    assert found == CHANGES


@pytest.mark.parametrize(("row", "partner"), PARTNERS.items())
def test_partners_have_equal_parameters_within_a_thousandth(row, partner):
    ours, theirs = counted(load("base.py", row)), counted(load("base.py", partner))
    assert abs(ours - theirs) / theirs <= 0.001
    assert load("base.py", row) != load("base.py", partner)


EXACT = {
    "no_wo": 58_327_040,
    "no_wo_partner": 58_327_040,
    "ffn_depth_1": 41_000_960,
    "ffn_depth_3": 113_401_856,
    "ffn_depth_4": 163_758_080,
    "heads_1": 63_045_632,
    "heads_32": 63_045_632,
}


@pytest.mark.parametrize("row", EXACT)
def test_parameters_of_rows_that_the_documents_give(row):
    assert counted(load("base.py", row)) == EXACT[row]


@pytest.mark.parametrize(
    ("row", "d_ff"),
    [
        ("ffn_depth_1_partner", 256),
        ("ffn_depth_3_matched", 1024),
        ("ffn_depth_4_matched", 799),
        ("no_wo_matched", 2432),
    ],
)
def test_matched_rows_have_the_d_ff_that_the_documents_give(row, d_ff):
    assert abs(load("base.py", row).model.d_ff - d_ff) <= 1


def test_heads_at_fixed_d_k_are_confounded_with_size_and_say_so():
    rows = [row for row in ROWS if row.endswith("fixed_d_k")]
    sizes = {row: counted(load("base.py", row)) / 1e6 for row in rows}
    assert sizes["heads_1_fixed_d_k"] == pytest.approx(46.5, abs=0.05)
    assert sizes["heads_32_fixed_d_k"] == pytest.approx(119.7, abs=0.05)
    assert all("size" in NOTES[row] for row in rows)


def test_rows_that_depend_on_the_base_follow_its_overrides():
    narrow = {**VOCABULARY, "model.d_model": 256}
    config = load_config(f"{CONFIGS / 'base.py'}:no_wo_partner", narrow)
    assert config.model.head_widths == (16, 32)
    assert counted(config) == counted(load_config(f"{CONFIGS / 'base.py'}:no_wo", narrow))
    matched = load_config(f"{CONFIGS / 'base.py'}:ffn_depth_3_matched", narrow)
    assert counted(matched) == pytest.approx(counted(load_config(str(CONFIGS / "base.py"), narrow)), rel=0.001)
    config = load_config(f"{CONFIGS / 'base.py'}:heads_4_fixed_d_k", {**VOCABULARY, "model.num_heads": 16})
    assert (config.model.num_heads, config.model.d_k) == (4, 32)  # what the row sets stands, on a base of 16 heads


def test_partners_and_notes_are_rows():
    assert set(PARTNERS) | set(PARTNERS.values()) | set(NOTES) <= set(ROWS)


def test_an_unknown_row_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="'scale_none'"):
        load_config(f"{CONFIGS / 'base.py'}:scale_nine")


@pytest.mark.parametrize("file", ["rows.py", *FILES])
def test_configs_import_the_schema_alone(file):
    tree = ast.parse((CONFIGS / file).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name for name in imported if not name.startswith("configs")} <= {
        "transformer_jax.config",
        "collections.abc",
        "typing",
    }
