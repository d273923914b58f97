"""Kills a training process at random moments and starts it again, until it has finished: what `test_kills.py` does.

By hand, 200 kills:

    ./launch.sh test -m long tests/run/test_kills.py
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def start(arguments: list[str], log: Path) -> subprocess.Popen:
    """A real `train` process; what it says goes to `log`."""
    with log.open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "transformer_jax.cli", "train", *arguments], stdout=stream, stderr=subprocess.STDOUT
        )


def run_to_the_end(arguments: list[str], workdir: Path, log: Path, kills: int, seed: int) -> int:
    """Trains, killing the process `kills` times at most; the number of kills until it finished.

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
            _wait(process, lambda: any((workdir / "checkpoints").glob("unfinished-*")))
            time.sleep(rng.uniform(0, 0.1))
        if process.poll() is not None:
            assert process.returncode == 0, log.read_text()
            return kill
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    process = start(arguments, log)
    assert process.wait() == 0, log.read_text()
    return kills


def _signs(workdir: Path) -> tuple:
    """Changes when the process has read its checkpoint, or logged something."""
    path = workdir / "metrics.jsonl"
    return (path.stat().st_ino, path.stat().st_size) if path.exists() else ()


def _wait(process: subprocess.Popen, happened: Callable[[], bool]) -> None:
    while process.poll() is None and not happened():
        time.sleep(0.002)
