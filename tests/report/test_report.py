"""The report of synthetic sweeps on disk: what was measured is there, what was not is said, no file breaks it."""

import csv
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from scipy import stats
from sweep_files import VALUES, make_row, make_run, make_sweep

from transformer_jax.errors import UserError
from transformer_jax.report.comparison import all_pairs
from transformer_jax.report.read import read_sweep
from transformer_jax.report.write import Report, write_report


def verdict_of(report: Report, row: str) -> str:
    comparison = report.analysis.comparison(row)
    assert comparison is not None
    return comparison.verdict


def read_csv(directory: Path) -> dict[str, dict[str, str]]:
    with (directory / "report.csv").open(newline="") as file:
        return {line["row"]: line for line in csv.DictReader(file)}


class Page(HTMLParser):
    """Tags, links and ids of a page, and whether every tag is closed in order."""

    VOID = frozenset({"meta", "br", "wbr", "use", "path"})

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name == "href" and tag == "a"]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_report_says_what_was_measured(tmp_path):
    report = write_report(make_sweep(tmp_path))
    assert verdict_of(report, "no_wo") == "worse by 9.7 ± 1.4 points, p = 0.002, 3 seeds"
    assert verdict_of(report, "one_head") == (
        "open: 0.0 ± 4.3 points, p = 1.00, 3 seeds; if that is the truth, more than 10,000 seeds would be needed to "
        "settle it"
    )
    assert report.summary == "exact match (test), %: base 91.0 ± 1.0 (3 seeds); worse: no_wo (−9.7); open: one_head."
    assert report.analysis.notes == ()


def test_a_row_by_another_name_is_not_compared(tmp_path):
    """It would make Holm's correction of the others stricter."""
    keys = {"base": "a", "no_wo": "b", "one_head": "a"}
    rows = {name: make_row(key=key) for name, key in keys.items()}
    report = write_report(make_sweep(tmp_path, rows=rows))
    assert report.analysis.comparison("one_head") is None
    assert report.summary == "exact match (test), %: base 91.0 ± 1.0 (3 seeds); worse: no_wo (−9.7)."
    assert report.analysis.notes == ("At this scale one_head is base by another name.",)
    assert float(read_csv(tmp_path)["no_wo"]["p_corrected"]) == float(read_csv(tmp_path)["no_wo"]["p"])
    (line,) = [
        line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("| `one_head` | 1,000")
    ]
    assert "| is base |" in line


def test_the_csv_holds_numbers_as_stored(tmp_path):
    write_report(make_sweep(tmp_path))
    rows = read_csv(tmp_path)
    assert float(rows["no_wo"]["seed_1"]) == 0.83
    assert float(rows["no_wo"]["difference"]) == pytest.approx((0.80 + 0.83 + 0.81 - 0.90 - 0.92 - 0.91) / 3)
    assert float(rows["no_wo"]["p_corrected"]) == pytest.approx(2 * float(rows["no_wo"]["p"]))
    assert float(rows["base"]["mean_seconds"]) == 61.0
    assert rows["base"]["difference"] == ""


def test_every_format_names_every_row(tmp_path):
    report = write_report(make_sweep(tmp_path))
    assert set(report.files) == {"html", "md", "csv", "tex"}
    for ending, path in report.files.items():
        text = path.read_text(encoding="utf-8")
        for row in VALUES:
            assert (row.replace("_", r"\_") if ending == "tex" else row) in text
    assert list(tmp_path.glob(".report*")) == []


def test_lower_is_better_turns_the_verdict(tmp_path):
    report = write_report(make_sweep(tmp_path, higher_is_better=False))
    assert verdict_of(report, "no_wo").startswith("better by 9.7")


def test_only_seeds_finished_in_both_are_paired(tmp_path):
    make_sweep(tmp_path, {"base": [0.5, 0.9, 0.8, None], "row": [None, 0.7, 0.65, 0.1]})
    comparison = write_report(tmp_path).analysis.comparison("row")
    assert comparison.seeds == (1, 2)
    assert comparison.differences == pytest.approx((-0.2, -0.15))


