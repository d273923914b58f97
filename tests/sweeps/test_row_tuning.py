"""Rows at a learning rate of their own: the search before the sweep, and what the report says of both settings."""

import json
import types

import pytest
import tiny_run

from transformer_jax.errors import UserError
from transformer_jax.report.results import Row, Run, Sweep
from transformer_jax.sweeps import row_tuning
from transformer_jax.sweeps.experiment import Experiment, Scale, Variant
from transformer_jax.sweeps.runner import run_sweep

RATE = "optimizer.learning_rate"
NO_WO = {"model.attention.output_projection": "none"}


def variants(**rows) -> list[Variant]:
    """Rows of the tiny base, whose learning rate is 0.003."""
    values = {"train.steps": 8, "evaluate.checkpoint": "last"}
    return [Variant(name, row, tiny_run.config({**values, **row})) for name, row in rows.items()]


def found(scores: dict[str, float]) -> Sweep:
    """A finished search of one seed."""
    rows = {row: Row(row, {}, 1, None, {}, "", row) for row in scores}
    runs = [Run(row, 10000, None, "finished", "", score, {}, {}) for row, score in scores.items()]
    return Sweep(
        name="", question="", hypothesis="", scale="", config="", base=next(iter(scores)), rows=rows, seeds=(10000,),
        metric="valid/exact_match", higher_is_better=True, percent=True, curve="", commit="", runs=tuple(runs),
    )  # fmt: skip


@pytest.fixture
def searched(tmp_path, monkeypatch):
    """Own rates without training: the search is given its scores, and tells what it was asked."""
    asked = {}

    def search(name, experiment, scale_name, scale, candidates, workdir, **options):
        asked.update(name=name, scale=scale, workdir=workdir, rows=[c.name for c in candidates])
        asked.update(rates=[c.config.optimizer.learning_rate for c in candidates], base=experiment.base)
        scores = dict(zip(asked["rows"], [0.5, 0.9, 0.8, 0.7, 0.8, 0.9], strict=True))
        return types.SimpleNamespace(analysis=types.SimpleNamespace(sweep=found(scores)))

    monkeypatch.setattr(row_tuning, "run_sweep", search)
    monkeypatch.setattr(row_tuning, "plan_sweep", lambda *_, **options: None)
    rows = variants(base={}, no_wo=NO_WO)
    experiment = Experiment({v.name: v.overrides for v in rows}, {}, partners={"no_wo": "base"})
    scale = Scale("c.py", seeds=3, metric="test/exact_match", margin=0.01)
    made = row_tuning.with_own_rates("ask", experiment, "small", scale, rows, tmp_path / "work", say=lambda line: None)
    return asked, *made


def test_every_row_is_tried_at_the_same_rates_on_the_validation_split_with_other_seeds(searched, tmp_path):
    asked, *_ = searched
    assert asked["rates"] == [0.0015, 0.003, 0.006] * 2
    assert asked["rows"][0] == asked["base"] == "base.rate_0.0015"
    assert asked["rows"][3:] == ["no_wo.rate_0.0015", "no_wo.rate_0.003", "no_wo.rate_0.006"]
    assert list(asked["scale"].seed_numbers) == [10000, 10001]
    assert asked["scale"].metric == "valid/exact_match"
    assert asked["workdir"] == tmp_path / "work" / "row_tuning"


def test_each_row_stands_twice_and_beside_the_base_at_its_own(searched):
    _, experiment, rows = searched
    assert {row.name: row.config.optimizer.learning_rate for row in rows} == {
        "base": 0.003, "no_wo": 0.003, "base.own": 0.003, "no_wo.own": 0.006,
    }  # fmt: skip
    assert experiment.rows["no_wo.own"] == {**NO_WO, RATE: 0.006}
    assert experiment.partners == {"no_wo": "base", "no_wo.own": "base.own"}
    assert experiment.own == {"base.own": "base", "no_wo.own": "no_wo"}


def test_a_row_that_sets_the_rate_has_none_of_its_own(tmp_path):
    rows = variants(base={}, fast={RATE: 0.1})
    experiment = Experiment({row.name: row.overrides for row in rows}, {})
    with pytest.raises(UserError, match="row 'fast' sets optimizer.learning_rate"):
        row_tuning.with_own_rates("ask", experiment, "small", Scale("c.py", seeds=1), rows, tmp_path / "work")


def test_what_comes_out_can_be_swept(searched, tmp_path, monkeypatch):
    """The plan is taken, and sweep.json says which row is which."""
    _, experiment, rows = searched
    monkeypatch.setattr("transformer_jax.sweeps.runner.run_tasks", lambda *_: None)
    monkeypatch.setattr("transformer_jax.sweeps.runner.choose_lanes", lambda *_: 1)
    config = tiny_run.write_config_file(tmp_path / "c.py")
    scale = Scale(str(config), seeds=1, metric="test/exact_match")
    run_sweep("ask", experiment, "small", scale, rows, tmp_path / "work", say=lambda line: None)
    written = json.loads((tmp_path / "work" / "sweep.json").read_text())["rows"]
    assert {name: row["own_of"] for name, row in written.items()} == {
        "base": None, "no_wo": None, "base.own": "base", "no_wo.own": "no_wo",
    }  # fmt: skip
    assert written["base.own"]["key"] == written["base"]["key"]
