"""Config files, rows and overrides, the shipped configs and experiments, and whatever else somebody may hand in."""

import ast
import json
import re
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transformer_jax.config import FIELDS, Config, default_config, flatten, freeze, to_dict, value_at
from transformer_jax.errors import UserError
from transformer_jax.loading import load_config, parse_override, put_on, split_specs
from transformer_jax.run.identity import read_config
from transformer_jax.run.resolve import validate
from transformer_jax.sweeps.experiment import choose_scale, load_experiment, make_variants
from transformer_jax.tasks import task_of

ROOT = Path(__file__).parent.parent
NO_CONFIGS = {"rows.py", "table3.py"}  # rows that the configs share
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.py") if path.name not in NO_CONFIGS)
EXPERIMENTS = sorted(path for path in (ROOT / "experiments").glob("*.py") if path.name != "scales.py")


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


# --- What is shipped ---


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_files_load_and_say_what_to_expect(path):
    config = load_config(str(path))
    validate(config)
    text = docstring(path)
    assert f"--config=configs/{path.name}" in text
    assert re.search(r"^Expected: \S", text, re.MULTILINE) or "./launch.sh train" not in text


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_row_of_a_config_file_loads(path):
    rows = re.findall(r"Rows: (.*)\.$", str(pytest.raises(UserError, load_config, f"{path}:no such row").value))
    for row in rows[0].split(", "):
        try:
            validate(load_config(f"{path}:{row}"))
        except UserError as error:  # some rows need a wider base, or one of the paper's family, and say so
            wanted = r"does not divide model\.d_model|must equal model\.d_model"
            if load_config(str(path)).model.family != "transformer":
                wanted = r"model\."
            assert re.search(wanted, str(error)), row


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiments_ask_a_question_and_all_their_rows_validate(path):
    text = docstring(path)
    for paragraph in ("Question", "Hypothesis", "Answer"):
        assert re.search(rf"^{paragraph}: \S", text, re.MULTILINE)
    experiment = load_experiment(path)
    assert experiment.question
    assert experiment.hypothesis
    assert {"smoke", "small", "full"} <= set(experiment.scales)
    for name in experiment.scales:
        scale = choose_scale(experiment, name)
        variants = make_variants(experiment, scale, {})
        assert [variant.name for variant in variants] == list(experiment.rows)
        others = [variant.config for variant in variants if variant.config != variants[0].config]
        assert len(set(others)) == len(others) or name == "smoke", "two rows are one experiment"
        for variant in variants:
            validate(variant.config)
            figures = task_of(variant.config).figures
            assert scale.metric.partition("/")[2] in {*variant.config.evaluate.metrics, *figures}


# --- Files, rows, overrides ---


def write(path: Path, text: str) -> Path:
    path.write_text("from transformer_jax.config import default_config\n" + text)
    return path


CONFIG = """
def get_config():
    config = default_config()
    config.model.d_model = 32
    config.model.d_k = 7
    return config
ROWS = {
    "wide": {"model.d_model": 64},
    "nested": {"model": {"d_model": 16}},
    "double": lambda base: {"model.d_ff": 2 * base.model.d_model},
    "matched": lambda base: {"model.d_ff": 2 * base.model.d_ff},
    "no_scale": {"model.attention.scale": "none"},
}
"""


def test_the_row_wins_over_the_overrides_and_the_overrides_over_the_file(tmp_path):
    path = write(tmp_path / "c.py", CONFIG)
    assert load_config(str(path)).model.d_model == 32
    assert load_config(str(path), {"model.d_model": 8}).model.d_model == 8
    assert load_config(f"{path}:wide").model.d_model == 64
    assert load_config(f"{path}:nested").model.d_model == 16
    found = load_config(f"{path}:wide", {"model.d_ff": 9}).model
    assert (found.d_model, found.d_ff, found.d_k) == (64, 9, 7)  # what the row does not name stays


def test_a_row_that_depends_on_the_base_sees_the_overrides(tmp_path):
    path = write(tmp_path / "c.py", CONFIG)
    assert load_config(f"{path}:double").model.d_ff == 64
    assert load_config(f"{path}:double", {"model.d_model": 48}).model.d_ff == 96
    assert load_config(f"{path}:matched", {"model.d_ff": 50}).model.d_ff == 100


@pytest.mark.parametrize(
    ("row", "overrides", "message"),
    [
        (
            "wide",
            {"model.d_model": 8},
            "model.d_model = 8 would change nothing: row 'wide' sets model.d_model, and what",
        ),
        ("nested", {"model.d_ff": 9, "model.d_model": 32}, "model.d_model = 32 would change nothing: row 'nested'"),
        ("double", {"model.d_model": 48, "model.d_ff": 5}, "model.d_ff = 5 would change nothing: row 'double' sets"),
        ("double", {"model.ffn_depth": 1}, "row 'double' sets model.d_ff, which is not read with model.ffn_depth as"),
        (
            "no_scale",
            {f"model.attention.{place}.scale": "inv_sqrt_d_k" for place in ("encoder", "decoder", "cross")},
            "row 'no_scale' sets model.attention.scale, which is not read with model.attention.encoder.scale, model",
        ),
    ],
)
def test_an_override_that_could_change_nothing_or_undo_a_row_is_refused(tmp_path, row, overrides, message):
    path = write(tmp_path / "c.py", CONFIG)
    with pytest.raises(UserError) as refused:
        load_config(f"{path}:{row}", overrides)
    assert str(refused.value).startswith(message)