def test_one_seed_allows_no_statement(tmp_path):
    report = write_report(make_sweep(tmp_path, {"base": [0.9], "row": [0.1]}))
    assert verdict_of(report, "row") == "one seed (−80.0 points): nothing can be said"
    assert report.analysis.comparison("row").finding == "untested"
    assert any("nothing can be said" in note for note in report.analysis.notes)


def test_a_sweep_without_runs_measured_nothing(tmp_path):
    report = write_report(make_sweep(tmp_path, {"base": [None, None], "row": [None, None]}))
    assert report.summary == "exact match (test), %: base not measured; not measured: row."
    assert read_csv(tmp_path)["row"]["mean"] == ""


def test_identical_differences_have_no_p(tmp_path):
    report = write_report(make_sweep(tmp_path, {"base": [0.9, 0.8], "down": [0.8, 0.7], "same": [0.9, 0.8]}))
    assert "without spread there is no t test" in verdict_of(report, "down")
    assert report.analysis.comparison("down").p is None
    assert verdict_of(report, "same") == "the same result with each of 2 seeds"


def test_a_finding_that_holm_takes_away_is_not_settled(tmp_path):
    others = {f"row_{i}": [0.90 + i / 1000, 0.93, 0.90 - i / 1000] for i in range(8)}
    report = write_report(make_sweep(tmp_path, {**VALUES, "near": [0.88, 0.91, 0.89], **others}))
    near = report.analysis.comparison("near")
    assert near.test.p <= 0.05 < near.p
    assert near.finding == "open"
    assert f"p = {near.test.p:.3f} alone but " in near.verdict
    assert near.verdict.count(" corrected, 3 seeds; if that is the truth, about ") == 1


EQUAL = {
    "base": [0.980, 0.982, 0.981, 0.979, 0.983],
    "same_again": [0.981, 0.983, 0.979, 0.980, 0.982],
    "little_worse": [0.976, 0.979, 0.977, 0.976, 0.979],
    "fails": [0.984, 0.21, 0.980, 0.983, 0.30],
}


def test_within_the_margin_rows_are_equal_and_what_is_neither_is_open(tmp_path):
    report = write_report(make_sweep(tmp_path, EQUAL, margin=0.01, failing=0.5))
    found = {c.row: c for c in report.analysis.comparisons}
    assert [c.finding for c in found.values()] == ["equal", "equal", "open"]
    p = [two_one_sided(EQUAL[row], EQUAL["base"], 0.01) for row in list(EQUAL)[1:]]
    assert [c.p_equal for c in found.values()] == pytest.approx(stepped_down(p))
    assert found["same_again"].verdict == (
        "equal within 1 point: 0.00 ± 0.18 points, p < 0.001, 5 seeds "
        "(none of 5 seeds failed, but a share of up to 52 % may)"
    )
    assert ", 5 seeds; a difference all the same, p < 0.001 (none of 5 seeds" in found["little_worse"].verdict
    assert found["fails"].verdict.endswith(" seeds would settle it (2 of 5 seeds did not learn the task)")
    assert ", of equality within 1 point p = 0.90, 5 seeds; if that is the truth, about " in found["fails"].verdict
    text = report.files["md"].read_text()
    assert "margin: 1 point; " in text
    assert "| `fails` | 2 of 5 | 40 | \\[5.3, 85.3\\] |" in text  # binom.test(2, 5) of R
    assert "| `base` | 0 of 5 | 0 | \\[0.0, 52.2\\] |" in text
    assert "| p of equality (corrected) |" in text


def two_one_sided(values, against, margin):
    differences = [a - b for a, b in zip(values, against, strict=True)]
    below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    return max(below, stats.ttest_1samp(differences, -margin, alternative="greater").pvalue)


def stepped_down(p):
    """Holm 1979."""
    order = sorted(range(len(p)), key=p.__getitem__)
    return [max(min(1, (len(p) - k) * p[j]) for k, j in enumerate(order[: order.index(i) + 1])) for i in range(len(p))]


