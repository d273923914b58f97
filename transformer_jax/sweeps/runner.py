"""Runs a sweep: every row, every seed, each in its own directory; what is finished is left alone."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from transformer_jax.compilation import QUICK_COMPILATION, available_cpus, known_flags
from transformer_jax.errors import UserError
from transformer_jax.report.comparison import all_pairs
from transformer_jax.report.read import read_run, read_sweep
from transformer_jax.report.rounds import settle
from transformer_jax.report.wording import count
from transformer_jax.report.write import Report, write_report
from transformer_jax.run.compile import check_lanes
from transformer_jax.run.directory import ERROR, JOB, SWEEP, write_json
from transformer_jax.run.lock import in_use, locked
from transformer_jax.sweeps.execution import Execution, choose_lanes, is_short
from transformer_jax.sweeps.experiment import Experiment, Scale, Variant
from transformer_jax.sweeps.grouping import Planned, group_by_program, make_tasks, representatives
from transformer_jax.sweeps.jobs import Job, cancel_jobs, describe_queue, in_queue, jobs_of, last_words, read_job
from transformer_jax.sweeps.planning import SweepPlan, plan_sweep
from transformer_jax.sweeps.pool import run_tasks
from transformer_jax.sweeps.reuse import finished_runs, reuse
from transformer_jax.sweeps.slurm import Cluster, submit
from transformer_jax.sweeps.worker import TASKS, Task

Say = Callable[[str], None]
RunName = tuple[str, int]


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
    cluster: Cluster | None = None,
    say: Say = print,
) -> Report:
    """Trains what is missing and writes the report; where the scale has rounds, one after the other.

    Args:
      variants: the rows on their base, see `make_variants`.
      workers: processes at a time; None: one for every core on CPU machines, one elsewhere.
      lanes: runs trained together by one program; 1: one after another; None: what a short
        calibration finds faster. A sweep that is resumed keeps its choice.
      reuse_finished: finished runs of the sweeps beside this one are reused where they are the same experiment.
      retry_failed: runs that failed before are tried again.
      time_limit: seconds for one run; one that takes longer is ended and shown as failed.
      cluster: what is missing is submitted to Slurm; None: it is trained by processes of this machine.

    Raises:
      UserError: the directory holds another sweep, or a config is refused.
      Interruption: asked to stop; the same call resumes.
      Submitted: runs are in Slurm's queue; once they are done, the same call, or one without `cluster`, resumes.
    """
    for option, value in {"--workers": workers, "--lanes": lanes}.items():
        if value is not None and value < 1:
            raise UserError(f"{option}={value}: there must be at least one.")
    if time_limit is not None and not time_limit > 0:
        raise UserError(f"--time-limit={time_limit:g}: must be above 0 seconds.")
    environment = dict(os.environ)
    plan = plan_sweep(name, experiment, scale_name, scale, variants, workdir, here=cluster is None)
    workers = workers or (1 if cluster else _default_workers())
    short = cluster is None and jax.default_backend() == "cpu" and all(is_short(variant.config) for variant in variants)
    if short and "XLA_FLAGS" not in environment:
        environment["XLA_FLAGS"] = known_flags(QUICK_COMPILATION)
    if lanes is not None and lanes > 1 and cluster is None:
        for variant in variants:
            check_lanes(variant.config)
    how = _How(workers, lanes, time_limit, environment, cluster, say)
    with locked(workdir):
        execution = Execution.read(plan.before["execution"], workdir / SWEEP) if plan.before else Execution()
        if retry_failed:
            for run in plan.runs:
                (run.workdir / ERROR).unlink(missing_ok=True)
        beside = [path.parent for path in sorted(workdir.absolute().parent.glob(f"*/{SWEEP}"))]
        definition, runs = plan.definition, plan.runs
        seeds: Mapping[str, int] = {}
        while True:
            if scale.rounds:
                definition, runs = plan.in_round(seeds or dict.fromkeys(definition["rows"], scale.rounds[0]))
            _write_definition(workdir, definition, execution)
            _reuse(runs, beside if reuse_finished else [workdir], say)
            execution = _train_missing(runs, definition, execution, plan, workdir, how, again=bool(seeds))
            _reuse(runs, [workdir], say, started=True)
            progress = settle(sweep := read_sweep(workdir), all_pairs(sweep))
            if not scale.rounds or progress.is_over or progress.seeds == seeds:
                return write_report(workdir)
            seeds = progress.seeds
            names = [row for row, number in seeds.items() if number == scale.rounds[progress.round - 1]]
            settled = len(progress.outcomes) - progress.open
            say(
                f"{settled} of {count(len(progress.outcomes), 'comparison')} settled; round {progress.round} of "
                f"{len(scale.rounds)}: {', '.join(names)} with {scale.rounds[progress.round - 1]} seeds."
            )


class Submitted(Exception):  # noqa: N818 - nothing went wrong
    """Runs of a sweep are in Slurm's queue."""

    def __init__(self, workdir: Path):
        super().__init__(
            f"{workdir}: runs are in Slurm's queue. `--status` shows them; once they are done, the same command "
            "resumes and writes the report."
        )


@dataclasses.dataclass(frozen=True)
class _How:
    """How runs are trained; see `run_sweep`."""

    workers: int
    lanes: int | None
    time_limit: float | None
    environment: dict[str, str]
    cluster: Cluster | None
    say: Say


