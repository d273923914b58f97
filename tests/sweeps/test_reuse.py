"""A finished run serves every sweep that asks for the same experiment."""

import json
from pathlib import Path

import pytest
import tiny_run

from transformer_jax.config import replace
from transformer_jax.run import identity
from transformer_jax.run.identity import read_config, run_key
from transformer_jax.run.saved import evaluate_run
from transformer_jax.sweeps.reuse import finished_runs, reuse


@pytest.fixture
def sweep(tmp_path) -> Path:
    """A directory like a sweep's, with one finished run."""
    tiny_run.copy_of(tiny_run.finished(), tmp_path / "sweep" / "runs" / "base" / "seed_0")
    return tmp_path / "sweep"


def result_of(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())


def test_the_key_is_of_config_data_and_numerics(monkeypatch):
    run = tiny_run.finished()
    config, fingerprint = read_config(run), json.loads((run / "data.json").read_text())["fingerprint"]
    key = run_key(config, fingerprint)
    assert result_of(run)["key"] == key
    others = {run_key(replace(config, {"seed": 9}), fingerprint), run_key(config, "other")}
    monkeypatch.setattr(identity, "NUMERICS", 99)
    assert len({key, *others, run_key(config, fingerprint)}) == 4


def test_finished_runs_are_found_and_damaged_ones_left_out(sweep):
    run = sweep / "runs" / "base" / "seed_0"
    for seed, text in enumerate(["{", "[]", "{}", '{"key": 3}'], start=1):
        path = sweep / "runs" / "base" / f"seed_{seed}" / "result.json"
        path.parent.mkdir()
        path.write_text(text)
    assert finished_runs([sweep, sweep.parent / "nothing"]) == {result_of(run)["key"]: run}


def test_a_reused_run_is_whole_and_stands_by_itself(sweep):
    origin, workdir = sweep / "runs" / "base" / "seed_0", sweep / "runs" / "twin" / "seed_0"
    workdir.parent.mkdir()
    before = evaluate_run(origin, checkpoint="last")["metrics"]
    assert reuse(origin, workdir)
    assert result_of(workdir) == {**result_of(origin), "reused_from": "../../base/seed_0"}
    files = [path for path in (origin / "checkpoints").rglob("*") if path.is_file()]
    assert all(path.samefile(workdir / path.relative_to(origin)) for path in files)
    for path in sorted(origin.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert evaluate_run(workdir, checkpoint="last")["metrics"] == before


def test_a_run_with_links_is_not_reused(sweep, tmp_path):
    origin, workdir = sweep / "runs" / "base" / "seed_0", tmp_path / "twin"
    (origin / "predictions" / "link.txt").symlink_to("/etc/hostname")
    assert not reuse(origin, workdir)
    assert list(tmp_path.iterdir()) == [sweep]


def test_a_run_behind_a_link_is_not_found(sweep, tmp_path):
    (sweep / "runs" / "base").rename(tmp_path / "elsewhere")
    (sweep / "runs" / "base").symlink_to(tmp_path / "elsewhere")
    assert finished_runs([sweep]) == {}


def test_a_run_that_goes_meanwhile_leaves_nothing(sweep, tmp_path):
    assert not reuse(sweep / "runs" / "base" / "seed_7", tmp_path / "twin")
    assert list(tmp_path.iterdir()) == [sweep]