def test_a_declared_test_is_the_one_that_is_made(tmp_path):
    report = write_report(make_sweep(tmp_path, EQUAL, test="welch"))
    comparison = report.analysis.comparison("little_worse")
    expected = stats.ttest_ind(EQUAL["little_worse"], EQUAL["base"], equal_var=False)
    assert (comparison.test.p, comparison.test.df) == pytest.approx((expected.pvalue, expected.df))
    assert comparison.correlation == pytest.approx(stats.pearsonr(EQUAL["little_worse"], EQUAL["base"]).statistic)
    assert "test: Welch's t test; " in report.files["md"].read_text()
    assert "p: Welch's t test, corrected" in report.files["tex"].read_text()


def test_a_family_of_more_comparisons_corrects_more(tmp_path):
    alone = write_report(make_sweep(tmp_path / "a", EQUAL)).analysis
    report = write_report(make_sweep(tmp_path / "b", EQUAL, family="small", family_size=9))
    smallest = min(range(3), key=lambda i: alone.comparisons[i].p)
    assert alone.comparisons[smallest].p == pytest.approx(3 * alone.comparisons[smallest].test.p)
    corrected = report.analysis.comparisons[smallest]
    assert corrected.p == pytest.approx(9 * corrected.test.p)
    assert "family: small, at most 9 comparisons; " in report.files["md"].read_text()


def test_nll_stands_beside_the_metric_without_a_verdict(tmp_path):
    sweep = make_sweep(tmp_path)
    for row, values in {"base": [1.0, 1.2, 1.1], "no_wo": [1.5, 1.8, 1.55]}.items():
        for seed, nll in enumerate(values):
            metrics = {"test": {"nll": nll, "exact_match": VALUES[row][seed]}}
            make_run(sweep / "runs" / row / f"seed_{seed}", seed, 0.0, metrics=metrics)
    report = write_report(sweep)
    beside = report.analysis.comparison("no_wo").beside
    interval = stats.ttest_rel([1.5, 1.8, 1.55], [1.0, 1.2, 1.1]).confidence_interval(0.95)
    assert (beside.interval.low, beside.interval.high) == pytest.approx((interval.low, interval.high))
    for ending in ("md", "html", "tex"):
        assert "nll (test)" in report.files[ending].read_text()
    assert "| 1.10 ± 0.10 | - |" in report.files["md"].read_text()
    assert float(read_csv(tmp_path)["no_wo"]["exploratory_difference"]) == pytest.approx(beside.mean)
    assert read_csv(tmp_path)["no_wo"]["exploratory_metric"] == "test/nll"
    alone = write_report(make_sweep(tmp_path / "nll", metric="test/nll", higher_is_better=False, percent=False))
    assert alone.analysis.beside is None


def test_a_row_of_another_size_says_so_in_its_verdict(tmp_path):
    rows = {name: make_row(parameters=size) for name, size in {"base": 1000, "no_wo": 793, "one_head": 1009}.items()}
    report = write_report(make_sweep(tmp_path, rows=rows))
    assert verdict_of(report, "no_wo").endswith("3 seeds (with 20.7 % fewer parameters)")
    assert "parameters" not in verdict_of(report, "one_head")


def test_more_seeds_bring_the_tests_that_assume_less(tmp_path):
    base = [0.90 + 0.01 * (i % 4) for i in range(10)]
    lower = [value - 0.02 - 0.001 * i for i, value in enumerate(base)]
    report = write_report(make_sweep(tmp_path, {"base": base, "row": lower}))
    comparison = report.analysis.comparison("row")
    assert comparison.sign_flip.p == pytest.approx(2 / 1024)
    assert comparison.bootstrap.high < -0.02
    text = (tmp_path / "report.md").read_text()
    assert "smallest possible" in text
    assert "bootstrap interval" in text


