"""Every experiment at scale smoke: every row trains, decodes and stands in a report."""

import concurrent.futures
import json
import subprocess
import sys
from pathlib import Path

import pytest

from transformer_jax.cli import ROOT

FILES = sorted(path for path in (ROOT / "experiments").glob("*.py") if path.stem != "scales")
OF_EACH_KIND = ["averaging", "quickstart", "temperature"]
"""Rows of a model, rows that choose among checkpoints, another family."""


def test_an_experiment_of_each_kind(tmp_path):
    _sweep([ROOT / "experiments" / f"{name}.py" for name in OF_EACH_KIND], tmp_path)


@pytest.mark.long
def test_all_experiments(tmp_path):
    assert len(FILES) >= 15
    _sweep(FILES, tmp_path)


def _sweep(files: list[Path], folder: Path) -> None:
    """Two at a time, side by side, so that each reuses the runs that others have made."""

    def sweep(path: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "transformer_jax.cli", "sweep", str(path), "--scale=smoke", "--workers=1"]
        return subprocess.run([*command, f"--workdir={folder / path.stem}"], capture_output=True, text=True)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(sweep, files))
    for path, process in zip(files, ended, strict=True):
        assert process.returncode == 0, process.stdout + process.stderr
        results = [json.loads(file.read_text()) for file in (folder / path.stem).glob("runs/*/*/result.json")]
        rows = json.loads((folder / path.stem / "sweep.json").read_text())["rows"]
        assert len(results) == len(rows)
        assert {result["status"] for result in results} == {"finished"}
        page = (folder / path.stem / "report.html").read_text()
        assert [row for row in rows if row not in page] == []
