"""The linter, the formatter and the type checker have nothing to say."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.newest

ROOT = Path(__file__).parent.parent
FOLDERS = ["transformer_jax", "configs", "experiments", "benchmarks", "tests"]


@pytest.mark.parametrize(
    "command",
    [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]],
    ids=" ".join,
)
def test_style(command):
    folders = [] if command == ["mypy"] else [folder for folder in FOLDERS if (ROOT / folder).is_dir()]
    done = subprocess.run([sys.executable, "-m", *command, *folders], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