def test_partners_are_compared_with_what_is_left_of_the_size(tmp_path):
    rows = {
        "base": make_row(),
        "deep": make_row({"model.ffn_depth": 3}, parameters=1500, partner="wide"),
        "wide": make_row({"model.d_ff": 7}, parameters=1501),
    }
    values = {"base": [0.5, 0.6, 0.5], "deep": [0.8, 0.83, 0.8], "wide": [0.81, 0.82, 0.80]}
    report = write_report(make_sweep(tmp_path, values, rows=rows))
    (partner,) = report.analysis.partners
    assert (partner.row, partner.against, partner.finding) == ("deep", "wide", "open")
    assert report.analysis.comparison("deep").finding == "better"
    assert "−1 (−0.0666 %)" in (tmp_path / "report.md").read_text()


def test_one_comparison_has_one_verdict_in_the_whole_report(tmp_path):
    """A partner may be the base, and all comparisons are one family for Holm."""
    rows = {
        "base": make_row(),
        "no_wo": make_row(partner="base", key="x"),
        "one_head": make_row(partner="no_wo"),
        "no_wo_again": make_row(key="x"),
    }
    values = {**VALUES, "no_wo_again": VALUES["no_wo"]}
    analysis = write_report(make_sweep(tmp_path, values, rows=rows)).analysis
    assert (tmp_path / "report.md").read_text().count("| `no_wo` | `base` | 3 |") == 1
    (to_base, to_no_wo) = analysis.partners
    assert to_base == analysis.comparison("no_wo")
    assert (to_no_wo.row, to_no_wo.against) == ("one_head", "no_wo")
    assert analysis.comparison("no_wo_again") is None
    assert min(c.p / c.test.p for c in (*analysis.comparisons, to_no_wo)) == pytest.approx(1)
    assert max(c.p / c.test.p for c in (*analysis.comparisons, to_no_wo)) == pytest.approx(3)


def test_rows_at_their_own_learning_rate_stand_beside_the_base_at_its_own(tmp_path):
    no_wo, rate = {"model.attention.output_projection": "none"}, "optimizer.learning_rate"
    values = {
        "base": [0.90, 0.92, 0.91], "no_wo": [0.50, 0.60, 0.40],
        "base.own": [0.90, 0.92, 0.91], "no_wo.own": [0.80, 0.83, 0.81],
    }  # fmt: skip
    rows = {
        "base": make_row(), "no_wo": make_row(no_wo),
        "base.own": make_row({rate: 0.003}, own_of="base"),
        "no_wo.own": make_row({**no_wo, rate: 0.006}, own_of="no_wo", partner="base.own"),
    }  # fmt: skip
    report = write_report(make_sweep(tmp_path, values, rows=rows))
    assert all_pairs(report.analysis.sweep) == [("no_wo", "base"), ("no_wo.own", "base.own")]
    assert report.analysis.partners == ()
    page = report.files["md"].read_text()
    assert "## Each row at its own learning rate" in page
    assert f"| `no_wo` | `{rate} = 0.006` | 50.0 ± 10.0 | 81.3 ± 1.5 | \N{MINUS SIGN}9.7 |" in page
    assert "Each row at its own learning rate" in report.files["html"].read_text()
    assert json.loads(json.dumps(report.as_dict()))["own"][0]["row"] == "no_wo.own"
    rows["no_wo.own"]["own_of"] = "gone"
    make_sweep(tmp_path, values, rows=rows)
    with pytest.raises(UserError, match="'gone' is named"):
        read_sweep(tmp_path)


def test_every_report_says_what_it_is_of(tmp_path):
    files = write_report(make_sweep(tmp_path)).files
    facts = "metric: exact match (test), %, higher is better; test: paired t test; median correlation of a row and the "
    facts += "base over seeds: 0.24; rows: 3; seeds: 0, 1, 2; config: configs/scan.py; scale:"
    assert facts in files["md"].read_text()
    assert "scale smoke, 3 seeds" in files["tex"].read_text()