def test_an_override_that_says_what_the_row_says_is_no_contradiction(tmp_path):
    path = write(tmp_path / "c.py", CONFIG)
    assert load_config(f"{path}:wide", {"model.d_model": 64}) == load_config(f"{path}:wide")
    assert load_config(f"{path}:no_scale", {"model.attention.cross.scale": "learned"}).model.attention.scale == "none"


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--config.model.d_model=64", 64),
        ("--config.optimizer.learning_rate=1", 1.0),
        ("--config.optimizer.learning_rate=1e-3", 1e-3),
        ("--config.data.joint_vocabulary=false", False),
        ("--config.data.joint_vocabulary=True", True),
        ("--config.optimizer.clip_norm=null", None),
        ("--config.data.directory=null", None),
        ("--config.data.directory=17", "17"),
        ("--config.data.source=copy(symbols=5)", "copy(symbols=5)"),
        ("--config.model.norm=rms_norm", "rms_norm"),
        ("--config.evaluate.metrics=bleu(tokenize='char'), chrf", ("bleu(tokenize='char')", "chrf")),
        ("--config.evaluate.metrics=", ()),
    ],
)
def test_overrides_have_the_type_of_their_field(argument, value):
    path, read = parse_override(argument)
    assert argument.startswith(f"--config.{path}=")
    found = value_at(freeze({path: read}), path)
    assert found == value
    assert type(found) is type(value)


def test_specs_are_split_outside_of_parentheses_only():
    assert split_specs("a, b(c=1, d=2) ,,e") == ["a", "b(c=1, d=2)", "e"]


def test_config_json_round_trips(tmp_path):
    config = freeze(
        {
            "model.d_model": 24,
            "model.num_heads": 3,
            "evaluate.metrics": ("chrf",),
            "model.attention.cross.scale": "none",
        }
    )
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    assert read_config(tmp_path) == config


# --- Whatever else ---

ANYTHING = st.one_of(
    st.text(max_size=40),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        [
            "null",
            "true",
            "1e999",
            "9" * 400,
            "9" * 5000,
            "{[]: 1}",
            "(" * 200,
            "-" * 200 + "1",
            "\0",
            "[1, 2]",
            "1_0",
            "0x10",
            "'",
            "\\",
            "1j",
        ]
    ),
)
PATHS = st.one_of(
    st.sampled_from(sorted(FIELDS)),
    st.lists(st.sampled_from(["model", "data", "d_model", "", "__class__", "attention", "seed"]), max_size=4).map(
        ".".join
    ),
    st.text(max_size=30),
)
relaxed = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@relaxed
@given(path=PATHS, text=ANYTHING)
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_any_override_is_a_value_of_its_field_or_a_sentence(path, text):
    try:
        name, value = parse_override(f"--config.{path}={text}")
    except UserError as error:
        assert 0 < len(str(error)) < 12_000
        return
    assert freeze_or_sentence({name: value}) is not None


def freeze_or_sentence(values: dict) -> Config | str:
    try:
        return freeze(values)
    except UserError as error:
        return str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@relaxed
@given(path=st.sampled_from(sorted(FIELDS)), value=JSON, other=JSON)
def test_any_config_json_is_a_config_or_a_sentence(tmp_path, path, value, other):
    tree: dict = {}
    node = tree
    *parents, name = path.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
    node[name] = value
    if isinstance(other, dict):
        tree |= other
    (tmp_path / "config.json").write_text(json.dumps(tree))
    try:
        config = read_config(tmp_path)
    except UserError as error:
        assert "config.json" in str(error)
        return
    assert isinstance(config, Config)
    assert value_at(config, path) is not None or FIELDS[path].optional


@relaxed
@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_config_or_a_sentence(tmp_path, data):
    (tmp_path / "config.json").write_bytes(data)
    try:
        assert isinstance(read_config(tmp_path), Config)  # "{}", which leaves everything at its default
    except UserError as error:
        assert "config.json" in str(error)


@relaxed
@given(spec=st.text(alphabet=string.printable, max_size=40))
def test_any_name_of_a_file_is_refused_in_a_sentence(tmp_path, spec):
    with pytest.raises(UserError):
        load_config(str(tmp_path / "nothing") + spec)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_any_file_is_a_config_or_a_sentence(tmp_path, data):
    path = tmp_path / "c.py"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"c\.py"):
        load_config(str(path))


def test_a_complete_config_is_complete():
    assert set(flatten(to_dict(Config()))) == set(FIELDS)


# --- Rows ---


def test_a_row_that_chooses_another_family_keeps_what_the_base_has_chosen():
    base = flatten(default_config()) | {"model.d_model": 64, "model.dropout_rate": 0.3, "model.d_ff": 32}
    made = put_on(base, {"model.d_model": 32}, {"rnn": {"model.family": "recurrent", "model.cell": "lstm"}})["rnn"]
    model = made.config.model
    assert (model.family, model.cell, model.d_model, model.dropout_rate) == ("recurrent", "lstm", 32, 0.3)
    assert (model.num_heads, model.attention.score, model.norm) == (1, "additive", "none")  # that family's own
    assert made.config.optimizer == freeze(base).optimizer
