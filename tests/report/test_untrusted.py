"""The report of a sweep that somebody else made: whatever its files say, it is text, and whatever they are, it ends."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from sweep_files import make_sweep

from transformer_jax import cli
from transformer_jax.errors import UserError
from transformer_jax.report import page
from transformer_jax.report.read import read_sweep
from transformer_jax.report.write import pack_report, write_report
from transformer_jax.sweeps.runner import sweep_status

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

# Each would run if it became markup, and says so in the page; none holds a slash, so that it can name a directory.
RUN = "document.documentElement.dataset.ran=1"
NAME = rf"""'"><img src=x onerror={RUN}><svg onload={RUN}>]]>--> ' autofocus onfocus='{RUN}' `\|<b>`*_\1\g<0>$style{{{{7*7}}}}{{%include 'page.css'%}}"""  # noqa: E501
TEXT = rf"""{NAME}</style></title></text></svg></td></a><script>{RUN}</script>\n\n# </p>${{title}}{{0}}%s&lt;b&gt; [a](javascript:{RUN}) %\end{{table}}\write18{{x}} javascript:{RUN}"""  # noqa: E501


class Marks:
    """Hostile texts, each with a number by which it is found again."""

    def __init__(self) -> None:
        self.where: dict[str, str] = {}

    def name(self, where: str) -> str:
        return self._mark(where, NAME)

    def text(self, where: str) -> str:
        return self._mark(where, TEXT)

    def _mark(self, where: str, content: str) -> str:
        mark = f"mark{len(self.where)}x"
        self.where[mark] = where
        return f"{mark}{content}"

    def missing(self, text: str) -> set[str]:
        """Where the texts come from that are not in `text`."""
        return {where for mark, where in self.where.items() if mark not in text}


def make_hostile_sweep(directory: Path) -> Marks:
    """Every text of every file that the report reads carries markup, names of fields among them."""
    marks = Marks()
    base, other, broken = (marks.name(f"row {number}") for number in range(3))
    split, metric, field = marks.name("split"), marks.text("metric"), marks.text("curve")

    def row(name: str, **fields: Any) -> dict:
        texts = {kind: marks.text(f"{name} {kind}") for kind in ("override", "value", "note")}
        overrides = {texts["override"]: texts["value"], marks.text(f"{name} list"): [marks.text(f"{name} in a list")]}
        paper = {"bleu": marks.text("paper"), marks.text("paper key"): 1}
        return {"overrides": overrides, "parameters": 1000, "note": texts["note"], "paper": paper, **fields}

    rows = {base: row("base", partner=None, key="a"), other: row("other", partner=base, key=marks.text("key"))}
    rows[broken] = row("broken", partner=None, key="c")
    sweep = {
        "schema": 1, "base": base, "rows": rows, "seeds": [0, 1], "metric": f"{split}/{metric}", "curve": f"x/{field}",
        "higher_is_better": True, "percent": False,
        **{name: marks.text(name) for name in ("name", "question", "hypothesis", "scale", "config", "commit")},
        marks.text("field of sweep.json"): marks.text("unknown field of sweep.json"),
    }  # fmt: skip
    for number, name in enumerate((base, other)):
        for seed in (0, 1):
            make_hostile_run(directory / "runs" / name / f"seed_{seed}", split, metric, field, number + seed, marks)
    for seed, (file, content) in enumerate(
        [
            ("result.json", {"status": marks.text("status")}),
            ("error.json", {"type": marks.text("error type"), "message": marks.text("error message")}),
        ]
    ):
        (directory / "runs" / broken / f"seed_{seed}").mkdir(parents=True)
        (directory / "runs" / broken / f"seed_{seed}" / file).write_text(json.dumps(content))
    (directory / "sweep.json").write_text(json.dumps(sweep))
    return marks


def make_hostile_run(directory: Path, split: str, metric: str, field: str, value: float, marks: Marks) -> None:
    directory.mkdir(parents=True)
    named = {marks.text("other metric"): 0.5, marks.text("metric that is text"): marks.text("text for a metric")}
    scores = {split: {metric: value}, "test": {**named, metric: value}}
    executed = {marks.text("name in executed"): marks.text("executed"), "jax": marks.text("version")}
    result = {
        "status": "finished", "seed": 0, "metrics": scores, "executed": executed, "commit": marks.text("run's commit"),
        "seconds": {"total": marks.text("seconds")}, "parameters": marks.text("parameters"),
    }  # fmt: skip
    (directory / "result.json").write_text(json.dumps(result))
    (directory / "config.json").write_text(json.dumps({marks.text("config key"): marks.text("config value")}))
    lines = [{"step": step, "split": "valid", field: value + step, metric: value} for step in (1, 2)]
    lines.append({"step": 3, "split": marks.text("split of a line"), marks.text("name in a line"): 1})
    damaged = f"{marks.text('damaged line')}\n"
    (directory / "metrics.jsonl").write_text(damaged + "".join(json.dumps(line) + "\n" for line in lines))


