"""Sweeps on Slurm: what is submitted, what is left to the queue, and, with a real Slurm, whole sweeps (long)."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import test_runner
import tiny_run

from transformer_jax.config import with_values
from transformer_jax.errors import UserError
from transformer_jax.report.read import read_run
from transformer_jax.run.directory import run_directory_of
from transformer_jax.sweeps import jobs, runner, slurm
from transformer_jax.sweeps.array_task import of_element
from transformer_jax.sweeps.grouping import Planned
from transformer_jax.sweeps.jobs import Job, cancel_jobs, in_queue, read_job
from transformer_jax.sweeps.runner import Submitted, sweep_status
from transformer_jax.sweeps.slurm import Cluster, make_cluster, submit
from transformer_jax.sweeps.worker import Task

HERE = Path(__file__).parent


def make_task(directory: Path, name: str, seeds: int = 2, lanes: int = 1) -> Task:
    configs = [with_values(tiny_run.config(), {"seed": seed}) for seed in range(seeds)]
    return Task(name, configs, [run_directory_of(directory, name, seed) for seed in range(seeds)], (), lanes)


# --- What is asked of Slurm ---


def test_flags_win_over_the_profile(tmp_path):
    (tmp_path / "slurm.toml").write_text(
        'partition = "gpu"\nmem = "32G"\nexclusive = true\nsetup = ["module load x"]\n'
    )
    cluster = make_cluster(tmp_path / "slurm.toml", {"partition": "debug", "time": None, "gpus-per-node": 2}, 7)
    options = {"partition": "debug", "mem": "32G", "exclusive": True, "gpus-per-node": 2}
    assert cluster == Cluster(options, ["module load x"], 7)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("partition = ", "slurm.toml: is no TOML"),
        ('array = "0-3"', "'array' is no option of sbatch that may be set here"),
        ('"mem --wrap" = 1', "'mem --wrap' is no option"),
        ("mem = 1.5", "mem is float"),
        ('setup = "module load x"', "setup must be a list"),
        (None, "slurm.toml: cannot be read"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(tmp_path, content, sentence):
    if content is not None:
        (tmp_path / "slurm.toml").write_text(content)
    with pytest.raises(UserError, match=sentence):
        make_cluster(tmp_path / "slurm.toml", {}, None)


@pytest.mark.parametrize(("limit", "dependencies"), [(2, [{}, {"dependency": "afterany:7"}]), (None, [{}, {}])])
def test_more_tasks_than_an_array_may_have_are_several_arrays(tmp_path, monkeypatch, limit, dependencies):
    """Where so many jobs may run at a time, the second array waits for the first: each would take so many."""
    submitted = []
    monkeypatch.setattr(slurm, "call", lambda *command: "MaxArraySize            = 3\n")
    monkeypatch.setattr(slurm, "_submit_array", lambda *given: submitted.append(given) or "7")
    tasks = [make_task(tmp_path, name) for name in "abcd"]
    submit(tasks, tmp_path, "ask", Cluster({}, (), limit), None, {}, lambda line: None)
    assert [[task.name for task in given[0]] for given in submitted] == [["a", "b", "c"], ["d"]]
    assert [given[4] for given in submitted] == dependencies
    assert len({given[2] for given in submitted}) == 2  # tokens


# --- What the queue says ---


@pytest.fixture
def queue(monkeypatch):
    """Lines that squeue prints, and how often it was asked."""
    lines: list[str] = []
    asked = []

    def call(command: str, *arguments: str) -> str:
        asked.append((command, *arguments))
        return "".join(f"{line}\n" for line in lines)

    monkeypatch.setattr(jobs, "call", call)
    return lines, asked


def test_slurm_is_asked_once_a_minute_for_all_jobs(tmp_path, queue, monkeypatch):
    lines, asked = queue
    lines += ["one-1|0|RUNNING", "one-1|1|PENDING", "two-2|N/A|PENDING"]
    given = {"a": Job("one-1", 0, "7"), "b": Job("one-1", 1, "7"), "c": Job("two-2", 0, "8"), "d": Job("one-1", 2, "7")}
    expected = {"a": "RUNNING", "b": "PENDING", "c": "PENDING"}
    assert in_queue(tmp_path, given) == expected
    lines.clear()
    assert in_queue(tmp_path, given) == expected  # of the last minute
    assert len(asked) == 1
    assert asked[0][-1] == "--name=one-1,two-2"
    slept = []
    monkeypatch.setattr(jobs.time, "sleep", slept.append)
    assert in_queue(tmp_path, given, wait=True, say=lambda line: None) == {}
    assert 50 < slept[0] <= 60
    assert len(asked) == 2
    now = time.time()
    monkeypatch.setattr(jobs.time, "time", lambda: now + 61)
    in_queue(tmp_path, given)
    assert len(asked) == 3


def test_a_number_that_comes_back_is_not_taken_for_the_job(tmp_path, queue):
    queue[0].append("other-2|0|RUNNING")
    assert in_queue(tmp_path, {"a": Job("one-1", 0, "7")}) == {}


@pytest.mark.parametrize("content", ["{", '{"asked": "x", "jobs": []}', '{"asked": 1.0, "jobs": [3]}'])
def test_a_damaged_answer_is_refused(tmp_path, queue, content):
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "queue.json").write_text(content)
    with pytest.raises(UserError, match="queue.json"):
        in_queue(tmp_path, {"a": Job("one-1", 0, "7")})


def test_a_job_leaves_runs_that_were_given_to_another(tmp_path):
    task = make_task(tmp_path, "a", seeds=4)
    mine = Job("one-1", 0)
    for workdir, job in zip(task.workdirs, (mine, Job("two-2", 0), Job("one-1", 1), mine), strict=True):
        job.write(workdir)
    (task.workdirs[3] / "result.json").write_text("{}")
    assert of_element(task, mine).workdirs == task.workdirs[:1]
    (task.workdirs[0] / "job.json").unlink()  # taken by a sweep on another machine
    assert of_element(task, mine).workdirs == []


def test_lanes_stay_together_until_all_are_settled(tmp_path):
    task, job = make_task(tmp_path, "a", lanes=2), Job("one-1", 0)
    for workdir in task.workdirs:
        job.write(workdir)
    (task.workdirs[0] / "result.json").write_text("{}")
    assert of_element(task, job) == task
    (task.workdirs[1] / "error.json").write_text("{}")
    assert of_element(task, job).workdirs == []


# --- A sweep that moves between executors ---


@pytest.fixture
def stand_ins(monkeypatch):
    """Nothing is trained: the tasks that were given to this machine, and those that were submitted."""
    here: list[Task] = []
    there: list[Task] = []
    monkeypatch.setattr(runner, "run_tasks", lambda tasks, *rest: here.extend(tasks))

    def submit(tasks, sweep, name, *rest):
        there.extend(tasks)
        for element, task in enumerate(tasks):
            for workdir in task.workdirs:
                Job("ask-1", element, "7").write(workdir)

    monkeypatch.setattr(runner, "submit", submit)
    monkeypatch.setattr(jobs, "SECONDS", 0.0)
    return here, there


def runs_of(tasks: list[Task]) -> set[str]:
    return {f"{workdir.parent.name}/{workdir.name}" for task in tasks for workdir in task.workdirs}


def test_runs_in_the_queue_are_left_to_it_and_the_others_are_taken_back(tmp_path, stand_ins, queue):
    here, there = stand_ins
    path = test_runner.make(tmp_path, {"base": {}, "no_wo": {"model.attention.output_projection": "none"}})
    said: list[str] = []
    options = {"workers": 2, "lanes": 2, "say": said.append}
    with pytest.raises(Submitted, match="the same command resumes"):
        test_runner.sweep(path, tmp_path / "work", cluster=Cluster({}), **options)
    assert runs_of(there) == {"base/seed_0", "base/seed_1", "no_wo/seed_0", "no_wo/seed_1"}
    assert {task.lanes for task in there} == {2}
    definition = json.loads((tmp_path / "work" / "sweep.json").read_text())
    assert read_run(tmp_path / "work", "base", 0, "test/chrf").status == "missing"
    waiting = "base" if there[0].workdirs[0].parent.name == "base" else "no_wo"
    queue[0].append("ask-1|0|PENDING")  # the other was cancelled
    log = tmp_path / "work" / "slurm" / "ask-1" / "7_1_0_log.err"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("one\nslurmstepd: error: CANCELLED\n")
    status = sweep_status(tmp_path / "work")
    assert {run["row"]: run["status"] for run in status} == {waiting: "queued", runs_other(waiting): "missing"}
    assert {run["message"] for run in status} == {"job 7_0", "job 7_1"}
    with pytest.raises(Submitted):
        test_runner.sweep(path, tmp_path / "work", **options)
    assert runs_of(here) == {f"{runs_other(waiting)}/seed_{seed}" for seed in (0, 1)}
    assert "2 runs are in Slurm's queue (2 pending), and left to it." in said
    assert any("its job 7_1 ended before it: slurmstepd: error: CANCELLED" in line for line in said)
    assert [read_job(workdir) for workdir in here[0].workdirs] == [None, None]  # a job that comes back finds it taken
    after = json.loads((tmp_path / "work" / "sweep.json").read_text())
    assert sorted(after["execution"]["groups"]) == sorted(definition["execution"]["groups"])


def runs_other(row: str) -> str:
    return {"base": "no_wo", "no_wo": "base"}[row]


def test_without_slurm_runs_that_were_given_to_it_are_not_trained_twice(tmp_path, stand_ins, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    path = test_runner.make(tmp_path, {"base": {}})
    with pytest.raises(Submitted):
        test_runner.sweep(path, tmp_path / "work", cluster=Cluster({}), say=lambda line: None)
    with pytest.raises(UserError, match="squeue is not on this machine"):
        test_runner.sweep(path, tmp_path / "work", say=lambda line: None)
    assert stand_ins[0] == []
    assert all("squeue is not" in run["message"] for run in sweep_status(tmp_path / "work"))


# --- A real Slurm: ./launch.sh test -m long -n 0 tests/sweeps/test_slurm.py ---


@pytest.fixture(scope="module")
def real_slurm():
    """A Slurm on this machine alone, installed where it is not there."""
    pytest.importorskip("submitit", reason="the extra [slurm] is not installed")
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("a Slurm of the tests' own is started by root, on Debian or Ubuntu")
    with pytest.MonkeyPatch.context() as patch:
        directory = Path("/tmp") / f"slurm-{os.getpid()}"  # not pytest's own: the path of a socket must be short
        start = [str(HERE / "start_slurm.sh"), str(directory)]
        done = subprocess.run(start, capture_output=True, text=True)
        try:
            if done.returncode:
                pytest.skip(f"Slurm does not start here: {done.stderr.strip() or done.stdout.strip()}")
            patch.setenv("SLURM_CONF", str(directory / "slurm.conf"))
            patch.setattr(jobs, "SECONDS", 1.0)
            yield
        finally:
            subprocess.run(["scancel", "--user=root"], env={**os.environ, "SLURM_CONF": str(directory / "slurm.conf")})
            subprocess.run([*start, "stop"], check=True)
            shutil.rmtree(directory, ignore_errors=True)


def slurm_says(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def until(what, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, slurm_says("squeue", "--array")
        time.sleep(0.3)


def step_of(workdir: Path) -> int:
    steps = [int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*")]
    return max(steps, default=0)


@pytest.mark.long
def test_a_sweep_on_a_real_slurm_is_preempted_stopped_cancelled_and_completed(tmp_path, real_slurm):
    """It comes to the results that it has on this machine: each job resumes where it was stopped."""
    rows = {name: {"model.num_heads": heads} for name, heads in (("base", 2), ("one", 1), ("four", 4), ("eight", 8))}
    path = test_runner.make(tmp_path, rows)
    values = {"train.steps": 2000, "train.checkpoint_every": 50, "train.evaluate_every": 1000, "train.log_every": 100}
    values |= {"evaluate.decode_every": None, "evaluate.checkpoint": "last"}
    tiny_run.write_config_file(tmp_path / "configs" / "tiny.py", values)
    work, said = tmp_path / "work", []

    def start(workdir=work, **options):
        return test_runner.sweep(path, workdir, seeds=1, say=said.append, **options)

    with pytest.raises(Submitted):
        start(cluster=Cluster({"partition": "debug", "time": "30"}, (), 1))
    assert ["3 tasks" in line for line in said if line.startswith("Submitted job")] == [True, False]  # MaxArraySize
    given = {row: read_job(run_directory_of(work, row, 0)) for row in rows}
    number = min(job.number for job in given.values())
    first = next(row for row, job in given.items() if job.name == f"{number}_0")
    run, log = run_directory_of(work, first, 0), work / "slurm" / given[first].token / f"{number}_0_0_log.out"

    def is_queued() -> bool:
        return slurm_says("squeue", "--noheader", "--states=PENDING", f"--jobs={number}_0").strip() != ""

    def resumed() -> int:
        return log.read_text().count("Resuming at step")

    # Somebody cancels two jobs that have not begun.
    slurm_says("scancel", f"{number}_1", f"{number}_2")
    # The one that runs makes place for another, saves, and is put into the queue by Slurm.
    until(lambda: step_of(run) >= 50)
    slurm_says("sbatch", "--partition=urgent", f"--ntasks={os.cpu_count()}", "--output=/dev/null", "--wrap=sleep 1")
    until(is_queued)
    slurm_says("scontrol", "update", f"JobId={number}_0", "StartTime=now")  # Slurm would wait for two minutes
    until(lambda: resumed() == 1)
    # It is told that its time is nearly over: it saves, and puts itself into the queue.
    before = step_of(run)
    until(lambda: step_of(run) > before)
    slurm_says("scancel", "--signal=TERM", f"{number}_0")
    until(is_queued)
    slurm_says("scontrol", "update", f"JobId={number}_0", "StartTime=now")
    until(lambda: resumed() == 2)
    status = {line["row"]: line["status"] for line in sweep_status(work)}
    assert sorted(status.values()) == ["missing", "missing", "queued", "running"]
    assert status[first] == "running"
    # The sweep is cancelled: nothing is put into the queue again.
    assert cancel_jobs(work, [planned(work, row) for row in rows]) == 2
    until(lambda: slurm_says("squeue", "--noheader") == "")
    assert not (run / "result.json").exists()
    # A job that was cancelled is no failed run: the next start, here on this machine, completes the sweep.
    report = start()
    assert {run.status for run in report.analysis.sweep.runs} == {"finished"}
    alone = start(tmp_path / "alone")
    for ours, theirs in zip(report.analysis.sweep.runs, alone.analysis.sweep.runs, strict=True):
        assert ours.curves == theirs.curves
        assert ours.result["metrics"] == theirs.result["metrics"]


def planned(work: Path, row: str) -> Planned:
    return Planned(row, tiny_run.config(), run_directory_of(work, row, 0), "")


@pytest.mark.long
def test_the_tasks_of_srun_train_one_run(tmp_path, real_slurm):
    """Without further options; each uses one device."""
    config = tiny_run.write_config_file(
        tmp_path / "tiny.py", {"train.steps": 8, "evaluate.decode_every": None, "evaluate.checkpoint": "last"}
    )
    command = [sys.executable, "-m", "transformer_jax.cli", "train", f"--config={config}", f"--workdir={tmp_path}/run"]
    said = slurm_says("srun", "--ntasks=2", "--chdir=/", "--export=ALL,JAX_NUM_CPU_DEVICES=1", *command)
    assert all(f"Process {k} of 2: 1 x cpu" in said for k in (0, 1))
    assert said.count("finished after 8 steps") == 1
    assert json.loads((tmp_path / "run" / "result.json").read_text())["executed"]["processes"] == 2
