"""The processes of a sweep: one that dies, hangs or is stopped harms no run but its own. The workers are stand-ins."""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import pytest
import tiny_run

from transformer_jax.config import with_values
from transformer_jax.errors import UserError
from transformer_jax.run.interruption import Interruption
from transformer_jax.sweeps import pool, worker
from transformer_jax.sweeps.worker import Task

# Called as `python -m transformer_jax.sweeps.worker DIRECTORY CPUS`; does with each run what a file beside it says.
WORKER = """#!{python}
import json, os, signal, sys, time
from pathlib import Path
if Path(os.environ.get("BROKEN", "/nowhere")).exists():
  if os.environ.get("BROKEN_ONCE"):
    Path(os.environ["BROKEN"]).unlink()
  print("a warning that is no reason", file=sys.stderr)
  raise SystemExit(f"F1125 08:10:59.024349   {{os.getpid()}} flags.cc:234] Unknown flag {{hex(id(sys))}}")
for name in sys.stdin:
  task = json.loads((Path(sys.argv[3]) / name.strip()).read_text())
  print(f"[{{task['name']}}] process {{os.getpid()}} cpus {{sys.argv[4]}}", flush=True)
  for run in task["runs"]:
    workdir = Path(run["workdir"])
    do = (workdir.parent / f"{{workdir.name}}.do").read_text()
    print(f"[{{task['name']}} seed {{run['config']['seed']}}] {{do}}", flush=True)
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / "started").open("a") as file:
        file.write("x")
    if do in ("die", "die late"):
        time.sleep(0.4 if do == "die late" else 0)
        os.kill(os.getpid(), signal.SIGKILL)
    elif do == "crash":
        raise SystemExit("all is lost")
    elif do == "hang":
        time.sleep(600)
    elif do in ("fail", "unforeseen"):
        (workdir / "error.json").write_text("{{}}")
        if do == "unforeseen":
            raise SystemExit(70)
    else:
        time.sleep(1.2 if do == "slow" else 0.05)
        (workdir / "result.json").write_text("{{}}")
time.sleep(float(os.environ.get("LINGER", 0)))
"""


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """sweep(a=["finish", "die"]) runs a task `a` of two runs that do so; the lines that were said."""
    stand_in = tmp_path / "python"
    stand_in.write_text(WORKER.format(python=sys.executable))
    stand_in.chmod(0o755)
    monkeypatch.setattr(pool.sys, "executable", str(stand_in))
    config = tiny_run.config()

    def run(workers=2, time_limit=None, say=lambda line: None, together=False, **tasks: list[str]) -> list[str]:
        made, lines = [], []
        for name, todo in tasks.items():
            (tmp_path / name).mkdir(exist_ok=True)
            for seed, do in enumerate(todo):
                (tmp_path / name / f"{seed}.do").write_text(do)
            workdirs = [tmp_path / name / str(seed) for seed in range(len(todo))]
            configs = [with_values(config, {"seed": seed}) for seed in range(len(todo))]
            made.append(Task(name, configs, workdirs, lanes=len(todo) if together else 1))

        def both(line: str) -> None:
            lines.append(line)
            say(line)

        pool.run_tasks(made, tmp_path / "tasks", workers, time_limit, dict(os.environ), both)
        return lines

    return run


def outcomes(tmp_path: Path) -> dict[str, str]:
    found = {}
    for path in sorted(tmp_path.glob("*/*.do")):
        workdir = path.with_suffix("")
        names = [name for name in ("result", "error") if (workdir / f"{name}.json").exists()]
        found[f"{path.parent.name}/{workdir.name}"] = "+".join(names) or "open"
    return found


def error(tmp_path: Path, run: str) -> dict:
    return json.loads((tmp_path / run / "error.json").read_text())


def test_all_runs_finish_and_share_the_processors(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "available_cpus", lambda: [0, 1, 2, 3])
    lines = sweep(a=["finish"], b=["finish", "finish"], c=["finish"])
    assert set(outcomes(tmp_path).values()) == {"result"}
    assert {line.partition("cpus ")[2] for line in lines if "cpus" in line} == {"0,2", "1,3"}


