"""A run that diverged: its step can be taken again, and shows what is not finite."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny_run

from transformer_jax import cli
from transformer_jax.checkpoint import Checkpoints
from transformer_jax.errors import UserError
from transformer_jax.inspection.replay import replay
from transformer_jax.run.compile import state_template
from transformer_jax.run.identity import read_config

# A learning rate at which the parameters are as good as gone after the first step, though finite.
HUGE = {"optimizer.name": "sgd", "optimizer.learning_rate": 1e18, "data.length_classes": 1}
# The rows of the source's table that no sentence uses have no gradient, so that Adam divides zero by zero.
ZERO_BY_ZERO = {"optimizer.epsilon": 0.0, "model.embedding.tying": "none", "data.length_classes": 1}


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    return diverge(tmp_path_factory.mktemp("diverged") / "run", HUGE)


def diverge(workdir: Path, overrides: Mapping[str, Any]) -> tuple[Path, list[str]]:
    said: list[str] = []
    program = tiny_run.program(**{path.replace(".", "__"): value for path, value in overrides.items()})
    (result,) = tiny_run.train_here(workdir, compiled=program, say=said.append)
    assert result["status"] == "diverged"
    return workdir, said


def test_what_is_written_names_the_step_the_batch_and_the_command(diverged):
    workdir, said = diverged
    report = json.loads((workdir / "nonfinite.json").read_text())
    assert (report["step"], report["seed"]) == (2, 0)
    assert set(report["measured"]) >= {"loss", "gradient_norm", "update_norm"}
    expected = tiny_run.program(data__length_classes=1).plan.batch_at(1, 0)
    assert {name: np.asarray(rows).tolist() for name, rows in expected.items()} == report["batch"]
    assert report["replay"] == f"./launch.sh replay --workdir={workdir}"
    assert any(line.endswith(report["replay"]) and "step 2 is not finite" in line for line in said)


def test_the_step_taken_again_measures_the_same(diverged, capsys):
    workdir, _ = diverged
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    found = replay(workdir)
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before
    report = json.loads((workdir / "nonfinite.json").read_text())["measured"]
    assert found["step"] == 2
    assert found["measured"].keys() == report.keys()
    for name, value in found["measured"].items():
        assert value is None or value == pytest.approx(float(report[name]), rel=1e-6)
        assert (value is None) == (not np.isfinite(float(report[name])))
    assert found["measured"]["loss"] is None or found["measured"]["gradient_norm"] is None
    looks = found["parameters"]
    assert max(look["largest"] for look in looks.values()) > 1e16  # what the learning rate has made of them
    assert any(look["gradient_norm"] is None for look in looks.values())
    assert cli.main(["replay", f"--workdir={workdir}"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("step 2: ")
    assert "loss not finite" in output.splitlines()[0]
    assert "encoder.layers.self_attention.query.kernel" in output


def test_an_update_that_is_not_finite_is_named_at_its_own_step_and_found_in_its_parameter(tmp_path):
    workdir, said = diverge(tmp_path / "run", ZERO_BY_ZERO)
    assert any("step 1 is not finite (update); the state before it is kept" in line for line in said)
    checkpoints = Checkpoints(workdir / "checkpoints")
    state, _ = checkpoints.restore(state_template(read_config(workdir)), checkpoints.steps()[-1])
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
    assert int(state.step) == 0
    found = replay(workdir)
    assert found["step"] == 1
    assert [name for name, value in found["measured"].items() if value is None] == ["update_norm"]
    looks = found["parameters"]
    bad = {name for name, look in looks.items() if look["update_norm"] is None}
    assert "source_embedding.embedding" in bad
    assert len(bad) < len(looks) / 2
    assert None not in [look[name] for look in looks.values() for name in ("largest", "gradient_norm")]


def test_of_a_healthy_run_there_is_nothing_to_replay():
    with pytest.raises(UserError, match=r"has no nonfinite\.json: no step of this run"):
        replay(tiny_run.finished())


@pytest.mark.parametrize("content", ["[]", "{}", '{"step": "2"}', '{"step": true}', '{"step": -1}'])
def test_a_damaged_report_is_refused(diverged, tmp_path, content):
    workdir = tiny_run.copy_of(diverged[0], tmp_path / "run")
    (workdir / "nonfinite.json").write_text(content)
    with pytest.raises(UserError, match=r"nonfinite\.json: does not say at which step"):
        replay(workdir)


def test_without_the_state_before_it_the_step_cannot_be_taken(diverged, tmp_path):
    workdir = tiny_run.copy_of(diverged[0], tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(UserError, match="holds no checkpoint of the state before step 2"):
        replay(workdir)
