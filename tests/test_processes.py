"""Processes that this program starts run its own code, whatever else is installed or lies around."""

import os
import subprocess
import sys
from pathlib import Path

import transformer_jax
from transformer_jax.processes import ROOT, of_this_code

PACKAGE = Path(transformer_jax.__file__).parent


def test_neither_another_checkout_nor_the_current_directory_is_imported_from(tmp_path):
    for folder in ("other", "here"):
        (tmp_path / folder / "transformer_jax").mkdir(parents=True)
        (tmp_path / folder / "transformer_jax" / "__init__.py").write_text("raise SystemExit('not this one')")
    (tmp_path / "here" / "jax.py").write_text("raise SystemExit('the current directory was searched')")
    environment = {**os.environ, "PYTHONPATH": f":{tmp_path / 'other'}:"}
    environment.pop("PYTHONSAFEPATH", None)
    program = "import importlib.util, transformer_jax as t; print(t.__file__, importlib.util.find_spec('jax').origin)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path / "here", env=of_this_code(environment), capture_output=True, text=True, check=True,
    )  # fmt: skip
    ours, jax = done.stdout.split()
    assert Path(ours) == PACKAGE / "__init__.py"
    assert Path(jax).parent.parent != tmp_path


def test_what_the_user_put_on_the_path_stays_on_it():
    twice = of_this_code(of_this_code({"PYTHONPATH": "/a::/b", "HOME": "/home"}))
    assert twice == {"PYTHONPATH": f"{ROOT}:/a:/b", "PYTHONSAFEPATH": "1", "HOME": "/home"}


def test_whoever_starts_a_python_starts_it_so():
    starting = [path for path in PACKAGE.rglob("*.py") if "sys.executable" in path.read_text()]
    assert len(starting) >= 4
    assert [path for path in starting if "of_this_code(" not in path.read_text()] == []