def _write_definition(workdir: Path, definition: Mapping[str, Any], execution: Execution) -> None:
    write_json(workdir / SWEEP, {**definition, "execution": dataclasses.asdict(execution)})


def _train_missing(
    runs: Sequence[Planned],
    definition: Mapping[str, Any],
    execution: Execution,
    plan: SweepPlan,
    workdir: Path,
    how: _How,
    again: bool,
) -> Execution:
    """Trains or submits the runs that are open, and says how; what was started together stays together.

    Args:
      again: a round before this one was trained here: its lanes stand, and are not timed anew.

    Raises:
      Submitted: what is open now is in Slurm's queue.
    """
    queued = in_queue(workdir, jobs_of(runs), wait=True, say=how.say)
    taken = {run.key for run in runs if run.name in queued}
    programs = group_by_program(run for run in representatives(runs) if run.key not in taken)
    missing = sum(run.is_open for program in programs for run in program)
    how.say(f"{count(len(runs), 'run')}, {count(len(programs), 'program')}; {missing} to go.")
    if queued:
        how.say(f"{describe_queue(queued)}, and left to it.")
    if missing:
        kept = [group for group in execution.groups if any(name in queued for name in group)]
        together = execution.groups if how.lanes in (None, execution.lanes) else []
        wanted = how.lanes or execution.lanes
        if how.cluster:
            lanes, parts = wanted or 1, how.cluster.max_parallel or len(programs)
        elif again and wanted:
            lanes, parts = wanted, how.workers
        else:
            lanes, parts = _choose_lanes(programs, wanted, plan, workdir, how), how.workers
        work, groups = make_tasks(programs, together, lanes, parts)
        execution = Execution(lanes, [*kept, *groups])
        _write_definition(workdir, definition, execution)
        _work_off(work, definition["name"], workdir, how)
    if queued or (missing and how.cluster):
        raise Submitted(workdir)
    return execution


def _choose_lanes(
    programs: Sequence[Sequence[Planned]], wanted: int | None, plan: SweepPlan, workdir: Path, how: _How
) -> int:
    return choose_lanes(programs, wanted, how.workers, plan.datasets, workdir / TASKS, how.environment, how.say)


def _work_off(work: Sequence[Task], name: str, workdir: Path, how: _How) -> None:
    """Trains the tasks here, or submits them. They belong to no job that was submitted before."""
    for task in work:
        for run, job in [(run, read_job(run)) for run in task.workdirs]:
            if job is not None:
                words = f": {last}" if (last := last_words(workdir, job)) else "."
                how.say(f"[{run.parent.name} {run.name}] its job {job.name} ended before it{words}")
                (run / JOB).unlink()
    if how.cluster:
        submit(work, workdir, name, how.cluster, how.time_limit, how.environment, how.say)
    else:
        run_tasks(work, workdir / TASKS, how.workers, how.time_limit, how.environment, how.say)


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


def sweep_status(workdir: Path, plan: SweepPlan | None = None) -> list[dict[str, Any]]:
    """Row, seed, status and message of every run of a sweep, or of those that are planned, as its directory tells.

    The status is "running" where a process holds the run, "queued" where its job waits in Slurm's queue, "stopped"
    where it was interrupted and can be resumed.

    Raises:
      UserError: there is no sweep.
    """
    sweep = read_sweep(workdir)
    found = sweep.runs
    if plan is not None:
        planned = plan.runs
        if plan.definition["rounds"]:
            first = dict.fromkeys(plan.definition["rows"], plan.definition["rounds"][0])
            _, planned = plan.in_round({**first, **settle(sweep, all_pairs(sweep)).seeds})
        known = {(run.row, run.seed): run for run in found}
        names = [(run.row, run.config.seed) for run in planned]
        found = tuple(known.get(name) or read_run(workdir, *name, sweep.metric) for name in names)
    jobs = {}
    for run in found:
        if run.status in ("running", "missing") and run.path and (job := read_job(workdir / run.path)):
            jobs[run.row, run.seed] = job
    queued, unknown = _asked(workdir, jobs)
    runs = []
    for run in found:
        name = run.row, run.seed
        idle = run.status == "running" and (run.path is None or not in_use(workdir / run.path))
        status = _QUEUED.get(queued[name], "queued") if name in queued else "stopped" if idle else run.status
        last = max((step for points in run.curves.values() for step in points), default=None)
        parts = [run.message or ("" if last is None else f"evaluated at step {last}")]
        parts += [f"job {jobs[name].name}{unknown}"] if name in jobs else []
        runs.append({"row": run.row, "seed": run.seed, "status": status, "message": "; ".join(filter(None, parts))})
    return runs


_QUEUED = {"RUNNING": "running", "COMPLETING": "running"}


def _asked(workdir: Path, jobs: Mapping[RunName, Job]) -> tuple[dict[RunName, str], str]:
    """What Slurm says of the jobs, and what is said beside them where it cannot be asked."""
    try:
        return in_queue(workdir, jobs), ""
    except UserError as error:
        return {}, f" ({error})"


def cancel_sweep(workdir: Path, plan: SweepPlan) -> int:
    """Cancels the jobs of a sweep that are in Slurm's queue; how many. What runs saves first, and can be resumed.

    Raises:
      UserError: Slurm cannot be asked.
    """
    return cancel_jobs(workdir, plan.runs)