NOT_SHOWN = (
    r"base note|paper|key|unknown|field of|config key|config value|line|seconds|parameters|that is text|for a metric"
)
# What markup the page has of its own: no element that runs, loads or sends anything, no attribute with code.
ATTRIBUTES = {
    "aria-label", "charset", "class", "clip-path", "content", "d", "height", "href", "id", "lang", "name", "role",
    "scope", "style", "transform", "type", "version", "viewbox", "width", "x", "xlink:href", "xmlns", "xmlns:xlink",
    "y",
}  # fmt: skip
TAGS = {
    "a", "b", "body", "br", "clippath", "code", "dd", "defs", "div", "dl", "dt", "figcaption", "figure", "g", "h1",
    "h2", "head", "header", "html", "li", "main", "meta", "p", "path", "rect", "section", "small", "span", "style",
    "svg", "table", "tbody", "td", "text", "th", "thead", "title", "tr", "ul", "use", "wbr",
}  # fmt: skip


class Page(HTMLParser):
    """What a browser would make of a page: its elements with their attributes, and its text."""

    def __init__(self, path: Path):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_harmless(path: Path) -> None:
    """Only what the page writes itself is markup in it."""
    found = Page(path)
    assert {tag for tag, _ in found.elements} <= TAGS
    assert {name for _, attributes in found.elements for name in attributes} <= ATTRIBUTES
    for tag, attributes in found.elements:
        assert re.fullmatch(r"figure-\d-[A-Za-z0-9_.]+", attributes.get("id") or "figure-1-x")
        assert re.fullmatch(r"[a-z -]*", attributes.get("class") or "")
        assert re.fullmatch(r"#figure-\d-[A-Za-z0-9_.]+", attributes.get("xlink:href") or "#figure-1-x")
        assert tag != "a" or (attributes["href"] or "").startswith(("runs/", "."))
        assert tag != "meta" or "http-equiv" not in attributes
        assert "mark" not in (attributes.get("style") or "")


def runs_something(path: Path, profile: Path) -> bool:
    """Whether a script of the page runs in a real browser."""
    assert BROWSER is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--virtual-time-budget=2000"]
    command = [BROWSER, *options, f"--user-data-dir={profile}", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (html,) = re.findall("<html[^>]*>", done.stdout)
    assert done.stdout.rstrip().endswith("</html>")
    return "data-ran" in html


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> tuple[Path, Marks]:
    """The directory of a hostile sweep, with its report."""
    directory = tmp_path_factory.mktemp("sweep")
    marks = make_hostile_sweep(directory)
    write_report(directory)
    return directory, marks


def test_all_texts_reach_the_page_and_none_becomes_markup(hostile):
    directory, marks = hostile
    shown = Page(directory / "report.html")
    assert_harmless(directory / "report.html")
    assert {where for where in marks.missing(shown.text) if not re.search(f"{NOT_SHOWN}|base ", where)} == set()
    assert NAME[:40] in shown.text
    assert "{{7*7}}{%include 'page.css'%}" in shown.text


def test_a_packed_sweep_is_not_trusted_more(hostile, tmp_path):
    directory, _ = hostile
    pack_report(directory, tmp_path / "packed")
    assert write_report(tmp_path / "packed").analysis.as_dict() == write_report(directory).analysis.as_dict()
    assert_harmless(tmp_path / "packed" / "report.html")
    assert "{{7*7}}" in Page(tmp_path / "packed" / "report.html").text


def test_a_browser_runs_nothing_of_the_page(hostile, tmp_path, monkeypatch):
    if BROWSER is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    directory, _ = hostile
    assert not runs_something(directory / "report.html", tmp_path / "profile")
    monkeypatch.setattr(page, "TEMPLATES", page.TEMPLATES.overlay(autoescape=False))
    copy = Path(shutil.copytree(directory, tmp_path / "copy"))
    write_report(copy)
    assert runs_something(copy / "report.html", tmp_path / "profile")  # the texts are what they should be


def test_a_run_in_a_directory_with_a_hostile_name(tmp_path):
    marks = Marks()
    run = tmp_path / marks.name("directory")
    make_hostile_run(run, "valid", "nll", "nll", 0.5, marks)
    write_report(run)
    assert_harmless(run / "report.html")
    assert "directory" not in marks.missing(Page(run / "report.html").text)


def test_markdown_shows_the_texts_as_they_are(hostile):
    """Outside of code no sign is left that begins an element, a link or another cell; nothing ends the code early."""
    directory, marks = hostile
    text = (directory / "report.md").read_text()
    assert {where for where in marks.missing(text) if not re.search(NOT_SHOWN, where)} == {"curve"}
    for line in text.splitlines():
        plain = re.sub(r"\\[^\w\s]", "", line)  # escaped signs
        assert plain.count("`") % 2 == 0
        outside = re.sub(r"`[^`]*`|<br>|\*\*(Question|Hypothesis)\.\*\*", "", plain)
        assert not re.search(r"[<>*]|&(?!amp;|lt;|gt;)|\[[^\]]*\]\((?!runs/)", outside)
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) >= 4
    for table in tables:
        lines = table.splitlines()
        assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {lines[0].count(" | ") + 2}


