"""A real training process, killed with SIGKILL at random moments, also during saves: nothing is lost, not one bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import kills
import pytest
import tiny_run

from transformer_jax.checkpoint import Checkpoints
from transformer_jax.run import train

# Long enough that kills come within training; a save every fifth step, so that many hit one.
OVERRIDES = {"train.steps": 120, "train.evaluate_every": 40, "evaluate.decode_every": 40, "train.log_every": 7}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The run that is never stopped."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    train(tiny_run.config(OVERRIDES), workdir, say=lambda line: None)
    return workdir


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    """Of `train`, with `tmp_path`/run as the run directory."""
    config = tiny_run.write_config_file(tmp_path / "configs" / "tiny.py", OVERRIDES)
    return [f"--config={config}", f"--workdir={tmp_path / 'run'}"]


def test_terminated_and_killed_a_few_times(tmp_path, whole, arguments):
    """SIGTERM saves, says how to go on and exits with 75; then come the kills."""
    log, metrics = tmp_path / "log", tmp_path / "run" / "metrics.jsonl"
    process = kills.start(arguments, log)
    while process.poll() is None and not metrics.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75, log.read_text()
    step = Checkpoints(tmp_path / "run" / "checkpoints").steps()[-1]
    command = " ".join(["./launch.sh", "train", *arguments])
    said = f"stopped and saved at step {step}. The same command goes on: {command}"
    assert log.read_text().splitlines()[-1] == said
    assert kills.run_to_the_end(arguments, tmp_path / "run", log, kills=2, seed=0) > 0
    assert f"Going on at step {step}." in log.read_text()
    assert tiny_run.content(tmp_path / "run") == tiny_run.content(whole)


@pytest.mark.long
def test_killed_two_hundred_times(tmp_path, whole, arguments, capsys):
    log, killed, runs = tmp_path / "log", 0, 0
    while killed < 200:
        killed += kills.run_to_the_end(arguments, tmp_path / "run", log, min(10, 200 - killed), seed=runs)
        assert tiny_run.content(tmp_path / "run") == tiny_run.content(whole)
        assert "Traceback" not in log.read_text()
        (tmp_path / "run").rename(tmp_path / f"run_{runs}")
        runs += 1
        with capsys.disabled():
            print(f"{killed} kills in {runs} runs, nothing lost", flush=True)


DEVICES = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import pytest, tiny_run
from transformer_jax.program import Program
from transformer_jax.run import Interruption, train_group

def train(devices, stop=None):
    config = tiny_run.config({"parallel.data": devices})
    program = Program(config)
    assert program.layout.devices == devices
    with pytest.MonkeyPatch.context() as patch:
        if stop is not None:
            tiny_run.stop_at(patch, program, stop)
        train_group(
            [config], [Path(sys.argv[2])], program=program, allow_config_change=["parallel.data"], say=lambda line: None
        )

with pytest.raises(Interruption):
    train(8, stop=15)
train(2)
"""


def test_the_number_of_devices_may_change(tmp_path):
    """1 device up to step 13, 8 faked ones to step 15, then 2: the same losses to float tolerance, dropout on."""
    workdir = tiny_run.copy_of(tiny_run.stopped(), tmp_path / "run")
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    here = str(Path(tiny_run.__file__).parent)
    subprocess.run([sys.executable, "-c", DEVICES, here, str(workdir)], env=environment, check=True)
    found, expected = (tiny_run.content(run)["log"] for run in (workdir, tiny_run.finished()))
    assert len(found) == len(expected)
    for line, other in zip(found, expected, strict=True):
        numbers = {name: value for name, value in other.items() if isinstance(value, float) and name != "chrf"}
        assert {name: line[name] for name in numbers} == pytest.approx(numbers, rel=2e-4)
