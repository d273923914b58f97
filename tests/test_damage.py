"""Run directories that are damaged, or were made by somebody who means harm: a sentence or a result, no traceback."""

import functools
import io
import random
import signal
import traceback
from pathlib import Path
from typing import Any

import pytest
import tiny_run
from damage import damage

from transformer_jax import cli
from transformer_jax.errors import UserError
from transformer_jax.evaluation.evaluator import Evaluator
from transformer_jax.inspection import replay
from transformer_jax.run import saved, train
from transformer_jax.run.compile import compile_program

LONGEST = 120
"""Seconds that a command may take: one that hangs is a fault too."""


@functools.cache
def diverged() -> Path:
    """A run that has diverged at its first step. Read only."""
    workdir = Path(tiny_run._temporary().name) / "diverged"
    tiny_run.train_here(
        workdir, compiled=tiny_run.program(**{"optimizer__name": "sgd", "optimizer__learning_rate": 1e30})
    )
    assert (workdir / "nonfinite.json").is_file()
    return workdir


EXPERIMENT = '''"""Why?

Question: Why?

Hypothesis: Because.
"""
from transformer_jax.sweeps.experiment import Experiment, Scale
EXPERIMENT = Experiment(rows={"base": {}, "twin": {}}, scales={"small": Scale("c.py", seeds=1)})
'''


def write_files(place: Path) -> None:
    """What commands are given beside the directory."""
    tiny_run.write_config_file(place / "c.py")
    (place / "lines").write_text("0 1 2\n")
    (place / "e").mkdir()
    (place / "e" / "e.py").write_text(EXPERIMENT)


@functools.cache
def swept() -> Path:
    """A sweep of two rows that are the same run. Read only."""
    place = Path(tiny_run._temporary().name) / "swept"
    tiny_run.copy_of(tiny_run.finished(), place / "run" / "runs" / "base" / "seed_0")
    write_files(place)
    assert cli.main(["sweep", str(place / "e" / "e.py"), f"--workdir={place / 'run'}"]) == 0
    return place / "run"


def beyond(*arguments: object, **options: object) -> None:
    raise UserError("as far as this test goes")


@pytest.fixture(scope="module")
def compiled_once():
    """Programs and evaluators of equal configs are compiled once."""
    programs: dict[Any, Any] = {}

    def program(config, lanes=1, assets=None, traced=()):
        key = config, lanes, assets and assets.fingerprint, tuple(traced)
        if key not in programs:
            programs[key] = compile_program(config, lanes, assets, traced)
        return programs[key]

    def evaluator(config, assets, layout):
        key = config, assets.fingerprint
        if key not in programs:
            programs[key] = Evaluator(config, assets, layout)
        return programs[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "compile_program", program)
        patch.setattr(replay, "compile_program", program)
        patch.setattr(saved, "Evaluator", evaluator)
        patch.setattr("transformer_jax.sweeps.runner.choose_lanes", beyond)
        yield


CHANGE = "--allow-config-change=train.log_every --config.train.log_every=4"
COMMANDS = [
    (tiny_run.finished, "evaluate --workdir=run"),
    (tiny_run.finished, "evaluate --workdir=run --checkpoint=best --json"),
    (tiny_run.finished, "evaluate --workdir=run --source=lines --reference=lines"),
    (tiny_run.finished, "translate --workdir=run"),
    (tiny_run.finished, "export --workdir=run --output=new.safetensors"),
    (tiny_run.finished, "report run"),
    (tiny_run.finished, "report run --json"),
    (tiny_run.finished, "train --config=c.py --workdir=run"),
    (tiny_run.finished, f"train --config=c.py --workdir=run {CHANGE}"),
    (tiny_run.stopped, "train --config=c.py --workdir=run"),
    (tiny_run.stopped, "evaluate --workdir=run --checkpoint=best"),
    (diverged, "replay --workdir=run --json"),
    (diverged, "report run"),
    (swept, "report run"),
    (swept, "sweep e/e.py --workdir=run --status"),
    (swept, "sweep e/e.py --workdir=run"),
]  # fmt: skip


def call(arguments: str, monkeypatch, capsys) -> tuple[int, str]:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"0 1 2\n")))

    def hangs(*_):
        raise AssertionError(f"takes longer than {LONGEST} seconds")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(LONGEST)
    try:
        status = cli.main(arguments.split())
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    output, error = capsys.readouterr()
    assert "Traceback" not in output + error
    assert "\x1b" not in output + error
    assert len(error) < 5000
    return status, error


def names(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def check(seed: int, place: Path, monkeypatch, capsys) -> None:
    rng = random.Random(seed)
    make, command = rng.choice(COMMANDS)
    write_files(place)
    directory = tiny_run.copy_of(make(), place / "run")
    done = damage(directory, rng)
    before = names(place)
    monkeypatch.chdir(place)
    try:
        status, error = call(command, monkeypatch, capsys)
        assert status in (0, 1, 2), status
        new = {name for name in names(place) - before if "__pycache__" not in name and "/damaged-" not in name}
        assert status != 2 or new <= {"run/lock"}, f"{new} is left"
    except Exception as error:
        raise AssertionError(f"seed {seed}: {command} after {done}: {traceback.format_exc()}") from error


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize("seed", range(24))
def test_a_damaged_run_directory_gives_a_sentence_or_a_result(seed, tmp_path, monkeypatch, capsys):
    check(seed, tmp_path, monkeypatch, capsys)


@pytest.mark.long
@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize("seed", range(1000, 3000))
def test_many_damaged_run_directories(seed, tmp_path, monkeypatch, capsys):
    check(seed, tmp_path, monkeypatch, capsys)
