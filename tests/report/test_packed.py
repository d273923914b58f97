"""A packed sweep says what its run directories say, and packing writes one new directory, whole or not at all."""

import dataclasses
import json
import os
import re
from pathlib import Path

import pytest
from sweep_files import VALUES, make_row, make_run, make_sweep

from transformer_jax import cli
from transformer_jax.errors import UserError
from transformer_jax.files import MOST_LOG_BYTES
from transformer_jax.report import write
from transformer_jax.report.formats import to_csv, to_latex
from transformer_jax.report.read import read_sweep
from transformer_jax.report.results import Sweep
from transformer_jax.report.write import pack_report, write_report
from transformer_jax.sweeps.runner import sweep_status

PACKED = {"sweep.json", "runs.jsonl", "curves.jsonl", "report.md", "report.csv"}


def make_mixed_sweep(directory: Path) -> Path:
    """A run of every status; one with a damaged line, one with skipped steps."""
    rows = {name: make_row({"model.knob": name}, partner="base" if name != "base" else None) for name in VALUES}
    make_sweep(directory, {**VALUES, "one_head": [0.91, None, 0.92]}, rows=rows)
    runs = directory / "runs"
    (runs / "base/seed_1/metrics.jsonl").write_text('{"step": 5, "split": "valid", "nll": 3.0}\n{"st\n{"step": 6}\n')
    make_run(runs / "no_wo/seed_0", 0, 0.8, skipped=7)
    make_run(runs / "no_wo/seed_1", 1, 0.8, status="diverged", metrics={})
    (runs / "one_head/seed_0/result.json").unlink()
    (runs / "one_head/seed_0/error.json").write_text('{"type": "OutOfMemory", "message": "too big"}')
    (runs / "one_head/seed_2/result.json").write_text("{")
    make_run(runs / "no_wo/seed_2", 2, 0.81, config={})
    (runs / "no_wo/seed_2/result.json").unlink()
    return directory


def content_of(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def without_paths(sweep: Sweep) -> Sweep:
    return dataclasses.replace(sweep, runs=tuple(dataclasses.replace(run, path=None) for run in sweep.runs))


def test_a_packed_sweep_is_the_sweep(tmp_path):
    directory, out = make_mixed_sweep(tmp_path / "sweep"), tmp_path / "new" / "packed"
    before = content_of(directory)
    packed = pack_report(directory, out)
    assert content_of(directory) == before
    assert {path.name for path in out.iterdir()} == set(packed.files) == PACKED
    assert all(path.is_file() for path in packed.files.values())
    assert {run.status for run in read_sweep(out).runs} == {
        "finished", "diverged", "failed", "unreadable", "running", "missing"
    }  # fmt: skip
    assert read_sweep(out) == without_paths(read_sweep(directory))
    assert list(out.parent.iterdir()) == [out]


def test_the_reports_are_the_same_but_for_the_links_to_the_runs(tmp_path):
    directory, out = make_mixed_sweep(tmp_path / "sweep"), tmp_path / "packed"
    packed = pack_report(directory, out).files
    markdown, table = packed["report.md"].read_text(), packed["report.csv"].read_text()
    whole, again = write_report(directory), write_report(out)
    assert (again.files["md"].read_text(), again.files["csv"].read_text()) == (markdown, table)
    assert whole.analysis.as_dict() == again.analysis.as_dict()
    assert re.sub(r"\[(.*?)\]\(runs/.*?\)", r"\1", whole.files["md"].read_text()) == markdown != ""
    page = whole.files["html"].read_text()
    assert re.sub(r'<a href="runs/.*?">(.*?)</a>', r"\1", page) == again.files["html"].read_text() != page
    for make in (to_csv, to_latex):
        assert make(whole.analysis) == make(again.analysis)


def test_a_packed_run_is_the_run(tmp_path):
    make_run(tmp_path / "run", 3, 0.75)
    (tmp_path / "run" / "data.json").write_text('{"fingerprint": "f"}')
    pack_report(tmp_path / "run", tmp_path / "packed")
    assert read_sweep(tmp_path / "packed") == without_paths(read_sweep(tmp_path / "run"))
    assert write_report(tmp_path / "packed").summary == "exact match (test), %: run 75.0 (1 seed)."
    (line,) = map(json.loads, (tmp_path / "packed" / "runs.jsonl").read_text().splitlines())
    assert (line["row"], line["seed"], line["config"], line["data"]) == ("run", 3, {"seed": 3}, {"fingerprint": "f"})


def test_every_line_says_whose_it_is_and_nothing_of_a_run_is_lost(tmp_path):
    out = tmp_path / "packed"
    pack_report(make_sweep(tmp_path / "sweep"), out)
    runs = [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]
    points = [json.loads(line) for line in (out / "curves.jsonl").read_text().splitlines()]
    for row in VALUES:
        for seed in (0, 1, 2):
            run = tmp_path / "sweep" / "runs" / row / f"seed_{seed}"
            (line,) = [line for line in runs if (line["row"], line["seed"]) == (row, seed)]
            assert line["result"] == json.loads((run / "result.json").read_text())
            assert line["config"] == json.loads((run / "config.json").read_text())
            assert line["overrides"] == ({"model.knob": row} if row != "base" else {})
            log = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()[:-1]]
            whose = {"row": row, "seed": seed}
            assert [point for point in points if point.items() >= whose.items()] == [whose | line for line in log]


