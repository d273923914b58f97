"""A real training process, killed with SIGKILL at random moments, also during saves: nothing is lost, not one bit."""

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import kills
import pytest
import tiny_run

from transformer_jax.checkpoint import Checkpoints
from transformer_jax.run.train import train

# Long enough that kills come within training; a save every fifth step, so that many hit one.
OVERRIDES = {"train.steps": 120, "train.evaluate_every": 40, "evaluate.decode_every": 40, "train.log_every": 7}
VARIANTS = {
    "length classes": {},
    "packed": {"data.batching": "packed"},
    "several steps a dispatch": {"train.steps_per_dispatch": 4, "data.length_classes": 1},
}


def arguments_of(directory: Path, overrides: dict) -> list[str]:
    """`train`, with `directory`/run as the run directory."""
    config = tiny_run.write_config_file(directory / "configs" / "tiny.py", OVERRIDES | overrides)
    return ["train", f"--config={config}", f"--workdir={directory / 'run'}"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Callable[[str], dict]:
    """The content of the run of a variant that is never stopped."""

    @functools.cache
    def content(variant: str) -> dict:
        workdir = tmp_path_factory.mktemp("whole") / "run"
        train(tiny_run.config(OVERRIDES | VARIANTS[variant]), workdir, say=lambda line: None)
        return tiny_run.content(workdir)

    return content


def test_terminated_and_killed(tmp_path, whole):
    """SIGTERM saves, says how to resume and exits with 75; then come the kills."""
    arguments = arguments_of(tmp_path, VARIANTS["length classes"])
    log, metrics = tmp_path / "log", tmp_path / "run" / "metrics.jsonl"
    process = kills.start(arguments, log)
    while process.poll() is None and not metrics.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75, log.read_text()
    step = Checkpoints(tmp_path / "run" / "checkpoints").steps()[-1]
    command = " ".join(["./launch.sh", *arguments])
    said = f"stopped and saved at step {step}. The same command resumes: {command}"
    assert log.read_text().splitlines()[-1] == said
    assert kills.run_to_the_end(arguments, tmp_path / "run", log, kills=4, seed=0) > 0
    assert f"Resuming at step {step}." in log.read_text()
    assert tiny_run.content(tmp_path / "run") == whole("length classes")


def killed(arguments: list[str], workdir: Path, log: Path, many: int, check: Callable[[], None]) -> int:
    """Kills that many times, at most ten in a run; the number of runs."""
    done = runs = 0
    while done < many:
        done += kills.run_to_the_end(arguments, workdir, log, min(10, many - done), seed=runs)
        check()
        assert "Traceback" not in log.read_text()
        workdir.rename(workdir.with_name(f"{workdir.name}_{runs}"))
        runs += 1
    return runs


@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_fifty_times(tmp_path, whole, variant, capsys):
    workdir = tmp_path / "run"

    def check() -> None:
        assert tiny_run.content(workdir) == whole(variant)

    runs = killed(arguments_of(tmp_path, VARIANTS[variant]), workdir, tmp_path / "log", 50, check)
    with capsys.disabled():
        print(f"\n{variant}: 50 kills in {runs} runs, nothing lost", flush=True)


EXPERIMENT = '''"""Does it survive?

Question: Does it survive?

Hypothesis: It does.
"""
from transformer_jax.sweeps.experiment import Experiment, Scale
SCALES = {"small": Scale("configs/tiny.py", seeds=2, metric="test/chrf", percent=False)}
EXPERIMENT = Experiment(rows={"base": {}, "drop": {"model.dropout_rate": 0.3}}, scales=SCALES)
'''


@pytest.mark.long
def test_a_sweep_of_lanes_killed_fifty_times(tmp_path, capsys):
    """Two programs of two lanes, one process: the sweep and its worker are killed."""
    tiny_run.write_config_file(tmp_path / "configs" / "tiny.py", OVERRIDES)
    experiment, workdir, log = tmp_path / "experiments" / "ask.py", tmp_path / "killed", tmp_path / "log"
    experiment.parent.mkdir()
    experiment.write_text(EXPERIMENT)
    command = ["sweep", str(experiment), "--lanes=2", "--workers=1", "--no-reuse"]
    assert kills.start([*command, f"--workdir={tmp_path / 'whole'}"], log).wait() == 0, log.read_text()

    def check() -> None:
        for run in (f"runs/{row}/seed_{seed}" for row in ("base", "drop") for seed in (0, 1)):
            assert tiny_run.content(workdir / run) == tiny_run.content(tmp_path / "whole" / run)

    runs = killed([*command, f"--workdir={workdir}"], workdir, log, 50, check)
    with capsys.disabled():
        print(f"\na sweep of lanes: 50 kills in {runs} sweeps, nothing lost", flush=True)


DEVICES = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import pytest, tiny_run
from transformer_jax.run.compile import compile_program
from transformer_jax.run.interruption import Interruption
from transformer_jax.run.train import train_lanes

CHANGED = [f"parallel.{axis}" for axis in ("data", "fsdp", "tensor")]

def train(stop=None, **parallel):
    config = tiny_run.config({f"parallel.{axis}": size for axis, size in parallel.items()})
    program = compile_program(config)
    assert program.layout.devices == 8
    if stop is not None:
        program = tiny_run.stop_at(program, stop)
    train_lanes(
        [config], [Path(sys.argv[2])], program=program, allow_config_change=CHANGED, say=lambda line: None
    )

with pytest.raises(Interruption):
    train(stop=15, data=8)
train(fsdp=4, tensor=2)
"""


def test_devices_may_change_in_number_and_in_what_they_share(tmp_path):
    """1 device up to step 13, 8 faked ones that share batches to step 15, then 4 x 2 that share parameters too.

    The same losses to float tolerance, dropout on; at the end no device has the parameters that are evaluated whole.
    """
    workdir = tiny_run.copy_of(tiny_run.stopped(), tmp_path / "run")
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "8"}
    here = str(Path(tiny_run.__file__).parent)
    subprocess.run([sys.executable, "-c", DEVICES, here, str(workdir)], env=environment, check=True)
    found, expected = (tiny_run.content(run)["log"] for run in (workdir, tiny_run.finished()))
    assert len(found) == len(expected)
    for line, other in zip(found, expected, strict=True):
        numbers = {name: value for name, value in other.items() if isinstance(value, float) and name != "chrf"}
        assert {name: line[name] for name in numbers} == pytest.approx(numbers, rel=2e-4)
