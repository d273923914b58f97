"""launch.sh with an environment whose python is a stand-in: what it installs, and what it passes on."""

import os
import platform
import shutil
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAUNCH = ROOT / "launch.sh"

PYTHON = """#!/usr/bin/env bash
# Says how it was called: the working directory, then one argument a line. Reads pyproject.toml as a real one does.
if [ "$1" = - ] || [ "$1" = -c ]; then exec {python} "$@"; fi
if [ "$2" = pip ]; then echo "$@" >> "$PIP_LOG"; [ -z "${{PIP_FAILS:-}}" ]; exit; fi
pwd
printf '<%s>\\n' "$@"
if [ -n "${{SAY_PATH:-}}" ]; then echo "$PYTHONPATH $PYTHONSAFEPATH"; fi
"""


@pytest.fixture
def launch(tmp_path):
    """Calls launch.sh in `tmp_path`/here; standard output as lines."""
    venv, here = tmp_path / "venv", tmp_path / "here"
    (venv / "bin").mkdir(parents=True)
    here.mkdir()
    python = venv / "bin" / "python"
    python.write_text(PYTHON.format(python=sys.executable))
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


HOLDS = subprocess.run(["env", "--block-signal=INT", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not HOLDS, reason="env of this machine cannot hold signals back")
def test_ctrl_c_while_python_starts_is_a_sentence(launch, tmp_path):
    """Python reads sitecustomize.py before any line of the command."""
    python = launch.venv / "bin" / "python"
    python.write_text(f'#!/bin/sh\nif [ "$2" = pip ]; then exit; fi\nexec {sys.executable} "$@"\n')
    early = tmp_path / "early"
    early.mkdir()
    interrupt = "if 'transformer_jax.cli' in sys.orig_argv: os.kill(os.getpid(), signal.SIGINT)"
    (early / "sitecustomize.py").write_text(f"import os, signal, sys\n{interrupt}\n")
    assert launch("--help", check=False, PYTHONPATH=str(early)) == []
    blank, sentence = launch.errors
    assert (blank, sentence.partition(".")[0]) == ("", "stopped at once")


def test_test_runs_pytest_in_the_repository(launch):
    assert launch("test", "-k", "a or b") == [str(LAUNCH.parent), "<-m>", "<pytest>", "<-k>", "<a or b>"]
    wanted = (launch.venv / "requirements.txt").read_text().splitlines()
    assert [name for name in wanted if name.startswith(("pytest>", "tensorflow-datasets>"))]  # the extra, and its own


def test_it_installs_once(launch):
    launch("doctor")
    assert launch.log.read_text().count(" install ") == 1
    launch("doctor")
    assert launch.log.read_text().count(" install ") == 1
    assert not Path(f"{launch.venv}.lock").exists()


def test_it_installs_again_when_pyproject_changes(launch, tmp_path):
    copy = tmp_path / "repository"
    copy.mkdir()
    shutil.copy(LAUNCH, copy)
    shutil.copy(ROOT / "pyproject.toml", copy)
    launch("doctor", script=copy / "launch.sh")
    with (copy / "pyproject.toml").open("a") as file:
        file.write("# changed")
    launch("doctor", script=copy / "launch.sh")
    launch("doctor", script=copy / "launch.sh")
    assert launch.log.read_text().count(" install ") == 2


def test_an_environment_that_checkouts_may_share_is_told_of_none(launch):
    """What is asked for is installed, and every bound of it, but not where the code lies."""
    launch("doctor")
    wanted = (launch.venv / "requirements.txt").read_text().splitlines()
    assert wanted == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert launch.log.read_text().split()[-2:] == ["--requirement", f"{launch.venv}/requirements.txt"]


def test_the_checkouts_own_environment_knows_its_code(launch, tmp_path):
    copy = shutil.copytree(launch.venv.parent / "venv", tmp_path / "repository" / ".venv").parent
    shutil.copy(LAUNCH, copy)
    shutil.copy(ROOT / "pyproject.toml", copy)
    launch("test", script=copy / "launch.sh", TRANSFORMER_JAX_VENV="")
    assert launch.log.read_text().split()[-2:] == ["--editable", f"{copy}[test]"]


def test_its_own_code_runs_whatever_lies_around(launch):
    """An empty entry of PYTHONPATH would be the current directory."""
    assert launch("doctor", SAY_PATH="1", PYTHONPATH=":/a b::/c:")[-1] == f"{ROOT}:/a b:/c 1"
    assert launch("doctor", SAY_PATH="1", PYTHONPATH="")[-1] == f"{ROOT} 1"
    assert launch("test", SAY_PATH="1", PYTHONPATH="")[-1] == f"{ROOT} 1"


def test_two_checkouts_share_an_environment_and_each_runs_its_own_code(tmp_path):
    """This very Python is the environment. A `jax.py` in the current directory is not imported."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    python = tmp_path / "venv" / "bin" / "python"
    python.write_text(f'#!/usr/bin/env bash\nif [ "$2" != pip ]; then exec {sys.executable} "$@"; fi\n')
    python.chmod(0o755)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "jax.py").write_text("raise SystemExit('the current directory was searched')")
    environment = {**os.environ, "TRANSFORMER_JAX_VENV": str(tmp_path / "venv")}
    environment.pop("PYTHONSAFEPATH", None)
    for name in ("one", "two", "one"):
        package = tmp_path / name / "transformer_jax"
        package.mkdir(parents=True, exist_ok=True)
        for file in ("launch.sh", "pyproject.toml"):
            shutil.copy(ROOT / file, tmp_path / name)
        (package / "__init__.py").touch()
        (package / "cli.py").write_text("import importlib.util as u; print(__file__, u.find_spec('jax').origin)")
        done = subprocess.run(
            [tmp_path / name / "launch.sh", "doctor"],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        ran, found = done.stdout.split()
        assert ran == str(package / "cli.py")
        assert found != str(elsewhere / "jax.py")


def test_a_relative_path_of_the_environment_is_of_the_current_directory(launch):
    assert launch("test", TRANSFORMER_JAX_VENV="../venv")[0] == str(ROOT)


def test_the_python_may_be_chosen(launch, tmp_path):
    made = tmp_path / "made"
    python = tmp_path / "a python"
    python.write_text(
        f'#!/usr/bin/env bash\nif [ "$2" = venv ]; then cp -r {launch.venv} "$3"; else exec {sys.executable} "$@"; fi\n'
    )
    python.chmod(0o755)
    variables = {"TRANSFORMER_JAX_VENV": str(made), "TRANSFORMER_JAX_PYTHON": str(python)}
    assert launch("doctor", **variables)[1:] == ["<-m>", "<transformer_jax.cli>", "<doctor>"]
    assert (made / "bin" / "python").exists()
    assert launch("doctor", **variables)[1:] == ["<-m>", "<transformer_jax.cli>", "<doctor>"]


def test_an_environment_of_another_python_than_the_chosen_one_is_refused(launch, tmp_path):
    other = tmp_path / "python"
    other.write_text('#!/usr/bin/env bash\ncase "$2" in *version_info*) exit 0 ;; *) echo 3.12.99 ;; esac\n')
    other.chmod(0o755)
    assert launch("doctor", check=False, TRANSFORMER_JAX_PYTHON=str(other)) == []
    (said,) = launch.errors
    assert said.startswith(f"launch.sh: {launch.venv} has Python {platform.python_version()}, but TRANSFORMER_JAX_PYTH")
    assert "is 3.12.99" in said


def test_a_chosen_python_that_is_none_is_refused(launch, tmp_path):
    shim = tmp_path / "python3.13"
    shim.write_text("#!/usr/bin/env bash\necho not here >&2\nexit 127\n")
    shim.chmod(0o755)
    for name in ("no-such-python", str(shim)):
        assert launch("doctor", check=False, TRANSFORMER_JAX_PYTHON=name) == []
        assert launch.errors == [f"launch.sh: TRANSFORMER_JAX_PYTHON={name} is no Python 3.11, 3.12 or 3.13 that runs."]


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
    assert "Python 3.11, 3.12 or 3.13 is needed, and none was found" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "venv").exists()


# --- What CI runs ---


@pytest.fixture
def ci(tmp_path):
    """Calls .ci/run of a repository whose launch.sh says how it was called; standard output as lines, and the status.

    There is a Python 3.11 by its name; a 3.13 is with pyenv alone, whose shim does not run.
    """
    repository, tools, pyenv = tmp_path / "repository", tmp_path / "bin", tmp_path / "pyenv"
    (repository / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", repository / ".ci")
    programs = {
        repository / "launch.sh": """
            bin=${TRANSFORMER_JAX_PYTHON%/*}
            home=${bin%/*}
            echo "${home##*/} ${TRANSFORMER_JAX_VENV##*/} $*"
            [ "${TRANSFORMER_JAX_VENV##*/}" != "${FAILS:-}" ]
        """,
        tools / "python3.13": "exit 127",
        tools / "python3.12": "exit 127",
        tools / "python3.11": "[[ $2 == *\"!= '3.11'\"* ]] || echo 3.11",
        pyenv / "versions" / "3.13.5" / "bin" / "python": "[[ $2 == *\"!= '3.13'\"* ]] || echo 3.13",
    }
    for path, program in programs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{program}\n")
        path.chmod(0o755)
    for name in ("bash", "env", "dirname"):
        (tools / name).symlink_to(shutil.which(name) or name)
    environment = {"PATH": str(tools), "PYENV_ROOT": str(pyenv)}

    def call(*arguments: str, **variables: str) -> tuple[list[str], int]:
        done = subprocess.run(
            [shutil.which("bash") or "bash", repository / ".ci" / "run", *arguments],
            env=environment | variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout.splitlines(), done.returncode

    return call


SHORT = "3.13.5 .venv-3.13 test -m newest and not long"


def test_ci_runs_a_selection_on_the_newest_python_and_all_on_the_oldest(ci, tmp_path):
    lines, status = ci()
    assert lines == [SHORT, f"{tmp_path.name} .venv-3.11 test"]
    assert status == 0


def test_ci_fails_where_either_does(ci):
    assert ci(FAILS=".venv-3.13") == ([SHORT], 1)
    lines, status = ci(FAILS=".venv-3.11")
    assert len(lines) == 2
    assert status == 1


def test_all_tests_may_be_run_on_the_newest_python(ci):
    assert ci("newest", "-n", "1") == (["3.13.5 .venv-3.13 test -n 1"], 0)


def test_with_one_python_ci_runs_all_on_it(ci, tmp_path):
    lines, status = ci(PYENV_ROOT=str(tmp_path / "none"))
    assert lines == [f"{tmp_path.name} .venv-3.11 test"]
    assert status == 0
