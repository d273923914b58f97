"""The package is broken in one place at a time, and the tests that are named for that place must fail.

./launch.sh test -m mutation                 every mutant of mutants.toml
./launch.sh test -m mutation -k "tying"      those whose names hold a word; "table": whether the table is whole

Every mutant is made in a copy; the checkout is never edited.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.mutation

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("mutants.toml")
MUTANTS = tomllib.loads(TABLE.read_text())["mutant"]
NEEDED = ("transformer_jax", "configs", "experiments", "tests", "pyproject.toml")
SECONDS = 3600


def broken(mutant: dict) -> str:
    """The text of the mutant's file."""
    text = (ROOT / mutant["file"]).read_text()
    found = text.count(mutant["old"])
    assert found == 1, (
        f"{TABLE.name}: the `old` text of {mutant['name']!r} is found {found} times in {mutant['file']}, not once. If "
        "that code was rewritten, write the same fault into what does its work now, and see that the tests catch it; "
        "if nothing does its work any more, delete the mutant.\n" + mutant["old"]
    )
    return text.replace(mutant["old"], mutant["new"])


def copy_to(directory: Path) -> Path:
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copy(source, directory / name)
    return directory


def python(copy: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Runs Python on the copy alone, wherever this package is installed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)


def run_tests(copy: Path, tests: list[str]) -> tuple[int, str]:
    done = python(copy, "-m", "pytest", "-n", "0", "-rf", "--tb=line", "-p", "no:cacheprovider", *tests)
    return done.returncode, done.stdout + done.stderr


def named_tests() -> list[str]:
    return list(dict.fromkeys(test for mutant in MUTANTS for test in mutant["tests"]))


def test_the_table_is_whole():
    assert len({mutant["name"] for mutant in MUTANTS}) == len(MUTANTS)
    problems = []
    for mutant in MUTANTS:
        try:
            ast.parse(broken(mutant))
        except (AssertionError, SyntaxError) as error:
            problems.append(f"{mutant['name']}: {error}")
    for test in named_tests():
        file, _, name = test.partition("::")
        defined = re.findall(r"^def (test_\w+)", (ROOT / file).read_text(), re.MULTILINE)
        if name.partition("[")[0] not in defined:
            problems.append(f"{TABLE.name}: there is no test {test}; name the one that catches these mutants now.")
    assert not problems, "\n\n".join(problems)


def test_the_copy_is_what_is_tested_and_passes_as_it_is(tmp_path):
    copy = copy_to(tmp_path)
    where = python(copy, "-c", "import transformer_jax; print(transformer_jax.__file__)")
    assert where.stdout.strip() == str(copy / "transformer_jax" / "__init__.py"), where.stderr
    status, output = run_tests(copy, named_tests())
    assert status == 0, output[-5000:]


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant["name"] for mutant in MUTANTS])
def test_mutant_is_caught(mutant, tmp_path):
    text = broken(mutant)
    copy = copy_to(tmp_path)
    (copy / mutant["file"]).write_text(text)
    status, output = run_tests(copy, mutant["tests"])
    failed = re.findall(r"^FAILED (\S+?)(\[|\s|$)", output, re.MULTILINE)
    lived = [test for test in mutant["tests"] if test.partition("[")[0] not in {name for name, _ in failed}]
    assert not lived, f"lived: {', '.join(lived)} did not fail (pytest ended with {status})\n{output[-3000:]}"
