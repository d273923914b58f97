"""What was measured and is told under `docs/results` has the numbers that this version finds in the runs beside it."""

import csv
import io
import re

import pytest

from transformer_jax.cli import ROOT
from transformer_jax.report.analysis import analyse
from transformer_jax.report.formats import to_csv, to_markdown
from transformer_jax.report.packed import is_packed
from transformer_jax.report.read import read_sweep

RESULTS = ROOT / "docs" / "results"
REPORTS = sorted(path.parent.name for path in RESULTS.glob("*/sweep.json"))


def numbers_of(text: str) -> list[float]:
    """Every number that stands by itself, in order."""
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text.replace("\N{MINUS SIGN}", "-"))
    return [float(number) for number in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?\b", text)]


def numbers_of_csv(text: str) -> list[float]:
    """Every cell that holds a number, row by row."""
    cells = [cell for line in csv.reader(io.StringIO(text)) for cell in line]
    return [float(cell) for cell in cells if re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell)]


def test_the_numbers_of_a_text_are_found():
    assert numbers_of("`d_k_8` | 59,360 | \N{MINUS SIGN}11.8 | [+0.5, 7], p &lt; 0.001") == [
        59360,
        -11.8,
        0.5,
        7,
        0.001,
    ]
    assert numbers_of_csv('d_k_8,59360,-0.118,,1e-06,"worse, 3 seeds"\n') == [59360, -0.118, 1e-6]


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_has_the_numbers_of_its_runs(name):
    assert is_packed(RESULTS / name)
    analysis = analyse(read_sweep(RESULTS / name))
    assert not analysis.sweep.problems
    assert numbers_of((RESULTS / name / "report.md").read_text()) == numbers_of(to_markdown(analysis))
    table = numbers_of_csv((RESULTS / name / "report.csv").read_text())
    assert table == pytest.approx(numbers_of_csv(to_csv(analysis)), rel=1e-9)
    assert len(table) > 3
    assert f"]({name}/report.md)" in (RESULTS / "README.md").read_text()


@pytest.mark.parametrize(
    "page", ["README.md", "docs/results/README.md", *(f"docs/results/{n}/report.md" for n in REPORTS)]
)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text()):
        assert link.startswith("https://") or (ROOT / page).parent.joinpath(link).exists(), link


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.py")), ids=lambda path: path.stem)
def test_an_answer_names_results_that_are_there(path):
    answer = path.read_text().partition("Answer:")[2].partition('"""')[0]
    for name in re.findall(r"`(?:docs/results/)?(\w+)`", answer):
        assert (RESULTS / name / "sweep.json").is_file()
