"""Runs a sweep: every row, every seed, each in its own directory; what is finished is left alone."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from transformer_jax.compilation import QUICK_COMPILATION, available_cpus, known_flags
from transformer_jax.errors import UserError
from transformer_jax.report.read import read_run, read_sweep
from transformer_jax.report.wording import count
from transformer_jax.report.write import Report, write_report
from transformer_jax.run.compile import check_lanes
from transformer_jax.run.directory import ERROR, SWEEP, write_json
from transformer_jax.run.lock import in_use, locked
from transformer_jax.sweeps.execution import Execution, choose_lanes, is_short
from transformer_jax.sweeps.experiment import Experiment, Scale, Variant
from transformer_jax.sweeps.grouping import Planned, group_by_program, make_tasks, representatives
from transformer_jax.sweeps.planning import plan_sweep
from transformer_jax.sweeps.pool import run_tasks
from transformer_jax.sweeps.reuse import finished_runs, reuse

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
    lanes: int | None = None,
    reuse_finished: bool = True,
    retry_failed: bool = False,
    time_limit: float | None = None,
    say: Say = print,
) -> Report:
    """Trains what is missing and writes the report.

    Args:
      variants: the rows on their base, see `make_variants`.
      workers: processes at a time; None: one for every core on CPU machines, one elsewhere.
      lanes: runs trained together by one program; 1: one after another; None: what a short
        calibration finds faster. A sweep that is resumed keeps its choice.
      reuse_finished: finished runs of the sweeps beside this one are reused where they are the same experiment.
      retry_failed: runs that failed before are tried again.
      time_limit: seconds for one run; one that takes longer is ended and shown as failed.

    Raises:
      UserError: the directory holds another sweep, or a config is refused.
      Interruption: asked to stop; the same call resumes.
    """
    for option, value in {"--workers": workers, "--lanes": lanes}.items():
        if value is not None and value < 1:
            raise UserError(f"{option}={value}: there must be at least one.")
    if time_limit is not None and not time_limit > 0:
        raise UserError(f"--time-limit={time_limit:g}: must be above 0 seconds.")
    environment = dict(os.environ)
    plan = plan_sweep(name, experiment, scale_name, scale, variants, workdir)
    definition, before, runs = plan.definition, plan.before, plan.runs
    workers = workers or _default_workers()
    short = jax.default_backend() == "cpu" and all(is_short(variant.config) for variant in variants)
    if short and "XLA_FLAGS" not in environment:
        environment["XLA_FLAGS"] = known_flags(QUICK_COMPILATION)
    if lanes is not None and lanes > 1:
        for variant in variants:
            check_lanes(variant.config)
    with locked(workdir):
        execution = Execution.read(before["execution"], workdir / SWEEP) if before else Execution()
        write_json(workdir / SWEEP, {**definition, "execution": dataclasses.asdict(execution)})
        if retry_failed:
            for run in runs:
                (run.workdir / ERROR).unlink(missing_ok=True)
        beside = [path.parent for path in sorted(workdir.absolute().parent.glob(f"*/{SWEEP}"))]
        _reuse(runs, beside if reuse_finished else [workdir], say)
        programs = group_by_program(representatives(runs))
        missing = sum(run.is_open for program in programs for run in program)
        say(f"{count(len(runs), 'run')}, {count(len(programs), 'program')}; {missing} to go.")
        if missing:
            together = execution.groups if lanes in (None, execution.lanes) else []
            wanted = lanes or execution.lanes
            lanes = choose_lanes(programs, wanted, workers, plan.datasets, workdir / "tasks", environment, say)
            tasks, groups = make_tasks(programs, together, lanes, workers)
            execution = Execution(lanes, groups)
            write_json(workdir / SWEEP, {**definition, "execution": dataclasses.asdict(execution)})
            run_tasks(tasks, workdir / "tasks", workers, time_limit, environment, say)
        _reuse(runs, [workdir], say, started=True)
        return write_report(workdir)


def _reuse(runs: Sequence[Planned], sweeps: Sequence[Path], say: Say, started: bool = False) -> None:
    """Uses finished runs of `sweeps` for open ones that are the same experiment; `started`: also for started ones."""
    known = finished_runs(sweeps)
    for run in runs:
        wanted = run.is_open and (started or not run.was_started)
        if wanted and (found := known.get(run.key)) and reuse(found, run.workdir):
            say(f"[{run.row} seed {run.config.seed}] is known already: reused from {found}")


def _default_workers() -> int:
    """One for each core where there is no accelerator, as small models do not fill two; else one."""
    return len(available_cpus()) if jax.default_backend() == "cpu" else 1


def sweep_status(workdir: Path, planned: Sequence[Planned] | None = None) -> list[dict[str, Any]]:
    """Row, seed, status and message of every run of a sweep, or of the `planned` ones, as its directory tells.

    The status is "running" where a process holds the run, "stopped" where it was interrupted and can be resumed.

    Raises:
      UserError: there is no sweep.
    """
    sweep = read_sweep(workdir)
    found = sweep.runs
    if planned is not None:
        known = {(run.row, run.seed): run for run in found}
        names = [(run.row, run.config.seed) for run in planned]
        found = tuple(known.get(name) or read_run(workdir, *name, sweep.metric) for name in names)
    runs = []
    for run in found:
        idle = run.status == "running" and (run.path is None or not in_use(workdir / run.path))
        status = "stopped" if idle else run.status
        last = max((step for points in run.curves.values() for step in points), default=None)
        message = run.message or ("" if last is None else f"evaluated at step {last}")
        runs.append({"row": run.row, "seed": run.seed, "status": status, "message": message})
    return runs
