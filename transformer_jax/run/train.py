"""One run from config to `result.json`, to be read from top to bottom; or several of one program, as its lanes."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from transformer_jax.checkpoint import is_scheduled
from transformer_jax.config import Config, TrainConfig, field_at, fields_of
from transformer_jax.errors import UserError
from transformer_jax.evaluation.evaluator import Trained
from transformer_jax.parallel.peers import Stop, StopTogether, arrays_of_first, check_same, of_first, signals_to_stop
from transformer_jax.run.compile import Program, compile_program, count_parameters, stack, state_template, unstack
from transformer_jax.run.conclude import Result, conclude, describe_metrics
from transformer_jax.run.directory import (
    CHECKPOINTS,
    CONFIG,
    DATA,
    METRICS,
    RESULT,
)
from transformer_jax.run.identity import config_changes, is_result_of, read_result
from transformer_jax.run.interruption import Interruption, stop_requested
from transformer_jax.run.lock import locked
from transformer_jax.run.profile import Window, check_window, profiled
from transformer_jax.run.progress import SKIPPED, is_finite
from transformer_jax.run.provenance import commit
from transformer_jax.run.record import RunRecord
from transformer_jax.run.resolve import common_config, differing, load_assets, resolve_config, traceable, validate
from transformer_jax.run.start import begin
from transformer_jax.training.state import Lane

Say = Callable[[str], None]


def train(
    config: Config,
    workdir: Path,
    *,
    allow_config_change: Collection[str] = (),
    profile: Window | None = None,
    say: Say = print,
) -> Result:
    """Trains and evaluates `config` in `workdir`, resuming where an earlier call stopped; the content of result.json.

    Args:
      allow_config_change: dotted paths of fields that may differ from the config the run was started with.
      profile: the first and the last of the steps, counted from 1, of which a trace is written.

    Raises:
      UserError: the config, the data or the directory cannot be used as they are.
      Interruption: SIGINT or SIGTERM; the same call resumes.
    """
    return train_lanes([config], [workdir], allow_config_change=allow_config_change, profile=profile, say=say)[0]


def train_lanes(
    configs: Sequence[Config],
    workdirs: Sequence[Path],
    *,
    program: Program | None = None,
    allow_config_change: Collection[str] = (),
    profile: Window | None = None,
    say: Say = print,
) -> list[Result]:
    """Trains runs that differ in seed and traced numbers, together; each gets its directory, as if it were alone.

    Args:
      program: compiled for these configs by an earlier call, or None.
      allow_config_change, profile: see `train`; a trace lies in the first directory.
    """
    for config in configs:
        for path in allow_config_change:
            field_at(path, fields_of(config))
        validate(config)
    _check_lanes(configs)
    if profile is not None:
        check_window(profile, 0, configs[0].train.steps)
    commit()  # that of the files as they are now, not when the run ends
    if finished := of_first(lambda: _finished(configs, workdirs, allow_config_change, profile, say)):
        return list(finished)
    with contextlib.ExitStack() as held:
        if program is None:
            assets = load_assets(workdirs[0], configs[0])
            program = compile_program(configs[0], len(configs), assets, differing(configs))
        resolved = [resolve_config(config, program.dataset.assets) for config in configs]
        runs = [RunRecord(c, w, program, allow_config_change, say) for c, w in zip(resolved, workdirs, strict=True)]
        of_first(functools.partial(_open, runs, program, held))
        stop = StopTogether(held.enter_context(stop_requested(signals_to_stop())))
        check_same(program.dataset.fingerprint, program.dataset.assets.fingerprint)
        say(_introduction(program))
        for line in program.dataset.losses(program.config.data.max_length):
            say(line)
        lanes = program.lanes(resolved)
        if profile is not None:
            traced = held.enter_context(profiled(program.steps, profile, program.config.train.steps, workdirs[0]))
            program = dataclasses.replace(program, steps=traced)
        fit(program, runs, lanes, stop, say)
        return conclude(program, runs, lanes, stop, say)


def _finished(
    configs: Sequence[Config], workdirs: Sequence[Path], allowed: Collection[str], profile: Window | None, say: Say
) -> list[Result] | None:
    """The results, if all runs have them and nothing changes; refuses what the directories do not allow."""
    changed = [_changes(c, w, allowed) for c, w in zip(configs, workdirs, strict=True)]
    if any(changed) or not all((workdir / RESULT).is_file() for workdir in workdirs):
        return None
    if profile is not None:
        check_window(profile, configs[0].train.steps, configs[0].train.steps)
    say(f"{', '.join(map(str, workdirs))}: is finished already.")
    return [read_result(workdir) for workdir in workdirs]


def _open(runs: Sequence[RunRecord], program: Program, held: contextlib.ExitStack) -> None:
    """Holds the directories, and lays their files down."""
    for run in runs:
        held.enter_context(locked(run.workdir))
    for run in runs:
        run.open(program)


def _check_lanes(configs: Sequence[Config]) -> None:
    if any(common_config(config) != common_config(configs[0]) for config in configs):
        raise UserError(f"Runs of one program may differ in seed and {', '.join(traceable(configs[0]))} only.")


def _changes(config: Config, workdir: Path, allowed: Collection[str]) -> list[str]:
    """The allowed fields in which `config` differs from that of the run directory; refuses others before any work."""
    assets, finished = load_assets(workdir, config), (workdir / RESULT).is_file()
    if not (workdir / CONFIG).is_file():
        # It is written before what follows, so that no run which was killed is without it.
        left = [name for name in (RESULT, CHECKPOINTS, METRICS) if (workdir / name).exists()]
        known = finished and assets is not None and is_result_of(workdir, resolve_config(config, assets))
        if left and not known:
            raise UserError(
                f"{workdir}: has no {CONFIG}, and nothing says that its {' and '.join(left)} are of this config. "
                f"Restore {CONFIG}, or give the run another --workdir."
            )
        return []
    if assets is None:
        raise UserError(f"{workdir}: has no {DATA}; the run directory is not complete.")
    resolved = resolve_config(config, assets)
    changed = config_changes(workdir, resolved, allowed)
    if finished and not changed and not is_result_of(workdir, resolved):
        raise UserError(
            f"{workdir}: its {RESULT} is of another config than {CONFIG}, other data than {DATA}, or other "
            "numerics than this version's. Give the run another --workdir."
        )
    return changed


def _introduction(program: Program) -> str:
    padding = ", ".join(f"{share:.0%} of the cells of {side}" for side, share in program.plan.padding_share.items())
    return (
        f"{count_parameters(program.config):,} parameters; {len(program.dataset.splits['train']):,} training examples "
        f"in batches of {len(program.plan.shapes)} shapes; padding: {padding or 'none'}; {program.layout.devices} x "
        f"{jax.devices()[0].device_kind}"
    )


# --- Training ---


def fit(program: Program, runs: list[RunRecord], lanes: Lane, stop: Stop, say: Say) -> None:
    """Trains to the last step, or until every run has diverged or stopped early; a checkpoint holds the last state."""
    train = program.config.train
    start, state = _restore(program, runs, lanes, say)
    if start:
        say(f"Resuming at step {start}.")
    clock = _Clock(runs)
    pending: list[tuple[int, int, Any]] = []
    step, save = start, start > 0
    while step < train.steps and any(run.progress.open for run in runs):
        state, totals, count = program.steps.take(state, step, _next_stop(train, step) - step, lanes)
        pending.append((step, count, totals))
        step += count
        stopping = bool(stop)  # asked once: a signal that comes later stops the next step
        evaluate = step % train.evaluate_every == 0 or step == train.steps
        save = stopping or is_scheduled(train, step)
        log = step % train.log_every == 0 or step == train.steps
        if log or save:
            _collect(program, runs, pending)
            clock.count()
        if log:
            _log(runs, step, train.steps, say)
        if evaluate:
            _evaluate(program, runs, step, Trained(state.evaluated, program.layout.put(lanes)), say)
            alive = np.asarray([run.progress.open for run in runs])
            state = state.replace(alive=program.layout.put(alive))
        if save:
            _save(program, runs, step, state)
            clock.skip()
        if stopping:
            _settle(runs)
            raise Interruption(step)
    if not save:
        _save(program, runs, step, state)  # all runs are closed: their states stand still
    _settle(runs)


def _restore(program: Program, runs: list[RunRecord], lanes: Lane, say: Say) -> tuple[int, Any]:
    """Step and state to resume at, as the first process reads them from disk; see `_read_newest`."""
    states: list[Any] = []

    def read() -> dict[str, Any]:
        step, found = _read_newest(program, runs, say)
        states.extend(found)
        return {"step": step, "runs": [run.told() for run in runs]}

    newest = of_first(read)
    if newest["step"] is None:
        return 0, begin(program, lanes, say)
    for run, told in zip(runs, newest["runs"], strict=True):
        run.follow(told)
    template = [state_template(program.config)] * len(runs)
    return newest["step"], program.layout.put(stack(arrays_of_first(states or None, template)))


def _read_newest(program: Program, runs: list[RunRecord], say: Say) -> tuple[int | None, list[Any]]:
    """The newest step at which all open runs have a good checkpoint, None for the start, and the states there.

    A run that is closed stands still at its own last checkpoint.
    """
    newest_of = [run.newest_good() for run in runs]
    is_open = [step is None or run.was_open(step) for run, step in zip(runs, newest_of, strict=True)]
    training = [run for run, still in zip(runs, is_open, strict=True) if still]
    newest = {step for step, still in zip(newest_of, is_open, strict=True) if still}
    while len(newest) > 1:
        common = min(newest, key=lambda step: step or 0)
        newest = {None} if common is None else {run.newest_good(common) for run in training}
    start = newest.pop() if newest else max(step for step in newest_of if step is not None)
    if start is None:
        if any(run.checkpoints.steps() for run in runs):
            say("Some of the runs have no checkpoint, so all of them start anew.")
        for run in runs:
            run.restart()
        return None, []
    if start > program.config.train.steps:
        raise UserError(f"train.steps = {program.config.train.steps}, but {start} steps are trained already.")
    steps = [start if still or step is None else step for still, step in zip(is_open, newest_of, strict=True)]
    template = state_template(program.config)
    return start, [run.resume(template, step) for run, step in zip(runs, steps, strict=True)]


def _next_stop(train: TrainConfig, step: int) -> int:
    """The step after `step` at which something is logged, evaluated or saved."""
    return min(train.steps, *(step - step % n + n for n in train.intervals))


def _collect(program: Program, runs: list[RunRecord], pending: list[tuple[int, int, Any]]) -> None:
    """Fetches what the steps measured and adds it to the windows; closes runs that are no longer finite."""
    stopping = program.config.train.on_nonfinite == "stop"
    for before, count, measured in program.layout.get(pending):
        for k in range(count):
            for lane, run in enumerate(runs):
                totals = {name: (sums[lane, k], counts[lane, k]) for name, (sums, counts) in measured.items()}
                if not run.progress.open:
                    continue
                if is_finite(totals):
                    run.progress.add(totals)
                elif stopping:
                    _diverge(program, run, before + k + 1, totals)
                else:
                    run.progress.add_skipped()
    pending.clear()


def _diverge(program: Program, run: RunRecord, step: int, totals: dict[str, Any]) -> None:
    """Closes a run of which `step` was not finite; its state is the last good one."""
    run.progress.open, run.progress.status, run.progress.last_step = False, "diverged", step
    batch = program.plan.batch_at(step - 1, run.config.seed)
    run.report_divergence(step, totals, batch)


def _log(runs: list[RunRecord], step: int, steps: int, say: Say) -> None:
    lines = [run.log_window(step) for run in runs if run.progress.open and run.progress.window]
    if not lines:
        return
    # A line of skipped steps alone has no loss.
    means = {name: [line[name] for line in lines if name in line] for name in ("loss", "nll")}
    numbers = [f"{name} {sum(values) / len(values):.4f}" for name, values in means.items() if values]
    skipped = sum(line.get(SKIPPED, 0) for line in lines)
    numbers += [f"{skipped} skipped"] if skipped else []
    for name in [name for name in lines[0] if name.endswith("_per_second")]:
        numbers.append(f"{sum(line[name] for line in lines):,.0f} {name.removesuffix('_per_second')}/s")
    left = (steps - step) * sum(run.progress.seconds for run in runs) / step
    say(f"step {step}/{steps}  {'  '.join(numbers)}  {int(left) // 60}:{int(left) % 60:02d} left")


def _evaluate(program: Program, runs: list[RunRecord], step: int, trained: Trained, say: Say) -> None:
    decode_every = program.config.evaluate.decode_every
    write = decode_every is not None and step % decode_every == 0
    metrics, texts = program.evaluator.measure(trained, program.dataset.splits["valid"], write=write)
    for lane, run in enumerate(runs):
        if run.progress.open:
            run.log_evaluation(step, metrics[lane])
            if texts is not None:
                run.write_texts("valid", texts[lane])
    say(f"step {step}  valid  {describe_metrics(*metrics)}")


def _save(program: Program, runs: list[RunRecord], step: int, state: Any) -> None:
    states = unstack(program.layout.get(state), len(runs))
    _settle(runs)
    for run, state_of_run in zip(runs, states, strict=True):
        run.save(step, state_of_run)


def _settle(runs: list[RunRecord]) -> None:
    """Waits for the saves and then prunes, in this order: there is always a step at which all runs have checkpoints."""
    for run in runs:
        run.wait()
    for run in runs:
        run.prune()


class _Clock:
    """Seconds of training, shared out to the runs that train together."""

    def __init__(self, runs: list[RunRecord]):
        self._runs = runs
        self._since = time.perf_counter()

    def count(self) -> None:
        """Adds the time since the last call to the runs."""
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        for run in self._runs:
            run.progress.seconds += seconds / len(self._runs)
            run.progress.window_seconds += seconds

    def skip(self) -> None:
        """Leaves out what was not training."""
        self._since = time.perf_counter()
