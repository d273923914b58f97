"""launch.sh with an environment whose python is a stand-in: what it installs, and what it passes on."""

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parent.parent / "launch.sh"

PYTHON = """#!/usr/bin/env bash
# Says how it was called: the working directory, then one argument a line.
if [ "$2" = pip ]; then echo "$@" >> "$PIP_LOG"; [ -z "${PIP_FAILS:-}" ]; exit; fi
pwd
printf '<%s>\\n' "$@"
"""


@pytest.fixture
def launch(tmp_path):
    """Calls launch.sh in `tmp_path`/here; standard output as lines."""
    venv, here = tmp_path / "venv", tmp_path / "here"
    (venv / "bin").mkdir(parents=True)
    here.mkdir()
    python = venv / "bin" / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    log = tmp_path / "pip.log"
    log.touch()
    environment = {**os.environ, "TRANSFORMER_JAX_VENV": str(venv), "PIP_LOG": str(log)}

    def call(*arguments: str, check: bool = True, script: Path = LAUNCH, **variables: str) -> list[str]:
        done = subprocess.run(
            [script, *arguments], cwd=here, env=environment | variables, capture_output=True, text=True, check=check
        )
        call.errors = [line for line in done.stderr.splitlines() if "installing into" not in line]
        return done.stdout.splitlines()

    call.log, call.here, call.venv = log, here, venv
    return call


def test_arguments_and_working_directory_are_passed_on(launch):
    arguments = [
        "train",
        "--config=my configs/a.py:row",
        "--config.data.source=copy(symbols=5)",
        "--workdir=x y",
        "",
        "*",
    ]
    assert launch(*arguments) == [
        str(launch.here), "<-m>", "<transformer_jax.cli>", *[f"<{argument}>" for argument in arguments]
    ]  # fmt: skip


def test_no_arguments_are_no_arguments(launch):
    assert launch() == [str(launch.here), "<-m>", "<transformer_jax.cli>"]


def test_test_runs_pytest_in_the_repository(launch):
    assert launch("test", "-k", "a or b") == [str(LAUNCH.parent), "<-m>", "<pytest>", "<-k>", "<a or b>"]
    assert "test]" in launch.log.read_text()  # the extra


def test_it_installs_once(launch):
    launch("doctor")
    assert launch.log.read_text().count(" install ") == 1
    assert f"--editable {LAUNCH.parent}" in launch.log.read_text()
    launch("doctor")
    assert launch.log.read_text().count(" install ") == 1
    assert not Path(f"{launch.venv}.lock").exists()


def test_it_installs_again_when_pyproject_changes(launch, tmp_path):
    copy = tmp_path / "repository"
    copy.mkdir()
    shutil.copy(LAUNCH, copy)
    (copy / "pyproject.toml").write_text("one")
    launch("doctor", script=copy / "launch.sh")
    (copy / "pyproject.toml").write_text("two")
    launch("doctor", script=copy / "launch.sh")
    launch("doctor", script=copy / "launch.sh")
    assert launch.log.read_text().count(" install ") == 2


def test_a_failed_installation_is_tried_again(launch):
    assert launch("doctor", check=False, PIP_FAILS="1") == []
    assert not Path(f"{launch.venv}.lock").exists()
    assert launch("doctor")[1:] == ["<-m>", "<transformer_jax.cli>", "<doctor>"]


def test_it_is_found_by_a_relative_path(launch):
    assert launch("doctor", script=Path(os.path.relpath(LAUNCH, launch.here)))[1:] == [
        "<-m>", "<transformer_jax.cli>", "<doctor>"
    ]  # fmt: skip


def test_it_waits_for_another_installation_and_says_so(launch):
    lock = Path(f"{launch.venv}.lock")
    lock.mkdir()
    threading.Timer(1.0, lock.rmdir).start()
    assert launch("doctor")[1:] == ["<-m>", "<transformer_jax.cli>", "<doctor>"]
    assert launch.errors == [f"launch.sh: waiting for another installation to end; if there is none, remove {lock}"]


def test_the_exit_status_is_the_commands(launch):
    python = launch.venv / "bin" / "python"
    launch("doctor")
    python.write_text("#!/usr/bin/env bash\nexit 75\n")
    done = subprocess.run([LAUNCH, "train"], env={**os.environ, "TRANSFORMER_JAX_VENV": str(launch.venv)}, check=False)
    assert done.returncode == 75


def test_without_python_it_says_what_is_needed(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "env", "dirname", "cksum", "cut", "mkdir", "rmdir", "find", "sleep", "grep"):
        (tools / name).symlink_to(shutil.which(name) or name)
    environment = {"PATH": str(tools), "TRANSFORMER_JAX_VENV": str(tmp_path / "venv")}
    done = subprocess.run([LAUNCH, "doctor"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Python 3.11, 3.12 or 3.13 is needed, and none was found" in done.stderr
    assert not (tmp_path / "venv").exists()
