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

from transformer_jax import cli, replay, run, saved_run
from transformer_jax.evaluation.evaluator import Evaluator
from transformer_jax.program import Program

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


@pytest.fixture(scope="module")
def compiled_once():
    """Programs and evaluators of equal configs are compiled once."""
    programs: dict[Any, Any] = {}

    def program(config, lanes=None, tokenizers=None, traced=()):
        key = config, lanes, tokenizers and tokenizers.fingerprint, tuple(traced)
        if key not in programs:
            programs[key] = Program(config, lanes, tokenizers, traced)
        return programs[key]

    def evaluator(config, tokenizer, layout, lanes=None):
        key = config, tokenizer.to_bytes()
        if key not in programs:
            programs[key] = Evaluator(config, tokenizer, layout, lanes)
        return programs[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "Program", program)
        patch.setattr(replay, "Program", program)
        patch.setattr(saved_run, "Evaluator", evaluator)
        yield


COMMANDS = [
    (tiny_run.finished, "evaluate --workdir=run"),
    (tiny_run.finished, "evaluate --workdir=run --checkpoint=best --json"),
    (tiny_run.finished, "evaluate --workdir=run --source=lines --reference=lines"),
    (tiny_run.finished, "translate --workdir=run"),
    (tiny_run.finished, "export --workdir=run --output=new.safetensors"),
    (tiny_run.finished, "report run"),
    (tiny_run.finished, "report run --json"),
    (tiny_run.finished, "train --config=c.py --workdir=run"),
    (tiny_run.finished, "train --config=c.py --workdir=run --allow-config-change=seed --config.seed=4"),
    (tiny_run.stopped, "train --config=c.py --workdir=run"),
    (tiny_run.stopped, "evaluate --workdir=run --checkpoint=best"),
    (diverged, "replay --workdir=run --json"),
    (diverged, "report run"),
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
    tiny_run.write_config_file(place / "c.py")
    (place / "lines").write_text("0 1 2\n")
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
