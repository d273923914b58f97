"""Every option of every command, and every field of the config, with values that nobody means.

The options come from the parser and the fields from the schema, so a new one is tried from the day it is there.
"""

import argparse
import io
import random
from pathlib import Path

import pytest
import tiny_run

from transformer_jax import cli
from transformer_jax.arguments import make_parser
from transformer_jax.config import FIELDS
from transformer_jax.errors import UserError
from transformer_jax.run import saved, train

VALUES = {
    "empty": "",
    "blank": " ",
    "long": "x" * 100_000,
    "many digits": "9" * 5000,
    "more digits": "0x" + "f" * 5000,
    "huge": "99999999999999999999",
    "beyond int32": "2147483648",
    "negative": "-1",
    "zero": "0",
    "tiny": "1e-300",
    "large": "9e299",
    "infinite": "1e999",
    "not a number": "nan",
    "imaginary": "1j",
    "null": "null",
    "list": "[[], {}]",
    "deep": "[" * 5000,
    "not ASCII": "ß中\u2028\u202e🙂",
    "no UTF-8": "\udcff\udce4",
    "digits of another script": "٣٣",
    "end of string": "a\0b",
    "steers a terminal": "\x1b[2J\x07\r",
    "device": "/dev/null",
    "root": "/",
    "here": ".",
    "above": "../" * 200,
    "an option": "--json",
    "spec": "sinusoidal(base=0xffffffffffffffffffffffffffffffffffffffffffffffffffffff)",
    "huge spec": "reverse(max_length=99999999999)",
    "call": "__import__('os').abort()",
    "commas": ",,,",
    "colons": "c.py:::",
    "average": "average:99999999999999999999999",
}

OF_PATHS = ("device", "root", "here", "above", "an option", "colons", "commas", "average", "blank", "tiny", "imaginary")
"""Tried as options only."""


