"""Several sweeps in one table: one correction over all of their distinct comparisons."""

import json
from pathlib import Path

import pytest
from scipy import stats
from sweep_files import make_row, make_sweep

from transformer_jax import cli
from transformer_jax.errors import UserError
from transformer_jax.report.family import read_family, to_markdown

BASE = [0.90, 0.92, 0.91, 0.93, 0.90]
ROWS = {
    "first": {"wide": [0.86, 0.89, 0.875, 0.885, 0.87], "deep": [0.902, 0.917, 0.913, 0.927, 0.904]},
    "second": {"deep": [0.902, 0.917, 0.913, 0.927, 0.904], "flat": [0.5, 0.61, 0.55, 0.52, 0.57]},
}


def make_family(directory: Path, **fields) -> list[Path]:
    """Two sweeps that share the base and one row."""
    return [
        make_sweep(
            directory / name, {"base": BASE, **rows}, rows={row: make_row(key=row) for row in ("base", *rows)}, **fields
        )
        for name, rows in ROWS.items()
    ]


def test_all_comparisons_are_corrected_together_and_shared_ones_count_once(tmp_path):
    members = read_family(make_family(tmp_path, margin=0.01))
    p = {row: stats.ttest_rel(values, BASE).pvalue for rows in ROWS.values() for row, values in rows.items()}
    assert sorted(p, key=p.__getitem__) == ["flat", "wide", "deep"]
    expected = {"flat": 3 * p["flat"], "wide": 2 * p["wide"], "deep": p["deep"]}
    assert [member.pair[0] for member in members] == ["wide", "deep", "deep", "flat"]
    assert [member.outcome.p for member in members] == pytest.approx([expected[m.pair[0]] for m in members])
    assert [member.outcome.finding for member in members] == ["worse", "equal", "equal", "worse"]
    text = to_markdown(members)
    assert text.startswith(
        "3 comparisons of 2 sweeps, corrected together: 2 worse, 1 equal within the margin.\n\n| Sweep | "
    )
    assert "| second | `flat` | `base` | −36.2 ± 5.4 points | 5 | < 0.001 |".replace("<", "&lt;") in text


def test_a_finding_that_the_family_takes_away_is_open(tmp_path):
    near = {"base": BASE, "near": [0.89, 0.918, 0.901, 0.915, 0.893]}
    others = {f"other_{k}": [value + 0.01 * (-1) ** seed for seed, value in enumerate(BASE)] for k in range(9)}
    directories = [make_sweep(tmp_path / "a", near), make_sweep(tmp_path / "b", {"base": BASE, **others})]
    assert read_family(directories[:1])[0].outcome.finding == "worse"
    assert read_family(directories)[0].outcome.finding == "open"


def test_a_family_may_not_be_larger_than_it_was_declared(tmp_path):
    with pytest.raises(UserError, match="make 3 comparisons, but were declared to be of a family of 2"):
        read_family(make_family(tmp_path / "small", family_size=2))
    ten = read_family(make_family(tmp_path / "large", family_size=10))
    assert ten[-1].outcome.p == pytest.approx(10 * stats.ttest_rel(ROWS["second"]["flat"], BASE).pvalue)


def test_the_command_prints_the_table(tmp_path, capsys):
    directories = list(map(str, make_family(tmp_path)))
    assert cli.main(["report", "--family", *directories]) == 0
    assert "corrected together" in capsys.readouterr().out
    assert cli.main(["report", *directories, "--family", "--json"]) == 0
    assert [line["row"] for line in json.loads(capsys.readouterr().out)["comparisons"]] == [
        "wide", "deep", "deep", "flat",
    ]  # fmt: skip
    assert not list(tmp_path.glob("*/report.*"))
    assert cli.main(["report", *directories]) == 2
    assert "--family for one table over several sweeps" in capsys.readouterr().err
