"""Processes that train one run together; real ones (long), on CPUs, whose sums travel by Gloo."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run

from transformer_jax.checkpoint import Checkpoints
from transformer_jax.errors import UserError
from transformer_jax.parallel import peers
from transformer_jax.parallel.peers import Peers, find_peers
from transformer_jax.run.compile import state_template
from transformer_jax.run.directory import CHECKPOINTS, METRICS
from transformer_jax.run.identity import read_config

# --- How they find each other ---


def test_without_settings_a_process_is_alone():
    assert find_peers(None, None, None, {}) is None
    batch_script = {"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"}  # not started by srun
    assert find_peers(None, None, None, batch_script) is None
    assert find_peers(None, None, None, {"TPU_WORKER_HOSTNAMES": "a"}) is None
    assert find_peers(None, None, None, {"TPU_WORKER_HOSTNAMES": "a,b"}) == Peers(None, None, None)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("localhost:1234", 2, None), "--process-id: give all of"),
        ((None, 2, 0), "--coordinator: give all of"),
        (("localhost:1234", 2, 2), "--process-id=2: the 2 processes are counted from 0"),
        (("localhost", 2, 0), "--coordinator=localhost: give HOST:PORT"),
        (("no.such.host.invalid:1", 2, 0), "no.such.host.invalid is not known"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, sentence):
    with pytest.raises(UserError, match=sentence):
        find_peers(*given, {})


def test_a_coordinator_at_the_loopback_address_is_refused_across_hosts(monkeypatch):
    two_hosts = {"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "node[07-08]"}
    assert find_peers("localhost:1", 2, 0, {}) == Peers("localhost:1", 2, 0)
    with pytest.raises(UserError, match=r"localhost:1 is the loopback address here"):
        find_peers("localhost:1", 2, 0, two_hosts)
    asked = []

    def resolve(host: str, port: None) -> list:
        asked.append(host)
        return [(0, 0, 0, "", ("127.0.1.1", 0))]

    monkeypatch.setattr(peers.socket, "getaddrinfo", resolve)  # as Debian does for a machine's own name
    for given in ((None, None, None), ("node07:1", 2, 0)):
        with pytest.raises(UserError, match=r"127\.0\.1\.1"):
            find_peers(*given, two_hosts if given[0] is None else {})
    assert asked == ["node07", "node07"]


SLURM = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": "node1,node2", "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}


@pytest.mark.parametrize(
    ("environment", "devices", "granted"),
    [
        ({"SLURM_GPUS_ON_NODE": "8"}, list(range(8)), 8),  # one task has all of them: JAX would take the first
        ({"SLURM_GPUS_ON_NODE": "8", "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_LOCALID": "1"}, [1, 3, 5, 7], 4),
        ({"SLURM_STEP_TASKS_PER_NODE": "1,3", "SLURM_NODEID": "1", "SLURM_LOCALID": "2"}, [2, 5], None),
        ({"SLURM_GPUS_PER_TASK": "2", "CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_ON_NODE": "8"}, [0, 1], 2),
        ({"CUDA_VISIBLE_DEVICES": ""}, None, None),
    ],
)
def test_a_task_of_slurm_takes_all_gpus_that_are_its_own(environment, devices, granted):
    found = find_peers(None, None, None, {**SLURM, **environment})
    assert found == Peers(None, None, None, devices, granted)


# --- Two processes ---

VALUES = {"evaluate.metrics": ("exact_match",), "evaluate.checkpoint": "last", "model.dropout_rate": 0.0}


class Together:
    """Processes of one run, and what each of them printed."""

    def __init__(self, config: Path, workdir: Path, number: int = 2, command: str = "train"):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        what = [f"--config={config}"] if command == "train" else []
        arguments = [sys.executable, "-m", "transformer_jax.cli", command, *what, f"--workdir={workdir}"]
        arguments += [f"--coordinator=localhost:{port}", f"--num-processes={number}"]
        self.logs = [workdir.parent / f"{workdir.name}-{port}-{k}.log" for k in range(number)]
        self.processes = []
        for k, log in enumerate(self.logs):
            with log.open("w") as file:
                env = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
                process = subprocess.Popen([*arguments, f"--process-id={k}"], stdout=file, stderr=file, env=env)
                self.processes.append(process)

    def text(self) -> str:
        return "\n".join(f"=== {log.name}\n{log.read_text()}" for log in self.logs)

    def wait(self, seconds: float = 300) -> list[int]:
        """Exit statuses; the logs of all are shown if they do not end."""
        try:
            return [process.wait(seconds) for process in self.processes]
        except subprocess.TimeoutExpired:
            raise AssertionError(self.text()) from None
        finally:
            for process in self.processes:
                process.kill()

    def until(self, path: Path) -> None:
        while not path.exists():
            assert all(process.poll() is None for process in self.processes), self.text()
            time.sleep(0.02)


def log_of(workdir: Path) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / METRICS).read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.endswith("_per_second")} for line in lines]


def assert_same_run(one: Path, other: Path) -> None:
    """To the tolerance of another order of sums."""
    ours, theirs = log_of(one), log_of(other)
    assert [(line["step"], line["split"]) for line in ours] == [(line["step"], line["split"]) for line in theirs]
    for mine, yours in zip(ours, theirs, strict=True):
        for name in ("loss", "nll", "token_accuracy"):
            assert mine.get(name, 0.0) == pytest.approx(yours.get(name, 0.0), rel=1e-4, abs=1e-5), name


@pytest.mark.long
def test_two_processes_train_as_one_does(tmp_path):
    """Every file is written once, and each of 12 examples is counted once, at 16 places."""
    values = {**VALUES, "train.steps": 6, "train.evaluate_every": 3, "evaluate.decode_every": None}
    values |= {"data.length_classes": 1}
    config = tiny_run.write_config_file(tmp_path / "tiny.py", values)
    together = Together(config, tmp_path / "two")
    alone = tiny_run.program(**{path.replace(".", "__"): value for path, value in values.items()})
    tiny_run.train_here(tmp_path / "one", compiled=alone)
    assert together.wait() == [0, 0], together.text()
    assert_same_run(tmp_path / "two", tmp_path / "one")
    assert "Process 1 of 2: 1 x cpu" in together.logs[1].read_text()
    assert "finished after" not in together.logs[1].read_text()
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    assert two["executed"]["devices"] == 2
    assert two["metrics"]["test"]["nll"] == pytest.approx(one["metrics"]["test"]["nll"], rel=1e-4)
    assert [
        len((tmp_path / name / "predictions" / "test.txt").read_text().splitlines()) for name in ("one", "two")
    ] == [12, 12]


@pytest.mark.long
def test_processes_stop_together_end_together_and_resume(tmp_path):
    """SIGTERM at one stops all at one step; one that is killed ends all; what resumes is the run that never stopped."""
    values = {**VALUES, "model.dropout_rate": 0.1, "train.steps": 600, "train.log_every": 20}
    values |= {"train.checkpoint_every": 20, "train.evaluate_every": 300, "evaluate.decode_every": None}
    config = tiny_run.write_config_file(tmp_path / "tiny.py", values)
    whole = Together(config, tmp_path / "whole")
    assert whole.wait() == [0, 0], whole.text()

    work = tmp_path / "work"
    first = Together(config, work)
    first.until(work / CHECKPOINTS / "00000020")
    first.processes[1].send_signal(signal.SIGTERM)
    assert first.wait() == [75, 75], first.text()
    steps = [re.findall(r"stopped and saved at step (\d+)", log.read_text()) for log in first.logs]
    assert steps[0] == steps[1], first.text()
    assert (work / CHECKPOINTS / f"{int(steps[0][0]):08d}").is_dir()

    for victim in (1, 0):
        again = Together(config, work)
        before = max(Checkpoints(work / CHECKPOINTS).steps())
        again.until(work / CHECKPOINTS / f"{(before // 20 + 2) * 20:08d}")
        again.processes[victim].kill()
        killed = time.monotonic()
        statuses = again.wait(60)
        assert time.monotonic() - killed < 60
        assert statuses[1 - victim] not in (0, 75)
        assert "another task died" in again.text() or "one has ended" in again.text()

    last = Together(config, work)
    assert last.wait() == [0, 0], last.text()
    assert log_of(work) == log_of(tmp_path / "whole")
    template = state_template(read_config(work))
    ours, theirs = (Checkpoints(path / CHECKPOINTS).restore(template, 600)[0] for path in (work, tmp_path / "whole"))
    for mine, yours in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(mine, yours)
