"""How a run may end: early, diverged, refused because another process holds it, with a config that was changed."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from transformer_jax import cli
from transformer_jax.checkpoint import Checkpoints
from transformer_jax.config import flatten, freeze, replace, to_dict
from transformer_jax.errors import UserError
from transformer_jax.report.analysis import analyse
from transformer_jax.report.read import read_sweep
from transformer_jax.run.compile import Program, state_template
from transformer_jax.run.directory import write_json
from transformer_jax.run.identity import read_config
from transformer_jax.run.interruption import Interruption
from transformer_jax.run.lock import in_use, locked
from transformer_jax.run.saved import load_params
from transformer_jax.run.train import train, train_lanes
from transformer_jax.sweeps.reuse import reuse


def result_of(workdir: Path) -> dict:
    return json.loads((workdir / "result.json").read_text())


def log_of(workdir: Path, split: str) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


# --- What is not seen ---


def test_what_was_left_out_and_cut_is_said_and_stands_in_the_result(tmp_path):
    said: list[str] = []
    shorter = tiny_run.config(
        {"data.max_length": 5, "train.steps": 1, "train.checkpoint_every": None, "evaluate.checkpoint": "last"}
    )
    train(shorter, tmp_path, say=said.append)
    splits = result_of(tmp_path)["data"]["splits"]
    dropped, cut = splits["train"]["dropped"], {name: splits[name]["truncated"] for name in ("valid", "test")}
    assert dropped + splits["train"]["examples"] == 120
    assert min(dropped, *cut.values()) > 0
    limit = "a side is longer than data.max_length = 5 tokens"
    assert f"{dropped} of 120 examples of train left out: {limit}." in said
    for name, count in cut.items():
        assert f"{count} of 12 examples of {name} cut: {limit}, and what lies beyond is not seen." in said
    assert result_of(tiny_run.finished())["data"]["splits"]["train"]["dropped"] == 0


# --- Early stopping ---


def scores(program: Program, values: list[list[float]]) -> Program:
    """The program with the nll of the n-th evaluation `values[lane][n]`."""
    turn = iter(range(99))

    def scored(measure, *arguments, **options):
        found, texts = measure(*arguments, **options)
        n = next(turn)
        return [{**m, "nll": (v + [9.0] * 9)[n]} for m, v in zip(found, values, strict=True)], texts

    return tiny_run.with_measure(program, scored)


PATIENT = {
    "train.patience": 2,
    "train.evaluate_every": 4,
    "train.checkpoint_every": None,
    "evaluate.decode_every": None,
    "evaluate.checkpoint": "best",
}


def test_patience_ends_one_lane_and_leaves_the_other(tmp_path):
    program = tiny_run.adjusted(tiny_run.program(lanes=2), PATIENT)
    program = scores(program, [[3.0, 2.0, 2.0, 2.5, 1.0], [3.0, 2.9, 2.8, 2.7, 2.6]])
    early, late = tiny_run.train_here(tmp_path, [0, 1], program)
    assert (early["status"], early["steps"], early["best_step"]) == ("finished", 16, 8)
    assert (late["status"], late["steps"], late["best_step"]) == ("finished", 20, 20)
    assert [line["step"] for line in log_of(tmp_path / "0", "valid")] == [4, 8, 12, 16]
    assert [line["step"] for line in log_of(tmp_path / "0", "train")] == [3, 6, 9, 12, 15]
    assert [line["step"] for line in log_of(tmp_path / "1", "valid")] == [4, 8, 12, 16, 20]
    assert Checkpoints(tmp_path / "0" / "checkpoints").steps() == [8, 12, 16]  # it stands still
    assert Checkpoints(tmp_path / "1" / "checkpoints").steps() == [12, 16, 20]
    assert early["metrics"]["valid"]["nll"] is not None


def test_a_lane_that_stopped_early_averages_the_checkpoints_of_the_run_alone(tmp_path):
    """It is saved no more: copies of its last state would take the place of those that are averaged."""
    average = PATIENT | {"evaluate.checkpoint": "average:2"}
    lanes = tiny_run.adjusted(tiny_run.program(lanes=2), average)
    scored = scores(lanes, [[3.0, 2.0, 2.0, 2.5, 1.0], [3.0, 2.9, 2.8, 2.7, 2.6]])
    with pytest.raises(Interruption):
        tiny_run.train_here(tmp_path, [0, 1], tiny_run.stop_at(scored, 18))  # when lane 0 is closed already
    tiny_run.train_here(tmp_path, [0, 1], scores(lanes, [[9.0], [2.6]]))
    assert Checkpoints(tmp_path / "0" / "checkpoints").steps() == [8, 12, 16]
    assert Checkpoints(tmp_path / "1" / "checkpoints").steps() == [12, 16, 20]
    alone = scores(tiny_run.adjusted(tiny_run.program(), average), [[3.0, 2.0, 2.0, 2.5]])
    tiny_run.train_here(tmp_path / "alone", [0], alone)
    found, expected = (load_params(run, "average:2") for run in (tmp_path / "0", tmp_path / "alone"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)
    assert log_of(tmp_path / "0", "valid")[-1]["step"] == 16


# --- Numbers that are not finite ---


def plant(program: Program, step: int, lane: int | None = None) -> Program:
    """The program in which the parameters before `step`, of `lane` or of all, are such that its loss is not finite."""

    def broken(take, state, before, *rest):
        if before != step - 1:
            return take(state, before, *rest)
        good = jax.device_get(state)
        factor = jnp.asarray(jnp.nan) if lane is None else jnp.where(jnp.arange(2) == lane, jnp.nan, 1.0)
        spoilt = good.replace(params=jax.tree.map(lambda p: _times(p, factor), good.params))
        after, totals, count = take(program.layout.put(spoilt), before, *rest)
        # As if the gradient alone had been bad: where the update was left out, the parameters are the good ones.
        kept = jax.device_get(after)
        restored = jax.tree.map(
            lambda new, old: jnp.where(jnp.isfinite(new), new, old),
            (kept.params, kept.average),
            (good.params, good.average),
        )
        return program.layout.put(kept.replace(params=restored[0], average=restored[1])), totals, count

    return tiny_run.with_take(program, broken)


def _times(parameter, factor):
    return parameter * jnp.reshape(factor, factor.shape + (1,) * (parameter.ndim - factor.ndim))


def test_a_diverging_run_keeps_its_last_good_state(tmp_path):
    program = plant(tiny_run.program(), 7)
    (result,) = tiny_run.train_here(tmp_path, compiled=program)
    assert (result["status"], result["steps"], result["metrics"]) == ("diverged", 7, {})
    report = json.loads((tmp_path / "nonfinite.json").read_text())
    assert (report["step"], report["seed"]) == (7, 0)
    assert report["measured"]["loss"] == "nan"
    newest = Checkpoints(tmp_path / "checkpoints").steps()[-1]
    state, _ = Checkpoints(tmp_path / "checkpoints").restore(state_template(program.config), newest)
    assert int(state.step) == 6
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state.params))
    assert [line["step"] for line in log_of(tmp_path, "train")] == [3, 6]
    assert not (tmp_path / "predictions" / "test.txt").exists()  # a run without scores has no text either


def test_a_diverged_run_is_not_trained_on(tmp_path):
    tiny_run.train_here(tmp_path, compiled=plant(tiny_run.program(), 7))
    (tmp_path / "result.json").unlink()
    assert tiny_run.train_here(tmp_path)[0]["status"] == "diverged"


def test_divergence_freezes_one_lane_and_leaves_the_other(tmp_path):
    program = tiny_run.program(lanes=2)
    tiny_run.train_here(tmp_path / "whole", [0, 1], program)
    lost, kept = tiny_run.train_here(tmp_path / "planted", [0, 1], plant(program, 7, lane=0))
    assert (lost["status"], lost["metrics"]) == ("diverged", {})
    assert kept["status"] == "finished"
    assert tiny_run.content(tmp_path / "planted" / "1") == tiny_run.content(tmp_path / "whole" / "1")


def test_a_huge_learning_rate_diverges_and_is_said_so(tmp_path):
    program = tiny_run.program(optimizer__name="sgd", optimizer__learning_rate=1e30, data__length_classes=1)
    (result,) = tiny_run.train_here(tmp_path, compiled=program)
    assert result["status"] == "diverged"
    assert (tmp_path / "nonfinite.json").is_file()
    (newest,) = Checkpoints(tmp_path / "checkpoints").steps()
    state, _ = Checkpoints(tmp_path / "checkpoints").restore(state_template(program.config), newest)
    assert int(state.step) == result["steps"] - 1
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize("bad", [[7], [7, 9], [7, 9, 12]])
def test_with_skip_a_bad_step_is_left_out_and_training_continues(tmp_path, bad):
    """Up to a tenth of the steps; beyond that what was trained is not what the config describes."""
    program, said = tiny_run.program(train__on_nonfinite="skip", data__length_classes=1), []
    for step in bad:
        program = plant(program, step)
    (result,) = tiny_run.train_here(tmp_path, compiled=program, say=said.append)
    measured = len(bad) <= 2
    assert (result["status"], result["steps"]) == ("finished" if measured else "diverged", 20)
    assert (result["skipped"], bool(result["metrics"])) == (len(bad), measured)
    assert any(f"{len(bad)} of 20 steps were left out" in line for line in said)
    state, _ = Checkpoints(tmp_path / "checkpoints").restore(state_template(program.config), 20)
    assert (int(state.step), int(state.skipped)) == (20, len(bad))
    lines = {line["step"]: line for line in log_of(tmp_path, "train")}
    assert all(np.isfinite(value) for value in lines[9].values() if isinstance(value, float))
    skipped = {step: line["skipped"] for step, line in lines.items() if "skipped" in line}
    assert skipped == {9: min(len(bad), 2)} | ({} if measured else {12: 1})
    assert not (tmp_path / "nonfinite.json").exists()


def test_a_run_that_skips_every_step_is_no_measurement_also_when_it_was_stopped(tmp_path, capsys):
    overrides = {"optimizer.name": "sgd", "optimizer.learning_rate": 1e30, "train.on_nonfinite": "skip"}
    program = tiny_run.program(**{path.replace(".", "__"): value for path, value in overrides.items()})
    (result,) = tiny_run.train_here(tmp_path / "whole", compiled=program)
    assert (result["status"], result["steps"], result["skipped"], result["metrics"]) == ("diverged", 20, 20, {})
    lines = log_of(tmp_path / "whole", "train")
    assert [(line["step"], line["skipped"]) for line in lines] == [*((k, 3) for k in range(3, 19, 3)), (20, 2)]
    assert "loss" not in lines[0]
    assert not (tmp_path / "whole" / "predictions" / "test.txt").exists()
    with pytest.raises(Interruption):
        tiny_run.train_here(tmp_path / "stopped", compiled=tiny_run.stop_at(program, 13))
    tiny_run.train_here(tmp_path / "stopped", compiled=program)
    assert tiny_run.content(tmp_path / "stopped") == tiny_run.content(tmp_path / "whole")
    config = tiny_run.write_config_file(tmp_path / "configs" / "tiny.py", overrides)
    assert cli.main(["train", f"--config={config}", f"--workdir={tmp_path}/whole"]) == 1
    assert "diverged after 20 steps, of which 20 were skipped" in capsys.readouterr().out
    assert "20 of 20 steps skipped" in analyse(read_sweep(tmp_path / "whole")).notes[-1]


def refuse(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def test_what_is_not_finite_is_null_in_every_file_and_in_what_is_printed(tmp_path, capsys):
    """The training is sound, but what is evaluated is not."""
    workdir = tmp_path / "run"
    program = scores(tiny_run.program(), [[float("nan"), float("inf"), 2.0, float("nan"), float("-inf")]])
    (result,) = tiny_run.train_here(workdir, compiled=program)
    assert result == result_of(workdir)
    assert (result["metrics"]["valid"]["nll"], result["metrics"]["test"]["nll"]) == (None, None)
    assert (result["status"], result["best_step"]) == ("finished", 20)
    assert [line["nll"] for line in log_of(workdir, "valid")] == [None, None, 2.0]
    for path in [*workdir.rglob("*.json"), *workdir.rglob("*.jsonl")]:
        for text in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(text, parse_constant=refuse)
    config = tiny_run.write_config_file(tmp_path / "configs" / "tiny.py")
    # Files of the time before: a number that is not finite is still read, and no longer passed on.
    (workdir / "result.json").write_text((workdir / "result.json").read_text().replace('"nll": null', '"nll": NaN'))
    (workdir / "metrics.jsonl").write_text((workdir / "metrics.jsonl").read_text().replace("null", "-Infinity"))
    assert "-Infinity" in (workdir / "metrics.jsonl").read_text()
    for command in (["train", f"--config={config}", f"--workdir={workdir}"], ["report", str(workdir)]):
        assert cli.main([*command, "--json"]) == 0
        json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert list(read_sweep(workdir).runs[0].curves["nll"]) == [20]
    (workdir / "result.json").unlink()
    tiny_run.train_here(workdir)
    assert [line["nll"] for line in log_of(workdir, "valid")] == [None, None, 2.0]


@pytest.mark.parametrize("choice", ["best", "last"])
def test_a_run_of_which_no_evaluation_is_finite_has_no_best_checkpoint_and_no_score(tmp_path, choice):
    """By its last checkpoint it is evaluated as any run, and what is not finite is null."""
    program = scores(tiny_run.adjusted(tiny_run.program(), {"evaluate.checkpoint": choice}), [[float("nan")] * 9])
    said: list[str] = []
    (result,) = tiny_run.train_here(tmp_path, compiled=program, say=said.append)
    assert result == result_of(tmp_path)
    assert (result["steps"], result["best_step"]) == (20, None)
    told = [line for line in said if "no evaluation gave a finite nll" in line]
    if choice == "best":
        assert (result["status"], result["metrics"], len(told)) == ("diverged", {}, 1)
        with pytest.raises(UserError, match="no evaluation was finite so far, so there is no best checkpoint"):
            load_params(tmp_path, "best")
    else:
        assert (result["status"], result["metrics"]["test"]["nll"], told) == ("finished", None, [])
        assert result["metrics"]["test"]["chrf"] > 0


# --- One process at a time ---


def test_a_second_process_is_refused_with_the_first_ones_id(tmp_path):
    workdir = tiny_run.copy_of(tiny_run.stopped(), tmp_path / "run")
    with locked(workdir):
        assert in_use(workdir)
        with pytest.raises(UserError, match=f"is in use by process {os.getpid()} on "):
            tiny_run.train_here(workdir)
    assert not in_use(workdir)


def test_the_lock_of_a_dead_process_is_no_lock(tmp_path):
    workdir = tiny_run.copy_of(tiny_run.stopped(), tmp_path / "run")
    (workdir / "lock").write_text("process 1 on elsewhere\n")
    assert not in_use(workdir)
    assert tiny_run.train_here(workdir)[0]["status"] == "finished"


# --- Another config ---


def test_another_config_is_refused_with_the_fields_and_allowed_by_name(tmp_path):
    workdir = tiny_run.copy_of(tiny_run.stopped(), tmp_path / "run")
    changed = tiny_run.config({"train.steps": 16, "train.keep_last": 4})
    program = tiny_run.adjusted(tiny_run.program(), {"train.steps": 16, "train.keep_last": 4})

    def go(*allowed: str):
        return train_lanes([changed], [workdir], program=program, allow_config_change=allowed, say=lambda line: None)

    with pytest.raises(UserError) as refused:
        go("train.keep_last")
    assert "train.steps = 20 there, 16 now" in str(refused.value)
    assert "keep_last" not in str(refused.value)
    assert "--allow-config-change=train.steps" in str(refused.value)
    assert read_config(workdir).train.steps == 20
    with pytest.raises(UserError, match=r"config\.train\.step does not exist \(did you mean 'train\.steps'"):
        go("train.step")
    (result,) = go("train.keep_last", "train.steps")
    assert result["steps"] == 16
    assert read_config(workdir).train.steps == 16


def test_a_finished_run_with_more_steps_is_resumed(tmp_path):
    workdir = tiny_run.copy_of(tiny_run.finished(), tmp_path / "run")
    program = tiny_run.adjusted(tiny_run.program(), {"train.steps": 24})
    more = freeze({**tiny_run.VALUES, "train.steps": 24})
    (result,) = train_lanes(
        [more], [workdir], program=program, allow_config_change=["train.steps"], say=lambda line: None
    )
    assert result["steps"] == 24
    assert result_of(workdir) == result
    assert log_of(workdir, "valid")[-1]["step"] == 24


def test_fewer_steps_than_are_trained_are_refused(tmp_path):
    workdir = tiny_run.copy_of(tiny_run.finished(), tmp_path / "run")
    program = tiny_run.adjusted(tiny_run.program(), {"train.steps": 16, "train.keep_last": 4})
    with pytest.raises(UserError, match="train.steps = 16, but 20 steps are trained already"):
        train_lanes(
            [tiny_run.config({"train.steps": 16, "train.keep_last": 4})], [workdir], program=program,
            allow_config_change=["train.steps", "train.keep_last"], say=lambda line: None,
        )  # fmt: skip


@pytest.mark.parametrize("recorded", [0, None])
def test_a_run_of_other_numerics_is_refused(tmp_path, recorded):
    workdir = tiny_run.copy_of(tiny_run.stopped(), tmp_path / "run")
    data = json.loads((workdir / "data.json").read_text())
    (workdir / "data.json").write_text(json.dumps({**data, "numerics": recorded}))
    with pytest.raises(UserError, match=rf"computes other numbers \(numerics {recorded}, now \d+\)"):
        tiny_run.train_here(workdir)


def test_other_data_are_refused(tmp_path):
    workdir = tiny_run.copy_of(tiny_run.stopped(), tmp_path / "run")
    path = workdir / "data.json"
    path.write_text(path.read_text().replace(json.loads(path.read_text())["fingerprint"], "0" * 64))
    with pytest.raises(UserError, match="was started on other data; data.json holds the fingerprint"):
        tiny_run.train_here(workdir)


# --- A config that is gone, and a result of another run ---


@pytest.mark.parametrize("made", [tiny_run.finished, tiny_run.stopped])
@pytest.mark.parametrize("change", [{"seed": 7}, {"optimizer.learning_rate": 1e-4}, {"train.steps": 24}, {}])
def test_without_the_config_that_was_trained_nothing_is_resumed(tmp_path, made, change):
    """What is finished is known by the key in its result; what is not could be of any config."""
    workdir = tiny_run.copy_of(made(), tmp_path / "run")
    (workdir / "config.json").unlink()
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    if made is tiny_run.finished and not change:
        assert train(tiny_run.config(), workdir, say=lambda line: None) == result_of(workdir)
    else:
        with pytest.raises(
            UserError, match=r"has no config\.json, and nothing says that its .*checkpoints and metrics"
        ):
            train(tiny_run.config(change), workdir, allow_config_change=change, say=lambda line: None)
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("change", [{"seed": 7}, {"model.dropout_rate": 0.3, "train.steps": 24}])
def test_a_config_that_was_edited_is_not_resumed_unless_that_is_allowed(tmp_path, change):
    workdir = tiny_run.copy_of(tiny_run.stopped(), tmp_path / "run")
    edited = freeze({**flatten(to_dict(read_config(workdir))), **change})
    write_json(workdir / "config.json", to_dict(edited))
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}

    def go(*allowed: str):
        compiled = dataclasses.replace(tiny_run.program(), config=replace(tiny_run.program().config, change))
        return train_lanes(
            [tiny_run.config(change)], [workdir], program=compiled, allow_config_change=allowed, say=lambda line: None
        )

    with pytest.raises(UserError) as refused:
        go(*list(change)[1:])
    path, value = next(iter(change.items()))
    old = {"seed": 0, "model.dropout_rate": 0.1}[path]
    said = f"the checkpoint at step 13 was trained with another config ({path} = {old!r} there, {value!r} now)"
    assert said in str(refused.value)
    assert f"--allow-config-change={path}." in str(refused.value)
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before
    (result,) = go(*change)
    assert result["status"] == "finished"
    newest = Checkpoints(workdir / "checkpoints").steps()[-1]
    assert Checkpoints(workdir / "checkpoints").progress(newest)["config"] == to_dict(edited)


def test_a_directory_that_was_killed_before_its_first_step_is_started_anew(tmp_path):
    """Then there are tokenizers, data.json and a lock, but no config."""
    workdir = tiny_run.copy_of(tiny_run.stopped(), tmp_path / "run")
    for name in ("checkpoints", "tensorboard", "predictions"):
        shutil.rmtree(workdir / name, ignore_errors=True)
    for name in ("config.json", "metrics.jsonl"):
        (workdir / name).unlink()
    tiny_run.train_here(workdir)
    assert tiny_run.content(workdir) == tiny_run.content(tiny_run.finished())


@pytest.mark.parametrize("damage", ["another key", "no key", "[]", "another config", "other data"])
def test_a_result_of_another_run_is_not_this_ones(tmp_path, damage):
    workdir = tiny_run.copy_of(tiny_run.finished(), tmp_path / "run")
    result = result_of(workdir)
    if damage == "[]":
        (workdir / "result.json").write_text("[]")
    elif damage == "another config":  # as a copy of a run that somebody began to change
        text = (workdir / "config.json").read_text()
        (workdir / "config.json").write_text(text.replace('"seed": 0', '"seed": 7'))
    elif damage == "other data":
        data = json.loads((workdir / "data.json").read_text())
        (workdir / "data.json").write_text(json.dumps({**data, "fingerprint": "0" * 64}))
    else:
        key = {"key": "0" * 64} if damage == "another key" else {}
        (workdir / "result.json").write_text(json.dumps({k: v for k, v in result.items() if k != "key"} | key))
    config = tiny_run.config({"seed": 7} if damage == "another config" else {})
    said = {"[]": "holds list where an object belongs", "no key": "does not say 'key'"}
    with pytest.raises(
        UserError, match=said.get(damage, r"its result\.json is of another config than config\.json, other data")
    ):
        train(config, workdir, say=lambda line: None)
    assert not reuse(workdir, tmp_path / "copy")


# --- What the loop does, and what the log says ---


def test_the_loop_follows_the_numbers_of_its_config(tmp_path):
    """Other numbers than those of the other tests here; of two metrics that disagree, the one that is named is best."""
    plan = {
        "train.steps": 18,
        "train.log_every": 4,
        "train.evaluate_every": 6,
        "train.checkpoint_every": 5,
        "train.keep_last": 2,
        "evaluate.best": "token_accuracy",
        "evaluate.decode_every": None,
        "evaluate.checkpoint": "best",
    }
    turn = iter(range(99))

    def falling(measure, *arguments, **options):
        found, texts = measure(*arguments, **options)
        n = next(turn)
        return [{**m, "nll": 9.0 - n, "token_accuracy": 0.9 - n / 10} for m in found], texts

    program = tiny_run.with_measure(tiny_run.adjusted(tiny_run.program(), plan), falling)
    (result,) = tiny_run.train_here(tmp_path, compiled=program)
    assert (result["steps"], result["best_step"], result["checkpoint"]) == (18, 6, "best")
    assert [line["step"] for line in log_of(tmp_path, "train")] == [4, 8, 12, 16, 18]
    assert [line["step"] for line in log_of(tmp_path, "valid")] == [6, 12, 18]
    assert Checkpoints(tmp_path / "checkpoints").steps() == [6, 15, 18]  # the best, and the last two


def test_a_line_of_the_log_is_the_mean_over_the_tokens_of_its_steps():
    program = tiny_run.program()
    lanes = program.lanes([program.config])
    state, measured = program.steps.init(lanes), []
    for step in range(3):
        state, totals, _ = program.steps.take(state, step, 1, lanes)
        measured.append(jax.tree.map(lambda a: a[0, 0], jax.device_get(totals)))
    line = log_of(tiny_run.finished(), "train")[0]
    assert len({float(totals["loss"][1]) for totals in measured}) > 1  # of unlike many tokens
    for name in ("loss", "nll", "token_accuracy", "gradient_norm", "learning_rate"):
        total, count = np.sum([totals[name] for totals in measured], axis=0)
        assert line[name] == pytest.approx(total / count, rel=1e-5), name


def test_tokens_per_second_count_all_of_the_time(tmp_path, monkeypatch):
    """A save or a stop within a window takes no time out of it."""
    clock = iter(range(10**6))
    monkeypatch.setattr("transformer_jax.run.train.time.perf_counter", lambda: float(next(clock)))
    tiny_run.train_here(tmp_path)
    speeds = [line["tokens_per_second"] for line in log_of(tmp_path, "train")]
    program = tiny_run.program()
    lanes = program.lanes([program.config])
    tokens = [int((program.steps.batch(step, lanes)["targets"] != 0).sum()) for step in range(20)]
    # The clock ticks at each look: a window of three steps is one tick, and one more where a save lies within it.
    windows = [sum(tokens[start : start + 3]) for start in range(0, 18, 3)]
    ticks = [round(window / speed) for window, speed in zip(windows, speeds, strict=False)]
    assert ticks == [1, 2, 2, 2, 1, 2]