def test_the_papers_numbers_stand_beside_ours_only_if_there_are_any(tmp_path):
    assert "paper" not in write_report(make_sweep(tmp_path)).files["md"].read_text()
    rows = {"base": make_row(paper={"bleu": 25.8}), "no_wo": make_row(), "one_head": make_row(paper={"bleu": 24.9})}
    text = write_report(make_sweep(tmp_path, rows=rows)).files["md"].read_text()
    assert "BLEU (paper)" in text
    assert "24.9" in text
    assert "PPL (paper)" not in text


def test_runs_that_did_not_finish_are_named(tmp_path):
    make_sweep(tmp_path, {"base": [0.9, 0.8, 0.7, 0.8], "row": [0.9, 0.9, 0.9, None]})
    runs = tmp_path / "runs" / "row"
    (runs / "seed_0" / "result.json").unlink()
    (runs / "seed_0" / "error.json").write_text('{"type": "OutOfMemory", "message": "too big"}')
    (runs / "seed_1" / "result.json").unlink()
    make_run(runs / "seed_2", 2, 0.1, status="diverged")
    report = write_report(tmp_path)
    status = report.as_dict()["rows"]["row"]["status"]
    assert status == {"0": "failed", "1": "running", "2": "diverged", "3": "missing"}
    assert report.analysis.comparison("row").finding == "unmeasured"
    assert verdict_of(report, "row").endswith("(1 of 4 diverged, 1 of 4 failed)")
    for ending in ("html", "md"):
        assert "OutOfMemory: too big" in report.files[ending].read_text()


def test_skipped_steps_are_in_the_verdict_the_notes_and_the_report(tmp_path):
    sweep = make_sweep(tmp_path)
    runs = sweep / "runs"
    make_run(runs / "base" / "seed_0", 0, 0.90, skipped=3)
    make_run(runs / "no_wo" / "seed_1", 1, 0.83, skipped=5)
    make_run(runs / "one_head" / "seed_2", 2, 0.92, skipped=100, status="diverged", metrics={})
    report = write_report(sweep)
    assert verdict_of(report, "no_wo").endswith("3 seeds (5 of 300 steps skipped)")
    assert verdict_of(report, "one_head").endswith(" (1 of 3 diverged)")
    note = "Steps that were not finite were left out: base 3 of 300 steps skipped, no_wo 5 of 300 steps skipped, "
    assert f"{note}one_head 100 of 300 steps skipped." in report.analysis.notes
    assert "| diverged | 100 of 100 steps skipped |" in report.files["md"].read_text()
    assert report.as_dict()["rows"]["no_wo"]["skipped"] == {"0": 0, "1": 5, "2": 0}


@pytest.mark.parametrize("skipped", [True, "9", -3, 0, 1.5, None, 10**40])
def test_what_is_no_number_of_skipped_steps_is_none(tmp_path, skipped):
    sweep = make_sweep(tmp_path)
    make_run(sweep / "runs" / "no_wo" / "seed_1", 1, 0.83, skipped=skipped)
    assert "skipped" not in verdict_of(write_report(sweep), "no_wo")


def test_a_run_that_finished_after_an_error_counts(tmp_path):
    make_sweep(tmp_path)
    (tmp_path / "runs/base/seed_0/error.json").write_text('{"message": "first try"}')
    assert write_report(tmp_path).analysis.summaries["base"].n == 3


@pytest.mark.parametrize("text", ['{"status": "fini', "[]", "\x00", '{"status": "odd"}', "[" * 100_000])
def test_a_damaged_result_is_shown_as_unreadable(tmp_path, text):
    make_sweep(tmp_path)
    (tmp_path / "runs/no_wo/seed_1/result.json").write_text(text)
    report = write_report(tmp_path)
    assert report.as_dict()["rows"]["no_wo"]["status"]["1"] == "unreadable"
    assert report.analysis.comparison("no_wo").seeds == (0, 2)
    assert "result.json: " in report.files["html"].read_text()