def test_latex_shows_the_texts_as_they_are(hostile):
    text = (hostile[0] / "report.tex").read_text()
    assert r"\textbackslash{}1\textbackslash{}g\textless{}0\textgreater{}" in text
    own = {"usepackage", "begin", "centering", "caption", "label", "toprule", "midrule", "bottomrule", "end", "pm"}
    own |= {"textbackslash", "textasciicircum", "textasciitilde", "textless", "textgreater", "texttt", "Delta", ""}
    assert set(re.findall(r"\\([A-Za-z]*)", text)) <= own
    assert re.findall(r"\\end\{(\w+)\}", text) == ["tabular", "table"]
    assert not re.search(r"(?<!\\)[_#^~]", text)
    unescaped = re.sub(r"\\.", "", text)
    assert unescaped.count("{") == unescaped.count("}")
    assert text.count("%") - text.count(r"\%") == 1  # of the first line


def test_a_spreadsheet_is_given_no_formula(tmp_path):
    rows = {
        name: {"overrides": {"=a": "+b"}, "note": "", "partner": None} for name in ("=1+2", "-x", "@y", "\t=z", "1")
    }
    sweep = {
        "schema": 1, "name": "=n", "base": "1", "rows": rows, "seeds": [0], "metric": "=HYPERLINK(1)/x",
        "higher_is_better": True, "percent": False,
    }  # fmt: skip
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    write_report(tmp_path)
    with (tmp_path / "report.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert {len(line) for line in lines} == {len(lines[0])}
    assert [line[0] for line in lines[1:]] == ["'=1+2", "'-x", "'@y", "'\t=z", "1"]
    assert not [cell for line in lines[1:] for cell in line if cell.strip().startswith(("=", "+", "-", "@"))]


def test_signs_that_steer_a_terminal_are_not_passed_on(tmp_path, capsys):
    escape = "\x1b]0;x\x07\x1b[2J\x9b2J\r\x00"
    rows = {"base": {"overrides": {}, "note": escape}, "a": {"overrides": {escape: escape}, "note": escape}}
    sweep = {
        "schema": 1, "name": escape, "base": "base", "rows": rows, "seeds": [0], "metric": f"test/{escape}",
        "higher_is_better": True, "percent": False,
    }  # fmt: skip
    (tmp_path / "runs/a/seed_0").mkdir(parents=True)
    (tmp_path / "runs/a/seed_0/error.json").write_text(json.dumps({"type": escape, "message": escape}))
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    assert cli.main(["report", str(tmp_path)]) == 0
    said = "".join(run["row"] + run["message"] for run in sweep_status(tmp_path))  # what --status prints
    written = capsys.readouterr().out + said + "".join(path.read_text() for path in tmp_path.glob("report.*"))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", written)
    assert "\N{REPLACEMENT CHARACTER}" in written


# --- Files that are none ---


@pytest.fixture
def in_time() -> Iterator[None]:
    """Whatever waits longer than seconds would wait for ever."""

    def wake(number: int, frame: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, wake)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def make_plain_sweep(directory: Path) -> Path:
    rows = {name: {"overrides": {}, "note": "", "partner": None} for name in ("base", "other")}
    sweep = {
        "schema": 1, "name": "plain", "base": "base", "rows": rows, "seeds": [0, 1], "metric": "test/nll",
        "higher_is_better": False, "percent": False, "curve": "valid/nll",
    }  # fmt: skip
    for name in rows:
        for seed in (0, 1):
            run = directory / "runs" / name / f"seed_{seed}"
            run.mkdir(parents=True)
            (run / "result.json").write_text(json.dumps({"status": "finished", "metrics": {"test": {"nll": seed}}}))
            (run / "metrics.jsonl").write_text('{"step": 1, "split": "valid", "nll": 2.0}\n')
    (directory / "sweep.json").write_text(json.dumps(sweep))
    return directory


def large(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**33)


IRREGULAR: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (os.mkfifo, "is no regular file"),
    "link": (lambda path: path.symlink_to("/etc/hostname"), "is a link"),
    "directory": (Path.mkdir, "is a directory"),
    "large": (large, "is larger than"),
}


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize("kind", IRREGULAR)
@pytest.mark.parametrize("name", ["result.json", "error.json", "metrics.jsonl"])
def test_a_file_of_a_run_that_is_none_is_said(tmp_path, name, kind):
    directory = make_plain_sweep(tmp_path)
    run = directory / "runs/other/seed_1"
    (run / "result.json").unlink()
    (run / name).unlink(missing_ok=True)
    make, said = IRREGULAR[kind]
    make(run / name)
    report = write_report(directory)
    assert f"{name}: cannot be read ({said}" in report.files["md"].read_text()
    assert report.analysis.comparison("other").seeds == (0,)
    assert any(said in run["message"] for run in sweep_status(directory))


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize("kind", IRREGULAR)
@pytest.mark.parametrize("name", ["sweep.json", "report.html", "report.tex"])
def test_a_file_of_a_sweep_that_is_none_is_refused_or_replaced(tmp_path, name, kind):
    directory = make_plain_sweep(tmp_path)
    (directory / name).unlink(missing_ok=True)
    make, said = IRREGULAR[kind]
    make(directory / name)
    if name != "sweep.json" and kind in ("link", "large"):
        write_report(directory)
        assert not (directory / name).is_symlink()
        assert "plain" in (directory / name).read_text()
    else:
        with pytest.raises((UserError, OSError), match=said):
            write_report(directory)


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize("link", ["runs", "runs/no_wo", "runs/no_wo/seed_1"])
def test_a_directory_that_is_a_link_is_not_followed(tmp_path, link):
    """A whole directory of a stranger's sweep may lead to a run of somebody else."""
    directory = make_sweep(tmp_path / "sweep", {"base": [0.5, 0.5], "no_wo": [0.25, 0.123456]})
    (directory / link).rename(tmp_path / "elsewhere")
    (directory / link).symlink_to(tmp_path / "elsewhere")
    for read in (
        read_sweep(directory),
        pack_report(directory, tmp_path / "packed") and read_sweep(tmp_path / "packed"),
    ):
        (run,) = [run for run in read.runs if (run.row, run.seed) == ("no_wo", 1)]
        assert (run.status, run.value, run.result, run.curves) == ("unreadable", None, {}, {})
        assert run.message == f"{link} is a link: what it leads to is not of this sweep"
    write_report(directory)
    pages = [*directory.glob("report.*"), *(tmp_path / "packed").iterdir()]
    assert not [page.name for page in pages if re.search(r"0\.1234|12\.3", page.read_text())]
    assert [run["status"] for run in sweep_status(directory)][-1] == "unreadable"


