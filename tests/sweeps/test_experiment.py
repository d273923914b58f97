"""Experiments as data: rows on a base, scales, and what becomes of them on another config."""

from pathlib import Path

import pytest
import tiny_run

from transformer_jax.errors import UserError
from transformer_jax.sweeps.experiment import Experiment, Scale, load_experiment, make_variants, on_config, select

ROWS = {
    "base": {},
    "wide": {"model.d_model": 64},
    "double": lambda base: {"model.d_ff": 2 * base.model.d_ff},
}


def write(tmp_path: Path, body: str, docstring: str = "Why?\n\nQuestion: What\nif?\n\nHypothesis: Then so.\n") -> Path:
    tiny_run.write_config_file(tmp_path / "configs" / "tiny.py")
    path = tmp_path / "experiments" / "ask.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'"""{docstring}"""\nfrom transformer_jax.sweeps.experiment import Experiment, Scale\n{body}\n')
    return path


def test_question_and_hypothesis_are_those_of_the_docstring(tmp_path):
    path = write(
        tmp_path, 'EXPERIMENT = Experiment(rows={"base": {}}, scales={"small": Scale("configs/tiny.py", seeds=2)})'
    )
    experiment = load_experiment(path)
    assert (experiment.question, experiment.hypothesis) == ("What if?", "Then so.")
    assert experiment.scales["small"].config == str(tmp_path / "configs" / "tiny.py")  # beside experiments/


def test_rows_act_on_the_scale_and_see_what_was_overridden(tmp_path):
    config = tiny_run.write_config_file(tmp_path / "configs" / "tiny.py")
    scale = Scale(str(config), seeds=1, overrides={"train.steps": 7, "model.d_ff": 10})
    variants = {v.name: v for v in make_variants(Experiment(ROWS, {"small": scale}), scale, {})}
    assert [v.config.train.steps for v in variants.values()] == [7, 7, 7]
    assert variants["double"].config.model.d_ff == 20
    assert variants["double"].overrides == {"model.d_ff": 20}
    assert variants["wide"].config.model.head_widths == (32, 32)  # derived after the row
    overridden = make_variants(Experiment(ROWS, {"small": scale}), scale, {"model.d_ff": 3})
    assert [v.config.model.d_ff for v in overridden] == [3, 3, 6]


def test_a_row_may_not_undo_the_question(tmp_path):
    """What the command line sets holds for the base; the row, which is what is asked, wins over it."""
    config = tiny_run.write_config_file(tmp_path / "configs" / "tiny.py")
    scale = Scale(str(config), seeds=1)
    base, wide, _ = make_variants(Experiment(ROWS, {"small": scale}), scale, {"model.d_model": 32})
    assert (base.config.model.d_model, wide.config.model.d_model) == (32, 64)
    alone = Experiment({"wide": ROWS["wide"], "wider": {"model.d_model": 128}}, {"small": scale}, base="wide")
    with pytest.raises(
        UserError, match=r"model\.d_model = 32 would change nothing: every row sets model\.d_model, and"
    ):
        make_variants(alone, scale, {"model.d_model": 32})
    with pytest.raises(UserError, match=r"row 'double' sets model\.d_ff, which is not read with model\.ffn_depth as"):
        make_variants(Experiment(ROWS, {"small": scale}), scale, {"model.ffn_depth": 1})


@pytest.mark.parametrize("where", ["the command line", "the scale", "row 'wide'"])
def test_the_seeds_of_a_sweep_are_not_a_field_to_set(tmp_path, where):
    config = tiny_run.write_config_file(tmp_path / "configs" / "tiny.py")
    scale = Scale(str(config), seeds=1, overrides={"seed": 3} if where == "the scale" else {})
    rows = ROWS | ({"wide": {"seed": 3}} if "row" in where else {})
    with pytest.raises(
        UserError, match=rf"seed = 3 \({where}\): the runs of a sweep have the seeds 0, 1, \.\.\.; --se"
    ):
        make_variants(Experiment(rows, {"small": scale}), scale, {"seed": 3} if "line" in where else {})


def test_another_config_is_judged_by_its_own_first_metric(tmp_path):
    scale = Scale("configs/x.py", seeds=3, overrides={"train.steps": 1})
    for metrics, expected in [
        (("chrf", "exact_match"), ("test/chrf", True, False)),
        (("exact_match",), ("test/exact_match", True, True)),
        ((), ("test/nll", False, False)),
    ]:
        overrides = {"evaluate.metrics": metrics, "evaluate.best": "nll"}
        config = tiny_run.write_config_file(tmp_path / "configs" / "tiny.py", overrides)
        moved = on_config(scale, str(config))
        assert (moved.metric, moved.higher_is_better, moved.percent) == expected
        assert (moved.config, moved.seeds, dict(moved.overrides)) == (str(config), 3, {})


def test_only_some_rows_beside_the_base():
    whole = Experiment({name: {} for name in ["base", "small", "wide", "long"]}, {}, partners={"small": "wide"})
    assert [*whole.only(["long", "small"]).rows] == ["base", "small", "long"]
    assert whole.only(["long", "small"]).partners == {}
    assert whole.only(["wide", "small"]).partners == {"small": "wide"}
    with pytest.raises(UserError, match=r"--rows: .* no row 'wise' \(did you mean 'wide'\?\)\. It has: base"):
        whole.only(["long", "wise"])


def test_select_keeps_the_order():
    assert list(select(ROWS, ["double", "base"])) == ["double", "base"]


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b", "-flag"])
def test_names_of_rows_are_names_of_directories(tmp_path, name):
    body = f"""EXPERIMENT = Experiment(
        rows={{"base": {{}}, {name!r}: {{}}}}, scales={{"small": Scale("configs/tiny.py", seeds=1)}}
    )"""
    with pytest.raises(UserError, match="cannot be the name of a directory"):
        load_experiment(write(tmp_path, body))


def test_no_seeds_are_refused(tmp_path):
    body = 'EXPERIMENT = Experiment(rows={"base": {}}, scales={"small": Scale("configs/tiny.py", seeds=0)})'
    with pytest.raises(UserError, match="scale 'small' has 0 seeds"):
        load_experiment(write(tmp_path, body))


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("test='anova'", "has the test 'anova'; allowed: paired, welch"),
        ("margin=0.0", "has a margin of 0; it must be above 0"),
        ("margin='1'", "margin is str, not float or None"),
        ("family_size=-1", "has a family of -1 comparisons"),
    ],
)
def test_how_a_sweep_is_judged_is_checked_before_it_begins(tmp_path, declared, message):
    scales = f'{{"small": Scale("configs/tiny.py", 2, {declared})}}'
    body = f'EXPERIMENT = Experiment(rows={{"base": {{}}}}, scales={scales})'
    with pytest.raises(UserError, match=message):
        load_experiment(write(tmp_path, body))


def test_a_margin_is_one_of_its_metric(tmp_path):
    """And a family is one of sweeps on one config."""
    scale = Scale("configs/x.py", seeds=3, metric="test/chrf", margin=0.3, failing=5.0, family="f", family_size=9)
    for metrics, expected in [(("chrf",), (0.3, 5.0, "", 0)), (("exact_match",), (None, None, "", 0))]:
        overrides = {"evaluate.metrics": metrics, "evaluate.best": "nll"}
        moved = on_config(scale, str(tiny_run.write_config_file(tmp_path / "configs" / "tiny.py", overrides)))
        assert (moved.margin, moved.failing, moved.family, moved.family_size) == expected