def test_a_damaged_line_costs_that_line_alone(tmp_path):
    make_sweep(tmp_path)
    metrics = tmp_path / "runs/base/seed_0/metrics.jsonl"
    metrics.write_text(
        '{"step": 1, "split": "valid", "nll": 3.0}\n{"step"\n{"step": 3, "split": "valid", "nll": 1.0}\n'
    )
    (run,) = [r for r in write_report(tmp_path).analysis.sweep.runs_of("base") if r.seed == 0]
    assert run.curves == {"nll": {1: 3.0, 3: 1.0}}
    assert (run.status, run.message) == ("finished", "metrics.jsonl: unreadable lines left out: 2")


@pytest.mark.parametrize("step", [10**400, -1, 1.5, "3", True, None, [1]], ids=lambda step: repr(step)[:9])
def test_a_line_whose_step_is_none_is_damaged(tmp_path, step):
    make_sweep(tmp_path)
    lines = [{"step": step, "split": "valid", "nll": 1.0}, {"step": 2, "split": "valid", "nll": 2.0}]
    (tmp_path / "runs/base/seed_0/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = write_report(tmp_path).analysis.sweep.runs[0]
    assert (run.curves, run.message) == ({"nll": {2: 2.0}}, "metrics.jsonl: unreadable lines left out: 1")


@pytest.mark.parametrize("parameters", [10**400, -1, True, "9", 1.5], ids=lambda count: repr(count)[:9])
def test_what_is_no_number_of_parameters_is_not_shown(tmp_path, parameters):
    make_sweep(tmp_path, rows={name: make_row(parameters=parameters) for name in VALUES})
    write_report(tmp_path)
    assert read_csv(tmp_path)["base"]["parameters"] == ""


def test_a_metric_that_is_no_number_was_not_measured(tmp_path):
    make_sweep(tmp_path)
    make_run(tmp_path / "runs/base/seed_1", 1, float("nan"))
    report = write_report(tmp_path)
    assert report.analysis.summaries["base"].n == 2
    assert "finished without test/exact_match" in report.files["md"].read_text()


def test_runs_of_another_commit_or_device_are_noted(tmp_path):
    make_sweep(tmp_path)
    make_run(tmp_path / "runs/base/seed_1", 1, 0.92, commit="fff000", executed={"device_kind": "H200"})
    notes = " ".join(write_report(tmp_path).analysis.notes)
    assert "commit: abc123 (8 runs), fff000 (1 run)" in notes
    assert "device: cpu (8 runs), H200 (1 run)" in notes


HOSTILE = "</svg></td>\n\n<script>alert(1)</script>|$\\frac{$'\"&"


def test_nothing_on_disk_becomes_markup(tmp_path):
    hostile = HOSTILE.replace("/", "\N{DIVISION SLASH}")  # a row is a directory
    rows = {
        "base": make_row(),
        hostile: make_row({HOSTILE: HOSTILE}, partner="base", note=HOSTILE),
    }
    make_sweep(tmp_path, {"base": [0.9, 0.8], hostile: [0.8, 0.9]}, rows=rows, name=HOSTILE, question=HOSTILE)
    error = tmp_path / "runs" / hostile / "seed_1"
    (error / "result.json").unlink()
    (error / "error.json").write_text(json.dumps({"type": HOSTILE, "message": HOSTILE}))
    files = write_report(tmp_path).files
    page = Page(files["html"].read_text())
    assert "script" not in page.tags
    assert page.open == []
    assert "<script" not in re.sub("`[^`\n]+`", "", files["md"].read_text())
    assert r"\textbackslash{}frac\{\$" in files["tex"].read_text()


def test_the_page_stands_alone_and_links_to_the_runs(tmp_path):
    text = write_report(make_sweep(tmp_path)).files["html"].read_text()
    page = Page(text)
    assert page.open == []
    assert page.tags.count("svg") == 3  # differences, nll, exact match
    assert len(page.ids) == len(set(page.ids)) > 20
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "url(http" not in text
    assert len(page.links) == 9
    assert all((tmp_path / link).is_dir() for link in page.links)


def test_pictures_take_their_colours_from_the_page(tmp_path):
    text = write_report(make_sweep(tmp_path)).files["html"].read_text()
    style = text[text.index("<style>") : text.index("</style>")]
    pictures = [part[: part.index("</svg>")] for part in text.split("<svg")[1:]]
    for picture in pictures:
        ElementTree.fromstring("<svg" + picture + "</svg>")
        assert "var(--ink)" in picture
        assert "#0a0b" not in picture
        assert "fill: #ffffff" not in picture
    for name in ("ink", "grid", "better", "worse", "series-1", "series-7"):
        assert style.count(f"--{name}:") == 2  # light and dark


def test_many_rows_are_drawn_in_panels(tmp_path):
    values = {"base": [0.9, 0.8]} | {f"row_{i}": [0.8, 0.75] for i in range(12)}
    text = write_report(make_sweep(tmp_path, values)).files["html"].read_text()
    assert text.count(">row_7</text>") == 3  # the forest, and its panel in both curve figures


def test_the_same_results_give_the_same_bytes(tmp_path):
    first = {ending: path.read_bytes() for ending, path in write_report(make_sweep(tmp_path)).files.items()}
    assert first == {ending: path.read_bytes() for ending, path in write_report(tmp_path).files.items()}


@pytest.mark.parametrize("ending", ["md", "tex"])
def test_a_small_report_byte_for_byte(tmp_path, ending):
    """Where a change of the report is meant: copy the new one to `golden`, and look at the difference."""
    values = {"base": [0.90, 0.92, 0.91, None], "no_wo": [0.80, 0.83, 0.81, 0.82], "wide": [0.91, 0.90, 0.92, 0.9]}
    rows = {
        "base": make_row(paper={"bleu": 25.8}),
        "no_wo": make_row({"model.attention.output_projection": "none"}, parameters=900, note="W_O is gone"),
        "wide": make_row({"model.d_ff": 64}, parameters=1001, partner="base"),
    }
    files = write_report(make_sweep(tmp_path / "tiny", values, rows=rows)).files
    assert files[ending].read_text() == (Path(__file__).parent / "golden" / f"report.{ending}").read_text()


def test_as_dict_is_strict_json(tmp_path):
    data = json.loads(json.dumps(write_report(make_sweep(tmp_path)).as_dict(), allow_nan=False))
    assert data["rows"]["base"]["values"] == {"0": 0.9, "1": 0.92, "2": 0.91}
    assert data["comparisons"][0]["finding"] == "worse"


def test_a_single_run_has_a_report(tmp_path):
    make_run(tmp_path / "run", 3, 0.75)
    report = write_report(tmp_path / "run")
    assert report.summary == "exact match (test), %: run 75.0 (1 seed)."
    assert Page(report.files["html"].read_text()).tags.count("svg") == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 3}, "schema is 3, but this version reads 1 and 2"),
        ({"test": "anova"}, "test is 'anova'"),
        ({"margin": -1}, "margin is -1"),
        ({"margin": True}, "margin is True"),
        ({"failing": "x"}, "failing is 'x'"),
        ({"family_size": -1}, "family_size is -1"),
        ({"rounds": [5, 5]}, r"rounds is \[5, 5\]"),
        ({"rows": {"base": make_row(seeds=-1)}}, r"rows\.base\.seeds is -1"),
        ({"rows": [1]}, "rows must be of type dict"),
        ({"base": "gone"}, "'gone' is named as base or partner"),
        ({"seeds": ["0"]}, "seeds must be whole numbers"),
        ({"rows": {"../x": make_row()}, "base": "../x"}, "no plain directory name"),
        ({"metric": None}, "metric must be of type str"),
    ],
)
def test_a_damaged_sweep_is_refused_with_the_field(tmp_path, change, message):
    make_sweep(tmp_path, **change)
    with pytest.raises(UserError, match=message):
        write_report(tmp_path)
    assert list(tmp_path.glob("report.*")) == []


def test_a_directory_that_is_no_sweep_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"neither sweep.json nor config.json"):
        write_report(tmp_path)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(UserError, match=r"sweep.json: .*no valid JSON"):
        write_report(tmp_path)
