"""Runs a sweep: every row, every seed, each in its own directory; what is finished is left alone."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from transformer_jax.compilation import available_cpus
from transformer_jax.config import config_hash, with_values
from transformer_jax.data import make_dataset
from transformer_jax.errors import UserError
from transformer_jax.program import validate, with_vocabulary
from transformer_jax.run import Interruption, commit, count_parameters, stop_requested
from transformer_jax.run_directory import ERROR, RESULT, locked, read_json, write_json
from transformer_jax.sweeps.experiment import Experiment, Scale, Variant
from transformer_jax.sweeps.report import Report, write_report
from transformer_jax.sweeps.worker import STOPPED, Task, write_task

SWEEP = "sweep.json"
Say = Callable[[str], None]


def run_sweep(
    name: str,
    experiment: Experiment,
    scale_name: str,
    scale: Scale,
    variants: Sequence[Variant],
    workdir: Path,
    *,
    workers: int | None = None,
    retry_failed: bool = False,
    say: Say = print,
) -> Report:
    """Trains what is missing and writes the report.

    Args:
      variants: the rows on their base, see `make_variants`.
      workers: processes at a time; None: one for every two cores on CPU machines, one elsewhere.
      retry_failed: runs that failed before are tried again.

    Raises:
      UserError: the directory holds another sweep, or a config is refused.
      Interruption: asked to stop; the same call goes on.
    """
    for variant in variants:
        validate(variant.config)
    definition = describe_sweep(name, experiment, scale_name, scale, variants)
    _check_definition(workdir / SWEEP, definition)
    with locked(workdir):
        write_json(workdir / SWEEP, definition)
        tasks = _tasks(variants, scale.seeds, workdir, retry_failed)
        total = len(variants) * scale.seeds
        missing = sum(len(task.configs) for task in tasks)
        say(f"{total} runs, {len(variants)} programs; {total - missing} runs are done, {missing} to go.")
        _execute(tasks, workdir, workers or _default_workers(), say)
        return write_report(workdir)


def describe_sweep(
    name: str, experiment: Experiment, scale_name: str, scale: Scale, variants: Sequence[Variant]
) -> dict[str, Any]:
    """The content of sweep.json: all that the report must know beside the run directories."""
    tokenizers = {v.config.data: make_dataset(v.config.data).tokenizers for v in variants[:1]}
    rows = {}
    for variant in variants:
        if variant.config.data not in tokenizers:
            tokenizers[variant.config.data] = make_dataset(variant.config.data).tokenizers
        sized = with_vocabulary(variant.config, tokenizers[variant.config.data])
        rows[variant.name] = {
            "overrides": dict(variant.overrides),
            "parameters": count_parameters(sized),
            "partner": experiment.partners.get(variant.name),
            "paper": dict(experiment.paper.get(variant.name, {})),
            "note": experiment.notes.get(variant.name, ""),
            "config_hash": config_hash(sized),
        }
    return {
        "schema": 1,
        "name": name,
        "question": experiment.question,
        "hypothesis": experiment.hypothesis,
        "scale": scale_name,
        "config": os.path.relpath(scale.config),
        "base": experiment.base,
        "rows": rows,
        "seeds": list(range(scale.seeds)),
        "metric": scale.metric,
        "higher_is_better": scale.higher_is_better,
        "percent": scale.percent,
        "curve": experiment.curve,
        "commit": commit(),
    }


def _check_definition(path: Path, definition: Mapping[str, Any]) -> None:
    """More rows or seeds may come to a sweep; what a row means may not change under its runs."""
    if not path.is_file():
        return
    before = read_json(path)
    changed = [
        row
        for row, content in before["rows"].items()
        if row in definition["rows"] and definition["rows"][row]["config_hash"] != content["config_hash"]
    ]
    if before["name"] != definition["name"] or changed:
        what = f"rows that have changed since: {', '.join(changed)}" if changed else f"the sweep {before['name']!r}"
        raise UserError(f"{path.parent}: holds {what}. Give this sweep another --workdir.")


def run_directory_of(workdir: Path, row: str, seed: int) -> Path:
    """Where the run of a row and seed lies."""
    return workdir / "runs" / row / f"seed_{seed}"


def _tasks(variants: Sequence[Variant], seeds: int, workdir: Path, retry_failed: bool) -> list[Task]:
    tasks = []
    for variant in variants:
        directories = {seed: run_directory_of(workdir, variant.name, seed) for seed in range(seeds)}
        for directory in directories.values():
            if retry_failed:
                (directory / ERROR).unlink(missing_ok=True)
        open_seeds = [
            seed
            for seed, directory in directories.items()
            if not (directory / RESULT).is_file() and not (directory / ERROR).is_file()
        ]
        if open_seeds:
            configs = [with_values(variant.config, {"seed": seed}) for seed in open_seeds]
            tasks.append(Task(variant.name, configs, [directories[seed] for seed in open_seeds]))
    return tasks


def _default_workers() -> int:
    """One for each core where there is no accelerator, as small models do not fill two; else one."""
    return len(available_cpus()) if jax.default_backend() == "cpu" else 1


def _execute(tasks: Sequence[Task], workdir: Path, workers: int, say: Say) -> None:
    """Runs the tasks in processes of their own, `workers` at a time, so that none can harm another."""
    waiting = list(tasks)
    running: dict[int, subprocess.Popen[str]] = {}
    shares = [available_cpus()[k::workers] for k in range(workers)]
    with stop_requested() as stop:
        while (waiting and not stop) or running:
            for worker in set(range(workers)) - running.keys():
                if waiting and not stop:
                    running[worker] = _start(waiting.pop(0), workdir, shares[worker], say)
            if stop:
                for process in running.values():
                    process.send_signal(signal.SIGTERM)
            for worker, process in list(running.items()):
                if process.poll() is not None:
                    del running[worker]
            time.sleep(0.1)
    if stop:
        raise Interruption(None)


def _start(task: Task, workdir: Path, cpus: Sequence[int], say: Say) -> subprocess.Popen[str]:
    path = workdir / "tasks" / f"{task.name}.json"
    write_task(path, task)
    command = [sys.executable, "-m", "transformer_jax.sweeps.worker", str(path), ",".join(map(str, cpus))]
    # A session of its own: Ctrl-C reaches the sweep alone, which passes it on.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    threading.Thread(target=_follow, args=(task, process, say), daemon=True).start()
    return process


def _follow(task: Task, process: subprocess.Popen[str], say: Say) -> None:
    """Passes a worker's lines on; runs that a dying worker left without result are marked as failed."""
    assert process.stdout is not None
    tail = ""
    for line in process.stdout:
        say(line.rstrip("\n"))
        tail = (tail + line)[-2000:]
    if process.wait() in (0, 1, STOPPED):
        return
    for workdir in task.workdirs:
        if not (workdir / RESULT).is_file() and not (workdir / ERROR).is_file():
            message = f"the process of the run ended with status {process.returncode}"
            write_json(workdir / ERROR, {"type": "ProcessDied", "message": message, "traceback": tail})
