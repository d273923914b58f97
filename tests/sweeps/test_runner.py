"""Whole sweeps with real processes on a tiny experiment: finished, failed, stopped, extended, refused."""

import csv
import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_run

from transformer_jax import cli
from transformer_jax.config import with_values
from transformer_jax.errors import UserError
from transformer_jax.report.formats import to_csv
from transformer_jax.report.write import Report
from transformer_jax.run.directory import run_directory_of
from transformer_jax.run.interruption import Interruption
from transformer_jax.run.lock import locked
from transformer_jax.sweeps import execution, runner
from transformer_jax.sweeps.calibration import Timing
from transformer_jax.sweeps.experiment import choose_scale, load_experiment, make_variants
from transformer_jax.sweeps.grouping import Planned
from transformer_jax.sweeps.runner import run_sweep, sweep_status
from transformer_jax.sweeps.worker import Task, write_task

pytestmark = pytest.mark.newest

EXPERIMENT = '''"""Does it run?

Question: Does it run?

Hypothesis: It does.
"""
from transformer_jax.sweeps.experiment import Experiment, Scale
EXPERIMENT = Experiment(
    rows={rows},
    scales={{"small": Scale("configs/tiny.py", seeds=2, metric="test/chrf", percent=False)}},
)
'''
# The corpus of the last row is gone by the time its worker looks for it.
VANISHING = {
    "data.source": "parallel_text",
    "data.directory": "{directory}",
    "data.tokenizer": "characters",
    "model.vocab_size": 40,
}


def make(directory: Path, rows: dict) -> Path:
    """An experiment file in `directory`."""
    tiny_run.write_config_file(directory / "configs" / "tiny.py", {"train.steps": 8, "evaluate.checkpoint": "last"})
    path = directory / "experiments" / "ask.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(EXPERIMENT.format(rows=rows))
    return path


def sweep(path: Path, workdir: Path, seeds: int | None = None, **options):
    experiment = load_experiment(path)
    scale = choose_scale(experiment, "small")
    if seeds is not None:
        scale = type(scale)(**{**vars(scale), "seeds": seeds})
    variants = make_variants(experiment, scale, {})
    return run_sweep("ask", experiment, "small", scale, variants, workdir, **{"workers": 2, "lanes": 1} | options)


def write_corpus(directory: Path) -> Path:
    directory.mkdir()
    for split, count in (("train", 20), ("val", 3), ("test", 3)):
        (directory / f"{split}.en").write_text("".join(f"{n} {n}\n" for n in range(1, count + 1)))
        (directory / f"{split}.de").write_text("".join(f"{n}\n" for n in range(1, count + 1)))
    return directory


def restore(directory: Path) -> None:
    """The corpus is there again: planning reads it."""
    if not (directory / "corpus").exists():
        (directory / "hidden").rename(directory / "corpus")


def stamps(directory: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (directory / "runs").rglob("*") if path.is_file()}


