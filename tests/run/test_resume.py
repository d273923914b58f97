"""Interrupting a run changes nothing, not one bit (dropout, length classes, averages of weights and checkpoints on)."""

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
import tiny_run

from transformer_jax.run.compile import Program
from transformer_jax.run.interruption import Interruption, stop_requested

pytestmark = pytest.mark.newest


def train_with_stops(workdir: Path, stops: list[int], seeds=(0,), program: Program | None = None) -> None:
    program = program or tiny_run.program()
    for step in stops:
        with pytest.raises(Interruption, match=f"saved at step {step}$"):
            tiny_run.train_here(workdir, seeds, tiny_run.stop_at(program, step))
    tiny_run.train_here(workdir, seeds, program)


@pytest.mark.parametrize("family", tiny.every_family())
def test_stopped_at_many_steps_is_never_stopped(tmp_path, family):
    # 1: before anything was logged; 8, 10: where it saves anyway; 20: the last step; 13, 14: twice in a row.
    program = tiny_run.program(model__family=family)
    train_with_stops(tmp_path / "run", [1, 4, 8, 10, 13, 14, 19, 20], program=program)
    found, expected = tiny_run.content(tmp_path / "run"), tiny_run.content(tiny_run.finished(family))
    assert found == expected
    assert len(expected["log"]) == 10  # lines at 3, 6, ..., 18 and 20, evaluations at 8, 16 and 20
    assert expected["result"]["status"] == "finished"


def test_the_runs_differ_where_the_seed_does(tmp_path):
    tiny_run.train_here(tmp_path / "run", seeds=[1])
    found, expected = tiny_run.content(tmp_path / "run"), tiny_run.content(tiny_run.finished())
    assert found["states"] != expected["states"]
    assert found["log"] != expected["log"]


def test_stopped_with_packed_batches(tmp_path):
    program = tiny_run.program(data__batching="packed")
    tiny_run.train_here(tmp_path / "whole", compiled=program)
    train_with_stops(tmp_path / "stopped", [7, 11], program=program)
    assert tiny_run.content(tmp_path / "stopped") == tiny_run.content(tmp_path / "whole")


@pytest.mark.parametrize("lanes", [1, 2])
def test_stopped_within_a_dispatch(tmp_path, lanes):
    """A stop waits for the steps of the call; the calls after it are other ones than without the stop."""
    program = tiny_run.program(lanes, train__steps_per_dispatch=4, data__length_classes=1)
    seeds, counts = list(range(lanes)), []
    tiny_run.train_here(tmp_path / "whole", seeds, program)

    def shorter(take, state, step, limit, *rest):
        state, totals, count = take(state, step, min(limit, 1 + step % 3), *rest)
        counts.append(count)
        return state, totals, count

    stopping = tiny_run.stop_at(tiny_run.with_take(program, shorter), 12)
    with pytest.raises(Interruption, match="saved at step 12$"):
        tiny_run.train_here(tmp_path / "stopped", seeds, stopping)
    tiny_run.train_here(tmp_path / "stopped", seeds, program)
    assert set(counts) >= {1, 2}
    for run in [Path()] if lanes == 1 else [Path("0"), Path("1")]:
        assert tiny_run.content(tmp_path / "stopped" / run) == tiny_run.content(tmp_path / "whole" / run)


def test_several_steps_in_a_call_are_the_same_run(tmp_path):
    """Over two length classes: a call ends where the shape changes, or where something is logged, scored or saved."""
    tiny_run.train_here(tmp_path, compiled=tiny_run.program(train__steps_per_dispatch=4))
    found, expected = (tiny_run.content(run)["log"] for run in (tmp_path, tiny_run.finished()))
    for line, other in zip(found, expected, strict=True):
        numbers = {name: value for name, value in other.items() if isinstance(value, float)}
        assert {name: line[name] for name in numbers} == pytest.approx(numbers, rel=1e-4)


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    """Two lanes that are never stopped."""
    workdir = tmp_path_factory.mktemp("together")
    tiny_run.train_here(workdir, [0, 1], tiny_run.program(lanes=2))
    return workdir


def test_stopped_lanes(tmp_path, together):
    train_with_stops(tmp_path, [2, 13], [0, 1], tiny_run.program(lanes=2))
    for seed in "01":
        assert tiny_run.content(tmp_path / seed) == tiny_run.content(together / seed)
    assert tiny_run.content(together / "0")["states"] != tiny_run.content(together / "1")["states"]


def test_lanes_that_saved_different_steps_resume_at_a_common_one(tmp_path, together):
    program = tiny_run.program(lanes=2)
    with pytest.raises(Interruption):
        tiny_run.train_here(tmp_path, [0, 1], tiny_run.stop_at(program, 13))
    shutil.rmtree(tmp_path / "1" / "checkpoints" / "00000013")  # killed between the two renames
    tiny_run.train_here(tmp_path, [0, 1], program)
    for seed in "01":
        assert tiny_run.content(tmp_path / seed) == tiny_run.content(together / seed)


