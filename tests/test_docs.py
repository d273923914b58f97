"""What was measured and is told under `docs/results` has the numbers that this version finds in the runs beside it."""

import csv
import io
import re

import pytest

from transformer_jax.cli import ROOT
from transformer_jax.report.analysis import analyse
from transformer_jax.report.family import read_family
from transformer_jax.report.family import to_markdown as to_markdown_of_family
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


FAMILY = re.compile(r"<!-- family: ([\w ]+) -->\n(.*?)\n<!-- end of family -->", re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/results/README.md"])
def test_a_table_over_several_sweeps_is_corrected_over_all_of_them(page):
    """`<!-- family: heads positions -->`, the table that `report --family` prints, `<!-- end of family -->`."""
    text = (ROOT / page).read_text()
    found = FAMILY.findall(text)
    assert len(found) == text.count("<!-- family:")
    for names, table in found:
        assert table == to_markdown_of_family(read_family([RESULTS / name for name in names.split()])).strip()


def test_one_table_over_several_sweeps_is_there():
    assert FAMILY.search((RESULTS / "README.md").read_text())


@pytest.mark.parametrize(
    "page",
    ["README.md", "docs/results/README.md", "docs/statistics.md", *(f"docs/results/{n}/report.md" for n in REPORTS)],
)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text()):
        assert link.startswith("https://") or (ROOT / page).parent.joinpath(link).exists(), link


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.py")), ids=lambda path: path.stem)
def test_an_answer_names_results_that_are_there(path):
    answer = path.read_text().partition("Answer:")[2].partition('"""')[0]
    for name in re.findall(r"`(?:docs/results/)?(\w+)`", answer):
        assert (RESULTS / name / "sweep.json").is_file()