def numbers(report: Report, row: str) -> dict[str, str]:
    """A row of report.csv without what is a time."""
    lines = csv.DictReader(io.StringIO(to_csv(report.analysis)))
    (found,) = [line for line in lines if line["row"] == row]
    return {name: value for name, value in found.items() if "seconds" not in name}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A sweep of two rows and two seeds, one row of which has failed."""
    directory = tmp_path_factory.mktemp("sweep")
    corpus = write_corpus(directory / "corpus")
    vanishing = VANISHING | {"data.directory": str(corpus)}
    path = make(directory, {"base": {}, "gone": vanishing})

    def say(line: str) -> None:
        if corpus.exists():
            corpus.rename(directory / "hidden")

    report = sweep(path, directory / "work", say=say)
    return directory, path, report


def test_every_run_has_its_directory_and_the_failed_ones_their_error(made):
    directory, _, report = made
    status = {f"{run.row}/{run.seed}": run.status for run in report.analysis.sweep.runs}
    assert status == {"base/0": "finished", "base/1": "finished", "gone/0": "failed", "gone/1": "failed"}
    for seed in (0, 1):
        error = json.loads((run_directory_of(directory / "work", "gone", seed) / "error.json").read_text())
        assert "corpus" in error["message"]
        result = json.loads((run_directory_of(directory / "work", "base", seed) / "result.json").read_text())
        assert result["seed"] == seed
    definition = json.loads((directory / "work" / "sweep.json").read_text())
    assert (definition["seeds"], definition["metric"], definition["base"]) == ([0, 1], "test/chrf", "base")
    assert definition["rows"]["gone"]["overrides"]["data.tokenizer"] == "characters"
    assert definition["rows"]["gone"]["parameters"] > definition["rows"]["base"]["parameters"]


def test_the_report_has_the_failure_and_the_numbers(made):
    directory, _, report = made
    assert set(report.files) == {"html", "md", "csv", "tex"}
    assert all(path.is_file() for path in report.files.values())
    assert "no directory" in (directory / "work" / "report.md").read_text()
    base = report.analysis.sweep.values("base")
    expected = [json.loads((directory / f"work/runs/base/seed_{s}/result.json").read_text()) for s in (0, 1)]
    assert base == {s: expected[s]["metrics"]["test"]["chrf"] for s in (0, 1)}


def test_a_run_of_a_sweep_is_a_run(made):
    """Bit for bit what the same config gives by itself, up to the number of processors."""
    directory, _, _ = made
    log = [json.loads(line) for line in (directory / "work/runs/base/seed_1/metrics.jsonl").read_text().splitlines()]
    program = tiny_run.program(train__steps=8, evaluate__checkpoint="last")
    tiny_run.train_here(directory / "alone", [1], program)
    alone = [json.loads(line) for line in (directory / "alone" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [line["step"] for line in alone]
    assert [line["nll"] for line in log] == pytest.approx([line["nll"] for line in alone], rel=1e-5)


def test_what_is_finished_or_failed_is_left_alone(made):
    directory, path, report = made
    restore(directory)
    before, said = stamps(directory / "work"), []
    again = sweep(path, directory / "work", say=said.append)
    assert stamps(directory / "work") == before
    assert said == ["4 runs, 2 programs; 0 to go."]
    assert again.as_dict() == report.as_dict()


def test_failed_runs_are_tried_again_on_request_and_seeds_may_be_added(made, tmp_path):
    directory, path, _ = made
    restore(directory)
    before = stamps(directory / "work")
    said: list[str] = []
    report = sweep(path, directory / "work", seeds=3, retry_failed=True, say=said.append)
    assert said[0] == "6 runs, 2 programs; 4 to go."
    assert {run.status for run in report.analysis.sweep.runs} == {"finished"}
    assert not list((directory / "work").rglob("error.json"))
    after = stamps(directory / "work")
    kept = [file for file in before if "gone" not in file.parts]
    assert {file: after[file] for file in kept} == {file: before[file] for file in kept}


def test_a_row_that_has_changed_its_meaning_is_refused(made, tmp_path):
    directory, _, _ = made
    restore(directory)
    changed = make(tmp_path, {"base": {"model.d_ff": 8}})
    before = (directory / "work" / "sweep.json").read_bytes()
    with pytest.raises(UserError, match="holds rows that have changed since: base. Give this sweep another --workdir"):
        sweep(changed, directory / "work", say=lambda line: None)
    assert (directory / "work" / "sweep.json").read_bytes() == before


def test_how_a_sweep_is_judged_stands_as_it_was_declared(made):
    directory, path, _ = made
    restore(directory)
    definition = json.loads((directory / "work" / "sweep.json").read_text())
    declared = {name: definition[name] for name in ("test", "margin", "failing", "family", "family_size")}
    assert declared == {"test": "paired", "margin": None, "failing": None, "family": "", "family_size": 0}
    experiment = load_experiment(path)
    for change in ({"margin": 0.5}, {"test": "welch"}, {"higher_is_better": False}, {"metric": "test/nll"}):
        scale = dataclasses.replace(experiment.scales["small"], **change)
        variants = make_variants(experiment, scale, {})
        (name,) = change
        with pytest.raises(UserError, match=f"{name} was declared as .* may not change under its runs"):
            run_sweep("ask", experiment, "small", scale, variants, directory / "work")


@pytest.mark.parametrize("content", ["[]", "{}", '{"name": 3, "rows": 4}', "{"])
def test_a_sweep_json_of_somebody_else_is_refused(tmp_path, content):
    path = make(tmp_path, {"base": {}})
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "sweep.json").write_text(content)
    with pytest.raises(UserError, match=r"sweep\.json"):
        sweep(path, tmp_path / "work", say=lambda line: None)


def test_a_second_sweep_on_the_directory_is_refused(tmp_path):
    path = make(tmp_path, {"base": {}})
    with locked(tmp_path / "work"), pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
        sweep(path, tmp_path / "work", say=lambda line: None)


def test_stopped_and_started_again_ends_with_the_same_report(made, tmp_path):
    _, _, whole = made
    path = make(tmp_path, {"base": {}})

    def stop(line: str) -> None:
        if "step 3/8" in line:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interruption):
        sweep(path, tmp_path / "work", workers=1, say=stop)
    assert [run["status"] for run in sweep_status(tmp_path / "work")] == ["stopped", "missing"]
    again = sweep(path, tmp_path / "work", say=lambda line: None)
    assert numbers(again, "base") == numbers(whole, "base")
    assert numbers(again, "base")["seed_1"]


def test_a_worker_ends_with_the_sweep_that_started_it(tmp_path):
    """As after a kill -9 of the sweep: no orphan trains on, and no run is marked as failed."""
    config = with_values(tiny_run.config({"train.steps": 100_000}), {"seed": 3})
    task = write_task(tmp_path, Task("base", [config], [tmp_path / "run"]))
    process = subprocess.Popen(
        [sys.executable, "-m", "transformer_jax.sweeps.worker", str(tmp_path), ""],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    print(task.name, file=process.stdin, flush=True)
    while "step 3/" not in process.stdout.readline():
        pass
    process.stdout.close()  # printing fails from now on, too
    process.stdin.close()
    assert process.wait() == 75
    assert not (tmp_path / "run" / "error.json").exists()
    with locked(tmp_path / "run"):
        pass


# --- Seeds on demand ---


CHRF = {"base": 50.0, "far": 20.0, "noisy": 48.0}
SPREAD = {"base": 1.0, "far": 0.5, "noisy": 20.0}


def measured(row: str, seed: int) -> float:
    """What the run would have scored."""
    return CHRF[row] + SPREAD[row] * np.sin(7.0 * seed + len(row))


def pretend(monkeypatch, trained: list[str], stop_after: int | None = None) -> None:
    """Runs write their results without training; after so many the sweep is stopped."""

    def train(runs, definition, execution, *_, **__):
        for run in runs:
            if run.is_open:
                if len(trained) == stop_after:
                    raise Interruption(None)
                trained.append(run.name)
                run.workdir.mkdir(parents=True)
                score = {"test": {"chrf": measured(run.row, run.config.seed)}}
                result = {"schema": 1, "status": "finished", "key": run.key, "steps": 8, "metrics": score}
                (run.workdir / "result.json").write_text(json.dumps(result))
        return execution

    monkeypatch.setattr(runner, "_train_missing", train)


def on_demand(path: Path, workdir: Path, most: int = 12, **options) -> Report:
    experiment = load_experiment(path)
    scale = dataclasses.replace(experiment.scales["small"], seeds=3, margin=0.5).until_settled(most)
    variants = make_variants(experiment, scale, {})
    return run_sweep("ask", experiment, "small", scale, variants, workdir, **{"say": lambda line: None} | options)


def test_rows_that_are_settled_get_no_more_seeds_and_a_sweep_that_is_resumed_decides_the_same(tmp_path, monkeypatch):
    path = make(tmp_path, {"base": {}, "far": {"model.d_ff": 8}, "noisy": {"model.d_ff": 4}})
    whole, said = [], []
    pretend(monkeypatch, whole)
    report = on_demand(path, tmp_path / "whole" / "work", say=said.append)
    assert len(whole) == len(set(whole)) == 12 + 3 + 12
    assert said == [
        "1 of 2 comparisons settled; round 2 of 3: base, noisy with 6 seeds.",
        "1 of 2 comparisons settled; round 3 of 3: base, noisy with 12 seeds.",
    ]
    definition = json.loads((tmp_path / "whole" / "work" / "sweep.json").read_text())
    assert (definition["rounds"], definition["seeds"]) == ([3, 6, 12], list(range(12)))
    assert {row: content["seeds"] for row, content in definition["rows"].items()} == {"base": 12, "far": 3, "noisy": 12}
    findings = {c.row: (c.finding, c.round) for c in report.analysis.comparisons}
    assert findings == {"far": ("worse", 1), "noisy": ("open", None)}

    for stop_after in (2, 10, 20):
        workdir, trained = tmp_path / f"stopped_{stop_after}" / "work", []
        pretend(monkeypatch, trained, stop_after)
        with pytest.raises(Interruption):
            on_demand(path, workdir)
        pretend(monkeypatch, trained)
        again = on_demand(path, workdir)
        assert sorted(trained) == sorted(whole)
        assert again.analysis.as_dict() == report.analysis.as_dict()
        assert json.loads((workdir / "sweep.json").read_text()) == definition
    with pytest.raises(UserError, match=r"rounds was declared as \[3, 6, 12\], and is \[3, 6, 12, 20\] now"):
        on_demand(path, workdir, most=20)


def test_the_status_of_seeds_on_demand_is_of_the_round_that_has_come(tmp_path, monkeypatch, capsys):
    path = make(tmp_path, {"base": {}, "far": {"model.d_ff": 8}, "noisy": {"model.d_ff": 4}})
    text = path.read_text().replace("seeds=2", "seeds=3, margin=0.5")
    path.write_text(text)
    pretend(monkeypatch, [], stop_after=10)
    arguments = ["sweep", str(path), f"--workdir={tmp_path / 'work'}", "--until-settled", "--max-seeds=12"]
    assert cli.main(arguments) == 75
    capsys.readouterr()
    assert cli.main([*arguments, "--status", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [run["row"] for run in runs] == ["base"] * 6 + ["far"] * 3 + ["noisy"] * 6
    assert [run["seed"] for run in runs if run["status"] == "missing"] == [4, 5, 3, 4, 5]
    assert cli.main(["sweep", str(path), f"--workdir={tmp_path / 'work'}", "--max-seeds=12"]) == 2
    assert "--until-settled and --max-seeds belong together" in capsys.readouterr().err


# --- The command ---


def test_status_lists_every_run_without_training(tmp_path, monkeypatch, capsys):
    path = make(tmp_path, {"base": {}, "no_wo": {"model.attention.output_projection": "none"}})
    tiny_run.write_config_file(tmp_path / "configs" / "tiny.py")
    workdir = tmp_path / "work"
    arguments = ["sweep", str(path), f"--workdir={workdir}", "--status"]
    assert cli.main(arguments) == 2
    assert "holds neither sweep.json nor config.json" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(runner, "run_tasks", lambda *_: None)
        patch.setattr(runner, "choose_lanes", lambda *_: 1)
        sweep(path, workdir, say=lambda line: None)
    tiny_run.copy_of(tiny_run.finished(), run_directory_of(workdir, "base", 0))
    tiny_run.copy_of(tiny_run.stopped(), run_directory_of(workdir, "base", 1))
    failed = run_directory_of(workdir, "no_wo", 0)
    failed.mkdir(parents=True)
    (failed / "error.json").write_text('{"type": "ValueError", "message": "no luck"}')
    assert cli.main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == [
        {"row": "base", "seed": 0, "status": "finished", "message": "evaluated at step 20"},
        {"row": "base", "seed": 1, "status": "stopped", "message": "evaluated at step 8"},
        {"row": "no_wo", "seed": 0, "status": "failed", "message": "ValueError: no luck"},
        {"row": "no_wo", "seed": 1, "status": "missing", "message": ""},
    ]
    with locked(run_directory_of(workdir, "base", 1)):
        assert [run["status"] for run in sweep_status(workdir)] == ["finished", "running", "failed", "missing"]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "    failed  no_wo seed 0  ValueError: no luck", "   missing  no_wo seed 1"
    ]  # fmt: skip
    # It is of the sweep that the same command would run.
    listed = {1: ["finished", "failed"], 3: ["finished", "stopped", "missing", "failed", "missing", "missing"]}
    for seeds, expected in listed.items():
        assert cli.main([*arguments, f"--seeds={seeds}", "--json"]) == 0
        assert [run["status"] for run in json.loads(capsys.readouterr().out)["runs"]] == expected
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    assert cli.main([*arguments, "--config.model.d_ff=64"]) == 2
    assert "holds rows that have changed since: base, no_wo" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before


def test_the_command_passes_on_what_it_is_given_and_tells_of_failures(made, monkeypatch, capsys):
    directory, path, report = made
    seen = {}

    def run(*arguments, **options):
        seen.update(options, scale=arguments[3], rows=[variant.name for variant in arguments[4]])
        return report

    monkeypatch.setattr("transformer_jax.sweeps.runner.run_sweep", run)
    arguments = ["--seeds=7", "--workers=3", "--lanes=4", "--no-reuse", "--time-limit=90", "--retry-failed"]
    arguments += ["--config.model.d_ff=5"]
    assert cli.main(["sweep", str(path), f"--workdir={directory / 'work'}", *arguments]) == 1  # two have failed
    assert (seen["workers"], seen["time_limit"], seen["retry_failed"]) == (3, 90.0, True)
    assert (seen["lanes"], seen["reuse_finished"]) == (4, False)
    assert (seen["scale"].seeds, seen["rows"]) == (7, ["base", "gone"])
    assert capsys.readouterr().out.splitlines()[0] == report.summary


# --- Programs, lanes, and runs that are known already ---


TWINS = {"base": {}, "drop": {"model.dropout_rate": 0.3}, "twin": {"model.dropout_rate": 0.1}}
"""`twin` is the base by another name."""


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """A sweep whose runs are trained together: its calibration is made to find that faster."""
    directory = tmp_path_factory.mktemp("together")
    path, said = make(directory, TWINS), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "FEWEST_STEPS", 1)
        patch.setattr(Timing, "best_lanes", property(lambda timing: timing.lanes))
        report = sweep(path, directory / "work", lanes=None, workers=1, say=said.append)
    return directory, path, report, said


def test_a_sweep_says_its_programs_and_what_it_measured(together):
    *_, said = together
    assert said[0] == "6 runs, 1 program; 4 to go."
    times = r"A step takes [\d.]+ ms alone and [\d.]+ ms for each of 4 lanes together"
    expected = rf"{times}: 4 runs together in one program, estimated .* s\."
    assert re.fullmatch(expected, said[1])


def test_lanes_of_a_sweep_are_the_runs_alone(together, made):
    """Also the lanes whose dropout is not the first one's."""
    directory, *_ = together
    for row, value in (("base", 0.1), ("drop", 0.3)):
        tiny_run.train_here(
            directory / f"alone_{row}",
            [1],
            tiny_run.program(train__steps=8, evaluate__checkpoint="last", model__dropout_rate=value),
        )
        alone, lane = (logged(run) for run in (directory / f"alone_{row}", directory / f"work/runs/{row}/seed_1"))
        assert [line["step"] for line in lane] == [line["step"] for line in alone]
        assert [line["nll"] for line in lane] == pytest.approx([line["nll"] for line in alone], rel=1e-4)
    assert logged(directory / "alone_base")[-1]["nll"] != pytest.approx(
        logged(directory / "alone_drop")[-1]["nll"], rel=1e-4
    )
    executed = json.loads((directory / "work/runs/drop/seed_1/result.json").read_text())["executed"]
    assert (executed["lanes"], executed["traced"]) == (4, ["model.dropout_rate"])


