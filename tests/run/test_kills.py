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


def check(tmp_path: Path, whole: Path, count: int, seed: int) -> int:
    """Kills a run `count` times at most; the number of kills."""
    config = tiny_run.write_config_file(tmp_path / "configs" / "tiny.py", OVERRIDES)
    workdir, log = tmp_path / f"run_{seed}", tmp_path / "log"
    killed = kills.run_to_the_end([f"--config={config}", f"--workdir={workdir}"], workdir, log, count, seed)
    assert tiny_run.content(workdir) == tiny_run.content(whole)
    assert "Traceback" not in log.read_text()
    return killed


def test_killed_a_few_times(tmp_path, whole):
    assert check(tmp_path, whole, count=3, seed=0) > 0


@pytest.mark.long
def test_killed_two_hundred_times(tmp_path, whole, capsys):
    killed, runs = 0, 0
    while killed < 200:
        killed += check(tmp_path, whole, count=min(10, 200 - killed), seed=runs)
        runs += 1
        with capsys.disabled():
            print(f"{killed} kills in {runs} runs, nothing lost", flush=True)


def test_sigterm_saves_says_how_to_go_on_and_exits_with_75(tmp_path, whole):
    config = tiny_run.write_config_file(tmp_path / "configs" / "tiny.py", OVERRIDES)
    workdir, log = tmp_path / "run", tmp_path / "log"
    process = kills.start([f"--config={config}", f"--workdir={workdir}", "--config.seed=0"], log)
    while process.poll() is None and not (workdir / "metrics.jsonl").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75, log.read_text()
    last = log.read_text().splitlines()[-1]
    step = Checkpoints(workdir / "checkpoints").steps()[-1]
    command = f"./launch.sh train --config={config} --workdir={workdir} --config.seed=0"
    assert last == f"stopped and saved at step {step}. The same command goes on: {command}"
    train(tiny_run.config(OVERRIDES), workdir, say=lambda line: None)
    assert tiny_run.content(workdir) == tiny_run.content(whole)


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