@pytest.mark.parametrize("kind", ["pipe", "link", "directory"])
def test_a_lock_that_is_none_keeps_nobody_waiting(tmp_path, kind):
    directory = make_plain_sweep(tmp_path)
    (directory / "runs/base/seed_0/result.json").unlink()
    IRREGULAR[kind][0](directory / "runs/base/seed_0/lock")
    assert sweep_status(directory)[0]["status"] in ("running", "stopped")


def test_drafts_of_killed_writers_go_and_a_guessed_name_is_not_written_through(tmp_path):
    directory = make_plain_sweep(tmp_path)
    (directory / f".{'0' * 16}.draft").write_text("half a rep")
    victim = directory / "victim"
    victim.write_text("mine")
    for guess in (f".report.html.{os.getpid()}", ".report.html.draft", f".{'1' * 16}.draft"):
        (directory / guess).symlink_to(victim)
    write_report(directory)
    assert victim.read_text() == "mine"
    assert not (directory / f".{'0' * 16}.draft").exists()


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "/tmp", "../x"])
def test_a_row_does_not_lead_out_of_the_sweep(tmp_path, name):
    directory = make_plain_sweep(tmp_path)
    content = json.loads((directory / "sweep.json").read_text())
    content["rows"][name] = content["rows"]["other"]
    (directory / "sweep.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="is no plain directory name"):
        write_report(directory)


def test_more_runs_than_anybody_has_are_refused(tmp_path):
    directory = make_plain_sweep(tmp_path)
    content = json.loads((directory / "sweep.json").read_text())
    (directory / "sweep.json").write_text(json.dumps(content | {"seeds": list(range(50_001))}))
    with pytest.raises(UserError, match="describes 100,002 runs; at most 100,000 are reported"):
        write_report(directory)