def parsers() -> dict[str, argparse.ArgumentParser]:
    (commands,) = (a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return commands.choices


def options() -> list[tuple[str, argparse.Action]]:
    """Every option that takes a value, and every argument without a name."""
    return [
        (command, action)
        for command, parser in parsers().items()
        for action in parser._actions
        if action.nargs != 0 and not isinstance(action, argparse._HelpAction)
    ]


GOOD = {
    "train": {"--config": "c.py", "--workdir": "new"},
    "evaluate": {"--workdir": "run", "--source": "lines", "--reference": "lines"},
    "translate": {"--workdir": "run"},
    "generate": {"--workdir": "run"},
    "export": {"--workdir": "run", "--output": "new.safetensors"},
    "import": {"--marian": "marian", "--workdir": "new"},
    "replay": {"--workdir": "run"},
    "inspect": {"what": "attention", "--workdir": "run", "--text": "0 1", "--output": "new"},
    "score": {"--hypotheses": "lines", "--references": "lines", "--metrics": "exact_match"},
    "sweep": {"experiment": "e/e.py", "--workdir": "new", "--seeds": "1"},
    "tune": {"--config": "c.py", "--workdir": "search", "--seeds": "1", "--try": "train.label_smoothing=0,0.2"},
    "report": {"directory": "run"},
    "describe": {"--config": "c.py", "--config.model.vocab_size": "11"},
    "benchmark": {"name": "nothing", "--config": "c.py"},
    "doctor": {},
}
"""What each command is given beside the option that is tried."""
EXPERIMENT = '''"""Why?

Question: Why?

Hypothesis: Because.
"""
from transformer_jax.sweeps.experiment import Experiment, Scale
EXPERIMENT = Experiment(rows={"base": {}}, scales={"small": Scale("c.py", seeds=1)})
'''


def beyond(*arguments: object, **options: object) -> None:
    raise UserError("as far as this test goes")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("options")
    tiny_run.write_config_file(place / "c.py")
    tiny_run.copy_of(tiny_run.finished(), place / "run")
    (place / "lines").write_text("0 1 2\n")
    (place / "e").mkdir()
    (place / "e" / "e.py").write_text(EXPERIMENT)
    return place


@pytest.fixture
def called(place, monkeypatch, capsys):
    """Calls a command, of which all that takes time is refused; checks what must be true of any call."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(train, "compile_program", beyond)
    monkeypatch.setattr(saved, "Evaluator", beyond)
    monkeypatch.setattr("transformer_jax.sweeps.runner.choose_lanes", beyond)
    monkeypatch.setattr("transformer_jax.doctor.check_determinism", dict)

    def call(command: str, given: dict[str, str]) -> tuple[int, str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"0 1\n")))
        named = [f"{name}={value}" for name, value in given.items() if name.startswith("-")]
        before = entries(place)
        status = cli.main([command, *named, *(v for name, v in given.items() if not name.startswith("-"))])
        output, error = capsys.readouterr()
        assert status in (0, 1, 2)
        assert "Traceback" not in output + error
        assert len(error) < 2500
        assert "\x1b" not in error
        if status == 2:
            assert error.startswith("transformer_jax: ")
            new = entries(place) - before  # a sweep is written before its runs are tried
            assert not new or "as far as this test goes" in error
        return status, error

    return call


def entries(place: Path) -> set[str]:
    found = {str(path.relative_to(place)) for path in place.rglob("*") if "__pycache__" not in path.parts}
    return {name for name in found if not name.endswith("/lock")}


@pytest.mark.parametrize("command", parsers())
def test_without_such_a_value_each_command_is_taken(command, called):
    """Else what follows would try nothing."""
    status, error = called(command, GOOD[command])
    known = {
        "replay": "has no nonfinite.json",
        "import": "--marian=marian: is no directory",
        "benchmark": "nothing.py: no such Python file",
    }
    assert status == 0 or known.get(command, "as far as this test goes") in error


@pytest.mark.parametrize(("command", "option"), options(), ids=lambda each: getattr(each, "dest", each))
@pytest.mark.filterwarnings("error")
def test_any_value_of_any_option_is_taken_or_refused_in_a_sentence(command, option, called):
    name = option.option_strings[0] if option.option_strings else option.dest
    for value in VALUES.values():
        called(command, {**GOOD[command], name: value})


@pytest.mark.parametrize("path", FIELDS)
@pytest.mark.filterwarnings("error")
def test_any_value_of_any_field_is_taken_or_refused_in_a_sentence(path, called):
    for name, value in VALUES.items():
        if name not in OF_PATHS:
            called("train", {**GOOD["train"], f"--config.{path}": value})
            if not path.startswith(saved.FIXED_BY_TRAINING):
                called("evaluate", {**GOOD["evaluate"], f"--config.{path}": value})


def command_line(rng: random.Random) -> tuple[str, dict[str, str]]:
    """Several such values together; now and then something that is needed is left out."""
    command = rng.choice(sorted(GOOD))
    given = {name: value for name, value in GOOD[command].items() if rng.random() < 0.95}
    names = [a.option_strings[0] if a.option_strings else a.dest for c, a in options() if c == command]
    names += [f"--config.{path}" for path in rng.sample(sorted(FIELDS), 5)]
    for name in rng.sample(names, rng.choice([1, 2, 3])):
        given[name] = rng.choice(sorted(VALUES.values()))
    return command, given


def check_lines(seeds: range, called) -> None:
    for seed in seeds:
        try:
            called(*command_line(random.Random(seed)))
        except (Exception, SystemExit) as error:
            raise AssertionError(f"seed {seed}: {command_line(random.Random(seed))!r:.500}") from error


@pytest.mark.filterwarnings("error")
def test_command_lines_of_many_such_values(called):
    check_lines(range(200), called)


@pytest.mark.long
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("thousand", range(1, 6))
def test_thousands_of_command_lines(thousand, called):
    check_lines(range(1000 * thousand, 1000 * thousand + 1000), called)