def logged(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_same_experiment_is_trained_once(together):
    directory, _, report, said = together
    for seed in (0, 1):
        result = json.loads((directory / f"work/runs/twin/seed_{seed}/result.json").read_text())
        assert result["reused_from"] == f"../../base/seed_{seed}"
    assert numbers(report, "twin")["seed_0"] == numbers(report, "base")["seed_0"]
    assert not any(line.startswith("[twin") and "step" in line for line in said)


def test_another_sweep_uses_what_is_known(together):
    directory, path, report, _ = together
    said: list[str] = []
    again = sweep(path, directory / "other", say=said.append)
    assert said[-1] == "6 runs, 1 program; 0 to go."
    assert [numbers(again, row) for row in TWINS] == [numbers(report, row) for row in TWINS]

    def stop(line: str) -> None:
        said.append(line)
        if "parameters" in line:  # the first run has begun
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interruption):
        sweep(path, directory / "fresh", reuse_finished=False, say=stop)
    assert "6 runs, 1 program; 4 to go." in said


def test_a_result_of_another_experiment_is_refused(together, tmp_path):
    """As when a row has left the sweep and comes back with another meaning."""
    directory, *_ = together
    row = run_directory_of(tmp_path / "work", "base", 0)
    tiny_run.copy_of(run_directory_of(directory / "work", "drop", 0), row)
    path = make(tmp_path, {"base": {}})
    with pytest.raises(UserError, match=r"base/seed_0: holds a finished run of another config"):
        sweep(path, tmp_path / "work", say=lambda line: None)


