"""The reports under `docs/results` are those that this version writes from the runs beside them."""

import re

import pytest

from transformer_jax.cli import ROOT
from transformer_jax.report.analysis import analyse
from transformer_jax.report.formats import to_csv, to_markdown
from transformer_jax.report.read import read_sweep

RESULTS = ROOT / "docs" / "results"


@pytest.mark.parametrize("name", sorted(path.parent.name for path in RESULTS.glob("*/sweep.json")))
def test_report_is_that_of_its_runs(name):
    analysis = analyse(read_sweep(RESULTS / name))
    assert (RESULTS / name / "report.md").read_text() == to_markdown(analysis)
    assert (RESULTS / name / "report.csv").read_text() == to_csv(analysis)
    assert f"]({name}/report.md)" in (RESULTS / "README.md").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.py")), ids=lambda path: path.stem)
def test_an_answer_names_results_that_are_there(path):
    answer = path.read_text().partition("Answer:")[2].partition('"""')[0]
    for name in re.findall(r"`(?:docs/results/)?(\w+)`", answer):
        assert (RESULTS / name / "sweep.json").is_file()