@pytest.mark.parametrize("there", ["directory", "empty", "file", "link", "itself"])
def test_nothing_is_overwritten(tmp_path, there):
    directory, out = make_sweep(tmp_path / "sweep"), tmp_path / "packed"
    if there == "itself":
        out = directory
    elif there == "file":
        out.write_text("mine")
    elif there == "link":
        out.symlink_to("nowhere")
    else:
        out.mkdir()
        if there == "directory":
            (out / "report.md").write_text("mine")
    before = content_of(tmp_path)
    with pytest.raises(UserError, match="is there already, and nothing is overwritten"):
        pack_report(directory, out)
    assert content_of(tmp_path) == before


def test_a_directory_that_comes_while_it_is_packed_stays(tmp_path, monkeypatch):
    def make_beside(*arguments):
        (tmp_path / "packed").mkdir(exist_ok=True)
        (tmp_path / "packed" / "mine").write_text("mine")
        return to_csv(*arguments)

    monkeypatch.setitem(write.PACKED_WRITERS, "csv", make_beside)
    with pytest.raises(OSError, match="not empty"):
        pack_report(make_sweep(tmp_path / "sweep"), tmp_path / "packed")
    assert [path.name for path in (tmp_path / "packed").iterdir()] == ["mine"]
    assert {path.name for path in tmp_path.iterdir()} == {"packed", "sweep"}


def test_what_cannot_be_packed_leaves_nothing(tmp_path):
    directory = make_sweep(tmp_path / "sweep")
    pack_report(directory, tmp_path / "packed")
    with pytest.raises(UserError, match="is packed already"):
        pack_report(tmp_path / "packed", tmp_path / "again")
    with pytest.raises(UserError, match="neither sweep.json nor config.json"):
        pack_report(tmp_path, tmp_path / "again")
    assert {path.name for path in tmp_path.iterdir()} == {"sweep", "packed"}


def test_a_log_that_would_be_too_large_to_read_is_not_packed(tmp_path, monkeypatch):
    monkeypatch.setattr("transformer_jax.run.directory.MOST_LOG_BYTES", 2000)
    with pytest.raises(UserError, match="cannot be packed: runs.jsonl: cannot be read"):
        pack_report(make_sweep(tmp_path / "sweep"), tmp_path / "packed")
    assert [path.name for path in tmp_path.iterdir()] == ["sweep"]


def test_a_damaged_line_costs_its_run(tmp_path):
    directory = tmp_path / "packed"
    pack_report(make_sweep(tmp_path / "sweep"), directory)
    lines = (directory / "runs.jsonl").read_text().splitlines()
    odd = ['{"row": []', "[1]", '{"row": [], "seed": 0}', '{"row": "base", "seed": 0, "status": "odd", "result": {}}']
    (directory / "runs.jsonl").write_text("\n".join([*odd, *lines[1:]]) + "\n")
    report = write_report(directory)
    assert report.as_dict()["rows"]["base"]["status"] == {"0": "unreadable", "1": "finished", "2": "finished"}
    assert report.analysis.notes[0] == "runs.jsonl: unreadable lines left out: 1, 2, 3, 4"
    assert report.analysis.summaries["base"].n == 2
    assert report.analysis.summaries["no_wo"].n == 3


def test_damaged_points_are_left_out_and_said(tmp_path):
    directory = tmp_path / "packed"
    pack_report(make_sweep(tmp_path / "sweep"), directory)
    whole = '{"row": "base", "seed": 0, "step": 1, "split": "valid", "nll": 2.0}'
    (directory / "curves.jsonl").write_text(whole + '\n{"row": "base", "seed": 0, "step": "2"}\n{')
    report = write_report(directory)
    assert report.analysis.notes == ("curves.jsonl: unreadable lines left out: 2, 3",)
    assert report.analysis.sweep.runs[0].curves == {"nll": {1: 2.0}}
    assert report.analysis.summaries["base"].n == 3


@pytest.mark.parametrize("name", ["runs.jsonl", "curves.jsonl"])
@pytest.mark.parametrize("kind", ["pipe", "link", "directory", "large", "missing"])
def test_a_packed_file_that_is_none_is_said(tmp_path, name, kind):
    directory = tmp_path / "packed"
    pack_report(make_sweep(tmp_path / "sweep"), directory)
    (directory / name).unlink()
    if kind == "missing" and name == "runs.jsonl":
        assert {run.status for run in write_report(directory).analysis.sweep.runs} == {"missing"}
        return
    if kind == "pipe":
        os.mkfifo(directory / name)
    elif kind == "link":
        (directory / name).symlink_to("/etc/hostname")
    elif kind == "directory":
        (directory / name).mkdir()
    elif kind == "large":
        (directory / name).touch()
        os.truncate(directory / name, MOST_LOG_BYTES + 1)
    report = write_report(directory)
    assert report.analysis.notes[0].startswith(f"{name}: cannot be read (")
    assert report.analysis.summaries["base"].n == (0 if name == "runs.jsonl" else 3)


def test_the_command_packs_and_the_packed_sweep_has_a_status(tmp_path, capsys):
    directory = make_mixed_sweep(tmp_path / "sweep")
    assert cli.main(["report", str(directory), f"--pack={tmp_path / 'packed'}"]) == 0
    assert str(tmp_path / "packed" / "runs.jsonl") in capsys.readouterr().out
    assert not list(directory.glob("report.*"))
    assert sweep_status(tmp_path / "packed") == sweep_status(directory)
