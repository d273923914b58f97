"""Every experiment at scale smoke: every row trains, decodes and stands in a report."""

import concurrent.futures
import json
import subprocess
import sys
from pathlib import Path

from transformer_jax.cli import ROOT

FILES = sorted(path for path in (ROOT / "experiments").glob("*.py") if path.stem != "scales")


def test_all_experiments(tmp_path):
    """Two at a time, side by side, so that each reuses the runs that others have made."""
    assert len(FILES) >= 15

    def sweep(path: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "transformer_jax.cli", "sweep", str(path), "--scale=smoke", "--workers=1"]
        return subprocess.run([*command, f"--workdir={tmp_path / path.stem}"], capture_output=True, text=True)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(sweep, FILES))
    for path, process in zip(FILES, ended, strict=True):
        assert process.returncode == 0, process.stdout + process.stderr
        results = [json.loads(file.read_text()) for file in (tmp_path / path.stem).glob("runs/*/*/result.json")]
        rows = json.loads((tmp_path / path.stem / "sweep.json").read_text())["rows"]
        assert len(results) == len(rows)
        assert {result["status"] for result in results} == {"finished"}
        page = (tmp_path / path.stem / "report.html").read_text()
        assert [row for row in rows if row not in page] == []
