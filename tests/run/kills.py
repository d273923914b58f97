"""Kills a process that trains at random moments and starts it again, until it has finished: what `test_kills.py` does.

By hand, 200 kills:

    ./launch.sh test -n 0 -m long tests/run/test_kills.py
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def start(arguments: list[str], log: Path) -> subprocess.Popen:
    """A real process of the command line; what it says goes to `log`."""
    with log.open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "transformer_jax.cli", *arguments], stdout=stream, stderr=subprocess.STDOUT
        )


def run_to_the_end(arguments: list[str], workdir: Path, log: Path, kills: int, seed: int) -> int:
    """Runs a command, killing its processes `kills` times at most; the number of kills until it finished.

    Half of the kills come at any moment after the process shows a sign of life, half while a checkpoint is written.
    """
    rng = random.Random(seed)
    for kill in range(kills):
        process = start(arguments, log)
        signs = _signs(workdir)
        _wait(process, lambda before=signs: _signs(workdir) != before)
        if rng.random() < 0.5:
            time.sleep(rng.uniform(0, 1.5))
        else:
            _wait(process, lambda: bool(_in_runs(workdir, "checkpoints/unfinished-*")))
            time.sleep(rng.uniform(0, 0.1))
        if process.poll() is not None:
            assert process.returncode == 0, log.read_text()
            return kill
        _kill(process)
    process = start(arguments, log)
    assert process.wait() == 0, log.read_text()
    return kills


def _kill(process: subprocess.Popen) -> None:
    """Kill it, and a sweep's workers only after it: it would take their end for a failure of their runs."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)


def _signs(workdir: Path) -> set:
    """Changes when a run has read its checkpoint, or logged something."""
    found = set()
    for path in _in_runs(workdir, "metrics.jsonl"):
        with contextlib.suppress(FileNotFoundError):
            found.add((path.stat().st_ino, path.stat().st_size))
    return found


def _in_runs(workdir: Path, pattern: str) -> list[Path]:
    """Files of a run or of a sweep's runs; not by `rglob`, which trips over what is deleted meanwhile."""
    return [*workdir.glob(pattern), *workdir.glob(f"runs/*/*/{pattern}")]


def _wait(process: subprocess.Popen, happened: Callable[[], bool]) -> None:
    while process.poll() is None and not happened():
        time.sleep(0.002)