def test_a_finished_run_is_left_alone(tmp_path):
    workdir = tiny_run.copy_of(tiny_run.finished(), tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    assert tiny_run.train_here(workdir)[0]["status"] == "finished"
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()} == before


def test_a_run_killed_before_its_scores_makes_them(tmp_path):
    workdir = tiny_run.copy_of(tiny_run.finished(), tmp_path / "run")
    (workdir / "result.json").unlink()
    tiny_run.train_here(workdir)
    assert tiny_run.content(workdir) == tiny_run.content(tiny_run.finished())


def test_a_change_of_conditions_is_recorded(tmp_path):
    workdir, said = tiny_run.copy_of(tiny_run.stopped(), tmp_path / "run"), []
    for path in (workdir / "checkpoints").glob("*/progress.json"):
        progress = json.loads(path.read_text())
        progress["executions"][0]["jax"] = "0.0.1"
        path.write_text(json.dumps(progress))
        hashes = path.parent / "manifest.json"
        content = json.loads(hashes.read_text()) | {
            path.name: hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        }
        hashes.write_text(json.dumps(content))
    (result,) = tiny_run.train_here(workdir, say=said.append)
    assert [before["jax"] for before in result["executed_before"]] == ["0.0.1"]
    assert result["executed"]["jax"] != "0.0.1"
    assert any("resumes under other conditions" in line for line in said)


def test_a_moved_run_is_resumed(tmp_path):
    workdir = tiny_run.copy_of(tiny_run.stopped(), tmp_path / "elsewhere" / "run")
    tiny_run.train_here(workdir)
    assert tiny_run.content(workdir) == tiny_run.content(tiny_run.finished())


def test_what_a_kill_leaves_behind_is_cleared_away(tmp_path):
    workdir = tiny_run.copy_of(tiny_run.stopped(), tmp_path / "run")
    (workdir / "checkpoints" / "unfinished-15" / "state").mkdir(parents=True)
    tiny_run.copy_of(workdir / "checkpoints" / "00000013", workdir / "checkpoints" / "00000018")  # of another lane
    (workdir / "checkpoints" / "00000018" / "manifest.json").unlink()
    tiny_run.train_here(workdir)
    assert tiny_run.content(workdir) == tiny_run.content(tiny_run.finished())
    left = {path.name for path in (workdir / "checkpoints").iterdir()}
    assert left == {"00000015", "00000016", "00000020", "damaged-18"}


@pytest.mark.parametrize("damage", ["cut within a line", "not text", "a later line"])
def test_damaged_log_is_cut_back_or_said(tmp_path, damage):
    workdir = tiny_run.copy_of(tiny_run.stopped(), tmp_path / "run")
    log = workdir / "metrics.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    if damage == "cut within a line":
        log.write_bytes(b"".join(lines)[:-7])
    elif damage == "not text":
        log.write_bytes(b"".join([lines[0], b"\xff\xfe{]\n", *lines[2:]]))
    else:
        log.write_bytes(b"".join([*lines, b'{"step": 15, "split": "train"}\n', b'{"step": 1']))
    said: list[str] = []
    tiny_run.train_here(workdir, say=said.append)
    found, expected = tiny_run.content(workdir)["log"], tiny_run.content(tiny_run.finished())["log"]
    lost = [line for line in expected if line not in found]
    assert [line for line in expected if line in found] == found
    assert len(lost) == (0 if damage == "a later line" else 1)
    told = any("1 lines of metrics.jsonl up to step 13 were damaged" in line for line in said)
    assert told == bool(lost)


def test_what_is_saved_stays_as_it_was_while_training_continues():
    """Saves run in the background while steps donate the state's buffers."""
    program = tiny_run.program()
    lanes = program.lanes([program.config])
    state = program.steps.init(lanes)
    saved = program.layout.get(state)
    before = jax.tree.map(np.array, saved)
    for step in range(3):
        state, _, _ = program.steps.take(state, step, 1, lanes)
    jax.tree.map(np.testing.assert_array_equal, saved, before)
    assert np.any(jax.tree.leaves(program.layout.get(state).params)[0] != jax.tree.leaves(before.params)[0])


# --- Signals ---


def test_the_second_interrupt_stops_at_once():
    with stop_requested() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_stop_during_the_last_evaluation_is_obeyed(tmp_path):
    def interrupted(measure, *arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return measure(*arguments, **options)

    workdir = tiny_run.copy_of(tiny_run.finished(), tmp_path / "run")
    (workdir / "result.json").unlink()
    with pytest.raises(Interruption):
        tiny_run.train_here(workdir, compiled=tiny_run.with_measure(tiny_run.program(), interrupted))
    assert not (workdir / "result.json").exists()
    tiny_run.train_here(workdir)
    assert tiny_run.content(workdir) == tiny_run.content(tiny_run.finished())