@pytest.mark.parametrize("link", ["runs", "runs/base", "runs/base/seed_0"])
def test_a_directory_that_leads_elsewhere_is_refused(tmp_path, link):
    path, elsewhere = make(tmp_path, {"base": {}}), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "work" / link).parent.mkdir(parents=True)
    (tmp_path / "work" / link).symlink_to(elsewhere)
    with pytest.raises(UserError, match="is a link; what is written to a sweep must stay inside of it"):
        sweep(path, tmp_path / "work", say=lambda line: None)
    assert list(elsewhere.iterdir()) == []


def test_lanes_that_cannot_be_are_refused_before_anything_is_made(tmp_path):
    path = make(tmp_path, {"base": {"parallel.strategy": "pmap"}})
    with pytest.raises(UserError, match="lanes need 'jit'"):
        sweep(path, tmp_path / "work", lanes=2, say=lambda line: None)
    assert not (tmp_path / "work").exists()


def test_a_calibration_that_fails_says_why_and_is_no_obstacle(tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(execution, "available_cpus", lambda: [10_000])  # there is no such processor
    monkeypatch.setattr(execution, "FEWEST_STEPS", 1)
    config = tiny_run.config()
    planned = [[Planned("base", config, tmp_path / "base" / "seed_0", "key")]]
    assert execution.choose_lanes(planned, None, 1, {}, tmp_path, dict(os.environ), said.append) == 1
    assert said == ["The calibration failed, as the runs may (OSError: [Errno 22] Invalid argument)."]


@pytest.mark.parametrize(
    "damage", ['{"lanes": "two", "groups": []}', '{"lanes": 2}', '{"lanes": 2, "groups": [[]]}', "7"]
)
def test_a_damaged_execution_is_refused(together, tmp_path, damage):
    directory, path, _, _ = together
    content = json.loads((directory / "work" / "sweep.json").read_text())
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "sweep.json").write_text(json.dumps({**content, "execution": json.loads(damage)}))
    with pytest.raises(UserError, match=r'sweep\.json: its "execution" is damaged'):
        sweep(path, tmp_path / "work", say=lambda line: None)