@pytest.mark.parametrize(
    ("workers", "gpus", "seen", "memory"),
    [
        (1, "0,1", ["0,1"], [None]),
        (2, "2,3,5", ["2,5", "3"], [None, None]),
        (3, "4,6", ["4", "6", "4"], ["0.45", None, "0.45"]),
        (2, "", ["", ""], [None, None]),
    ],
)
def test_processes_share_out_the_gpus(workers, gpus, seen, memory):
    given = {"CUDA_VISIBLE_DEVICES": gpus}
    found = [pool.pinned(given, k, workers, pool.available_gpus(given)) for k in range(workers)]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in found] == seen
    assert [each.get("XLA_PYTHON_CLIENT_MEM_FRACTION") for each in found] == memory


def test_a_process_that_dies_fails_one_run_and_the_others_are_trained(sweep, tmp_path):
    lines = sweep(a=["finish", "die", "finish"], b=["finish"])
    assert any(" of 4 runs done, about" in line for line in lines)
    assert outcomes(tmp_path) == {"a/0": "result", "a/1": "error", "a/2": "result", "b/0": "result"}
    assert error(tmp_path, "a/1")["message"] == "the process of the run ended with status -9"
    assert "[a seed 1] die" in error(tmp_path, "a/1")["traceback"]
    assert "[a seed 1] failed: the process of the run ended with status -9" in lines
    assert (tmp_path / "a/0/started").read_text() == "x"  # once


def test_a_process_takes_one_task_after_another_and_each_its_time(sweep, tmp_path):
    lines = sweep(time_limit=2.0, workers=1, a=["slow"], b=["slow"], c=["finish"])
    assert set(outcomes(tmp_path).values()) == {"result"}
    assert len({line.split()[2] for line in lines if " cpus " in line}) == 1


def test_a_process_that_dies_is_followed_by_another(sweep, tmp_path):
    lines = sweep(workers=1, a=["finish", "die"], b=["finish"])
    assert outcomes(tmp_path) == {"a/0": "result", "a/1": "error", "b/0": "result"}
    assert len({line.split()[2] for line in lines if " cpus " in line}) == 2


def test_a_process_on_its_way_out_is_given_nothing(sweep, tmp_path, monkeypatch):
    monkeypatch.setenv("LINGER", "1")
    sweep(workers=2, a=["die late", "finish"], b=["finish"])
    assert outcomes(tmp_path) == {"a/0": "error", "a/1": "result", "b/0": "result"}


def test_a_process_that_never_begins_a_run_is_no_endless_loop(sweep, tmp_path):
    sweep(a=["crash", "crash"])
    assert outcomes(tmp_path) == {"a/0": "error", "a/1": "error"}
    assert "all is lost" in error(tmp_path, "a/0")["traceback"]


LAST_WORDS = "the process of the run ended with status 1: flags.cc:234] Unknown flag 0x"


@pytest.fixture
def broken(tmp_path, monkeypatch) -> Path:
    """As long as this file is there, every process dies at its start."""
    path = tmp_path / "broken"
    path.touch()
    monkeypatch.setenv("BROKEN", str(path))
    return path


def test_a_process_that_dies_at_its_start_gives_its_last_words(sweep, tmp_path, broken):
    lines = sweep(a=["finish"])
    assert error(tmp_path, "a/0")["message"].startswith(LAST_WORDS)
    assert "a warning that is no reason" in error(tmp_path, "a/0")["traceback"]
    assert lines == [f"[a seed 0] failed: {error(tmp_path, 'a/0')['message']}"]


def test_a_process_that_is_dead_before_it_has_a_task_gives_its_last_words(sweep, tmp_path, broken, monkeypatch):
    take = pool._Worker.take

    def late(worker, task):
        worker._process.wait()
        worker._readers[1].join()
        take(worker, task)

    monkeypatch.setattr(pool._Worker, "take", late)
    sweep(a=["finish"])
    assert error(tmp_path, "a/0")["message"].startswith(LAST_WORDS)


def test_where_every_process_dies_at_its_start_it_is_said_once(sweep, tmp_path, broken):
    lines: list[str] = []
    with pytest.raises(UserError) as raised:
        sweep(say=lines.append, workers=1, a=["finish", "finish"], b=["finish"], c=["finish"])
    assert f"every run fails for the same reason: {LAST_WORDS}" in str(raised.value)
    assert "2 of 4 were tried" in str(raised.value)
    assert not [line for line in lines if "Unknown flag" in line]
    assert sorted(outcomes(tmp_path).values()) == ["error", "error", "open", "open"]


