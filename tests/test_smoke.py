"""Every experiment at scale smoke: every row trains, decodes and stands in a report."""

import json

from transformer_jax import cli

FILES = sorted(path for path in (cli.ROOT / "experiments").glob("*.py") if path.stem != "scales")


def test_all_experiments(tmp_path, capsys):
    """One after the other, so that each takes over the runs that those before it have made."""
    assert len(FILES) >= 15
    for path in FILES:
        status = cli.main(["sweep", str(path), "--scale=smoke", f"--workdir={tmp_path / path.stem}"])
        assert status == 0, capsys.readouterr().out
        results = [json.loads(file.read_text()) for file in (tmp_path / path.stem).glob("runs/*/*/result.json")]
        rows = json.loads((tmp_path / path.stem / "sweep.json").read_text())["rows"]
        assert len(results) == len(rows)
        assert {result["status"] for result in results} == {"finished"}
        page = (tmp_path / path.stem / "report.html").read_text()
        assert [row for row in rows if row not in page] == []