def test_one_process_that_dies_at_its_start_stops_nothing(sweep, tmp_path, broken, monkeypatch):
    monkeypatch.setenv("BROKEN_ONCE", "yes")
    lines = sweep(workers=1, a=["finish", "finish"], b=["finish"])
    assert outcomes(tmp_path) == {"a/0": "error", "a/1": "result", "b/0": "result"}
    assert len([line for line in lines if LAST_WORDS in line]) == 1


def test_lanes_that_die_at_their_start_stop_nothing(sweep, tmp_path, broken, monkeypatch):
    monkeypatch.setenv("BROKEN_ONCE", "yes")
    sweep(workers=1, together=True, a=["finish", "finish"], b=["finish"])
    assert outcomes(tmp_path) == {"a/0": "error", "a/1": "error", "b/0": "result"}


def test_where_runs_fail_alike_the_one_with_the_least_work_is_tried_before_all_are_given_up(sweep, tmp_path):
    with pytest.raises(UserError, match="ended with status 1: all is lost. 3 of 5 were tried"):
        sweep(workers=1, a=["crash"], b=["crash"], c=["crash"], d=["crash"], e=["crash"])
    assert [name for name, outcome in outcomes(tmp_path).items() if outcome == "error"] == ["a/0", "b/0", "e/0"]


def test_where_the_run_with_the_least_work_lives_all_are_tried(sweep, tmp_path):
    """As where all but the smallest are too large for the device."""
    sweep(workers=3, a=["crash"], b=["crash"], c=["crash"], d=["crash"], e=["finish"])
    assert list(outcomes(tmp_path).values()) == ["error"] * 4 + ["result"]


def test_runs_that_fail_for_several_reasons_are_all_tried(sweep, tmp_path):
    sweep(workers=1, a=["crash"], b=["die"], c=["crash"], d=["crash"])
    assert set(outcomes(tmp_path).values()) == {"error"}


def test_a_run_that_failed_by_itself_keeps_its_own_error(sweep, tmp_path):
    sweep(a=["fail", "finish"])
    assert outcomes(tmp_path) == {"a/0": "error", "a/1": "result"}
    assert error(tmp_path, "a/0") == {}


def test_after_an_error_that_nobody_foresaw_another_process_follows(sweep, tmp_path):
    lines = sweep(workers=1, a=["unforeseen", "finish"])
    assert outcomes(tmp_path) == {"a/0": "error", "a/1": "result"}
    assert len({line.split()[2] for line in lines if " cpus " in line}) == 2


@pytest.mark.parametrize(("error", "ends"), [(RuntimeError("the device is gone"), True), (UserError("no"), False)])
def test_a_worker_ends_after_an_error_that_nobody_foresaw(tmp_path, monkeypatch, error, ends):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(worker, "train_lanes", fail)
    task = Task("a", [tiny_run.config()] * 2, [tmp_path / "0", tmp_path / "1"])
    with pytest.raises(SystemExit, match="70") if ends else contextlib.nullcontext():
        worker.run_task(task)
    found = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*/error.json"))]
    assert [content["message"] for content in found] == [str(error)] * (1 if ends else 2)
    assert all(("Traceback" in content["traceback"]) == ends for content in found)


def test_a_run_over_its_time_is_ended(sweep, tmp_path):
    sweep(time_limit=2.0, a=["finish", "hang", "finish"], b=["finish"])
    assert outcomes(tmp_path) == {"a/0": "result", "a/1": "error", "a/2": "result", "b/0": "result"}
    assert error(tmp_path, "a/1")["message"] == "the run took longer than the time limit of 2 seconds"


def test_lanes_have_the_time_of_all_of_their_runs(sweep, tmp_path):
    said = sweep(time_limit=1.0, together=True, a=["finish", "finish", "finish", "finish"], workers=1)
    assert set(outcomes(tmp_path).values()) == {"result"}, said


def test_lanes_fall_together(sweep, tmp_path):
    sweep(a=["die", "finish"], together=True)
    assert outcomes(tmp_path) == {"a/0": "error", "a/1": "error"}


def test_a_stop_marks_nothing_as_failed(sweep, tmp_path):
    def stop(line: str) -> None:
        if line.endswith("hang"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interruption):
        sweep(say=stop, workers=1, a=["finish", "hang", "finish"], b=["finish"])
    assert outcomes(tmp_path) == {"a/0": "result", "a/1": "open", "a/2": "open", "b/0": "open"}
    assert not (tmp_path / "b/0").exists()  # nothing new was begun
