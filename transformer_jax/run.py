"""One run from config to `result.json`, to be read from top to bottom. Several runs of one program are a population."""

import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from transformer_jax.checkpoint import is_scheduled
from transformer_jax.config import Config, TrainConfig, field_at
from transformer_jax.errors import UserError
from transformer_jax.evaluation.evaluator import Trained
from transformer_jax.interruption import Interruption, stop_requested
from transformer_jax.program import (
    TRACEABLE,
    Program,
    common_config,
    count_parameters,
    differing,
    load_tokenizers,
    state_template,
    validate,
    with_vocabulary,
)
from transformer_jax.provenance import commit
from transformer_jax.record import SKIPPED, RunRecord, is_finite
from transformer_jax.run_directory import (
    CHECKPOINTS,
    CONFIG,
    DATA,
    METRICS,
    PREDICTIONS,
    RESULT,
    config_changes,
    is_result_of,
    locked,
    read_result,
    run_key,
    write_json,
    write_lines,
)
from transformer_jax.saved_run import load_params
from transformer_jax.strict_json import only_finite

Say = Callable[[str], None]
Result = dict[str, Any]


def train(config: Config, workdir: Path, *, allow_config_change: Collection[str] = (), say: Say = print) -> Result:
    """Trains and evaluates `config` in `workdir`, going on where an earlier call stopped; the content of result.json.

    Args:
      allow_config_change: dotted paths of fields that may differ from the config the run was started with.

    Raises:
      UserError: the config, the data or the directory cannot be used as they are.
      Interruption: SIGINT or SIGTERM; the same call goes on.
    """
    return train_group([config], [workdir], allow_config_change=allow_config_change, say=say)[0]


def train_group(
    configs: Sequence[Config],
    workdirs: Sequence[Path],
    *,
    program: Program | None = None,
    population: bool = False,
    allow_config_change: Collection[str] = (),
    say: Say = print,
) -> list[Result]:
    """Trains runs that differ in seed and traced numbers; each gets its directory, as if it were trained alone.

    Args:
      program: compiled for these configs by an earlier call, or None.
      population: train all at once, as lanes of one program; otherwise there is one run.
      allow_config_change: see `train`.
    """
    for path in allow_config_change:
        field_at(path)
    for config in configs:
        validate(config)
    _check_group(configs)
    commit()  # of the files as they are now, not when the run ends
    changed = [_changes(c, w, allow_config_change) for c, w in zip(configs, workdirs, strict=True)]
    if not any(changed) and all((workdir / RESULT).is_file() for workdir in workdirs):
        say(f"{', '.join(map(str, workdirs))}: is finished already.")
        return [read_result(workdir) for workdir in workdirs]
    lanes = len(configs) if population else None
    with contextlib.ExitStack() as stack:
        if program is None:
            program = Program(configs[0], lanes, load_tokenizers(workdirs[0]), differing(configs))
        sized = [with_vocabulary(config, program.dataset.tokenizers) for config in configs]
        for workdir in workdirs:
            stack.enter_context(locked(workdir))
        stop = stack.enter_context(stop_requested())
        runs = [RunRecord(c, w, program, allow_config_change, say) for c, w in zip(sized, workdirs, strict=True)]
        say(_introduction(program))
        for line in program.dataset.losses(program.config.data.max_length):
            say(line)
        _fit(program, runs, stop, say)
        return _conclude(program, runs, stop, say)


def _check_group(configs: Sequence[Config]) -> None:
    if any(common_config(config) != common_config(configs[0]) for config in configs):
        raise UserError(f"Runs of one program may differ in seed and {', '.join(TRACEABLE)} only.")


def _changes(config: Config, workdir: Path, allowed: Collection[str]) -> list[str]:
    """The allowed fields in which `config` differs from that of the run directory; refuses others before any work."""
    tokenizers, finished = load_tokenizers(workdir), (workdir / RESULT).is_file()
    if not (workdir / CONFIG).is_file():
        # It is written before what follows, so that no run which was killed is without it.
        left = [name for name in (RESULT, CHECKPOINTS, METRICS) if (workdir / name).exists()]
        known = finished and tokenizers is not None and is_result_of(workdir, with_vocabulary(config, tokenizers))
        if left and not known:
            raise UserError(
                f"{workdir}: has no {CONFIG}, and nothing says that its {' and '.join(left)} are of this config. "
                f"Restore {CONFIG}, or give the run another --workdir."
            )
        return []
    if tokenizers is None:
        raise UserError(f"{workdir}: has no tokenizer; the run directory is not complete.")
    sized = with_vocabulary(config, tokenizers)
    changed = config_changes(workdir, sized, allowed)
    if finished and not changed and not is_result_of(workdir, sized):
        raise UserError(
            f"{workdir}: its {RESULT} is of another config than {CONFIG}, other data than {DATA}, or other "
            "numerics than this version's. Give the run another --workdir."
        )
    return changed


def _introduction(program: Program) -> str:
    source, target = program.plan.padding_share
    return (
        f"{count_parameters(program.config):,} parameters; {len(program.dataset.splits['train']):,} training pairs in "
        f"batches of {len(program.plan.shapes)} shapes; {source:.0%} of source and {target:.0%} of target cells are "
        f"padding; {program.layout.devices} x {jax.devices()[0].device_kind}"
    )


# --- Training ---


def _restore(program: Program, runs: list[RunRecord], lane: Any, say: Say) -> tuple[int, Any]:
    """Step and state to go on from: the newest step at which all open runs have a good checkpoint, or the start.

    A run that is closed stands still at its own last checkpoint.
    """
    own = [run.checkpoints.newest_good() for run in runs]
    is_open = [step is None or run.was_open(step) for run, step in zip(runs, own, strict=True)]
    training = [run for run, still in zip(runs, is_open, strict=True) if still]
    common: int | None = None
    while len(newest := {run.checkpoints.newest_good(common) for run in training}) > 1:
        if None in newest:
            newest = {None}
            break
        common = min(step for step in newest if step is not None)
    start = newest.pop() if newest else max(step for step in own if step is not None)
    if start is None:
        if any(run.checkpoints.steps() for run in runs):
            say("Some of the runs have no checkpoint, so all of them start anew.")
        for run in runs:
            run.restart()
        return 0, program.init(lane)
    if start > program.config.train.steps:
        raise UserError(f"train.steps = {program.config.train.steps}, but {start} steps are trained already.")
    steps = [start if still or step is None else step for still, step in zip(is_open, own, strict=True)]
    template = state_template(program.config)
    return start, program.stack([run.resume(template, step) for run, step in zip(runs, steps, strict=True)])


def _fit(program: Program, runs: list[RunRecord], stop: list[int], say: Say) -> None:
    """Trains to the last step, or until every run has diverged or stopped early; a checkpoint holds the last state."""
    train = program.config.train
    lane = program.lane([run.config for run in runs])
    seeds = [run.config.seed for run in runs]
    start, state = _restore(program, runs, lane, say)
    if start:
        say(f"Going on at step {start}.")
    state, evaluated_lane = program.layout.put(state), program.layout.put(lane)
    clock = _Clock(runs)
    pending: list[tuple[int, int, Any]] = []
    step, save = start, start > 0
    while step < train.steps and any(run.open for run in runs):
        state, sums, count = program.dispatch(state, step, _next_stop(train, step) - step, seeds, lane)
        pending.append((step, count, sums))
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
            _evaluate(program, runs, step, Trained(state.evaluated, evaluated_lane), say)
            state = state.replace(alive=program.layout.put(program.stack([np.asarray(run.open) for run in runs])))
        if save:
            _save(program, runs, step, state)
            clock.skip()
        if stopping:
            _settle(runs)
            raise Interruption(step)
    if not save:
        _save(program, runs, step, state)  # all runs are closed: their states stand still
    _settle(runs)


def _next_stop(train: TrainConfig, step: int) -> int:
    """The step after `step` at which something is logged, evaluated or saved."""
    return min(train.steps, *(step - step % n + n for n in train.intervals))


def _collect(program: Program, runs: list[RunRecord], pending: list[tuple[int, int, Any]]) -> None:
    """Fetches what the steps measured and adds it to the windows; closes runs that are no longer finite."""
    stopping = program.config.train.on_nonfinite == "stop"
    for before, count, measured in jax.device_get(pending):
        for step, sums in enumerate(program.each_step(measured, count), before + 1):
            for run, own in zip(runs, program.unstack(sums), strict=True):
                if not run.open:
                    continue
                if is_finite(own):
                    run.add(own)
                elif stopping:
                    run.diverge(step, own, program)
                else:
                    run.add_skipped()
    pending.clear()


def _log(runs: list[RunRecord], step: int, steps: int, say: Say) -> None:
    lines = [run.log_window(step) for run in runs if run.open and run.window]
    if not lines:
        return
    # A line of skipped steps alone has no loss.
    means = {name: [line[name] for line in lines if name in line] for name in ("loss", "nll")}
    numbers = [f"{name} {sum(values) / len(values):.4f}" for name, values in means.items() if values]
    skipped = sum(line.get(SKIPPED, 0) for line in lines)
    numbers += [f"{skipped} skipped"] if skipped else []
    speed = sum(line["tokens_per_second"] for line in lines)
    left = (steps - step) * sum(run.seconds for run in runs) / step
    say(
        f"step {step}/{steps}  {'  '.join(numbers)}  {speed:,.0f} tokens/s  {int(left) // 60}:{int(left) % 60:02d} left"
    )


def _evaluate(program: Program, runs: list[RunRecord], step: int, trained: Trained, say: Say) -> None:
    decode_every = program.config.evaluate.decode_every
    decode = decode_every is not None and step % decode_every == 0
    found, texts = program.evaluator.measure(trained, program.dataset.splits["valid"], decode=decode)
    for lane, (run, metrics) in enumerate(zip(runs, found, strict=True)):
        if run.open:
            run.log_evaluation(step, metrics)
            if texts is not None:
                write_lines(run.workdir / PREDICTIONS / "valid.txt", texts[lane])
    say(f"step {step}  valid  {describe_metrics(*found)}")


def describe_metrics(*lanes: dict[str, Any]) -> str:
    """One line for a person: the numbers of a run, or the range of those of several."""
    parts = []
    for name in [name for name, value in lanes[0].items() if isinstance(value, float)]:
        values = [lane[name] for lane in lanes]
        ends = dict.fromkeys(f"{value:.4f}" for value in (min(values), max(values)))
        parts.append(f"{name} {' to '.join(ends)}")
    return "  ".join(parts)


def _save(program: Program, runs: list[RunRecord], step: int, state: Any) -> None:
    states = program.unstack(program.layout.get(state))
    _settle(runs)
    for run, own in zip(runs, states, strict=True):
        run.save(step, own)


def _settle(runs: list[RunRecord]) -> None:
    """Waits for the saves and then prunes, in this order: there is always a step at which all runs have checkpoints."""
    for run in runs:
        run.checkpoints.wait()
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
            run.seconds += seconds / len(self._runs)
            run.window_seconds += seconds

    def skip(self) -> None:
        """Leaves out what was not training."""
        self._since = time.perf_counter()


# --- The result ---


def _conclude(program: Program, runs: list[RunRecord], stop: list[int], say: Say) -> list[Result]:
    """Evaluates every split with the parameters that `evaluate.checkpoint` names, and writes result.json."""
    begun = time.perf_counter()
    for run in runs:
        run.count_skipped()
    choice = program.config.evaluate.checkpoint
    # A run that diverged has no score; its last good state only fills its lane.
    choices = [choice if run.status == "finished" else "last" for run in runs]
    params = program.stack([load_params(r.workdir, c) for r, c in zip(runs, choices, strict=True)])
    trained = program.layout.put(Trained(params, program.lane([run.config for run in runs])))
    measured: dict[str, list[dict[str, Any]]] = {}
    for split in [name for name in ("valid", "test") if name in program.dataset.splits]:
        if stop:
            raise Interruption(max(run.last_step for run in runs))
        measured[split], texts = program.evaluator.measure(trained, program.dataset.splits[split], decode=True)
        for run, metrics, text in zip(runs, measured[split], texts or [], strict=True):
            if run.status == "finished":
                write_lines(run.workdir / PREDICTIONS / f"{split}.txt", text)
                which = "" if len(runs) == 1 else f" of {run.workdir}"
                say(f"{choice} checkpoint{which}  {split}  {describe_metrics(metrics)}")
    seconds = (time.perf_counter() - begun) / len(runs)
    results = []
    for lane, run in enumerate(runs):
        good = run.status == "finished"
        results.append(
            {
                "schema": 1,
                "status": run.status,
                "key": run_key(run.config, program.dataset.fingerprint),
                "seed": run.config.seed,
                "parameters": count_parameters(run.config),
                "steps": run.last_step,
                "skipped": run.skipped,
                "best_step": run.best_step,
                "checkpoint": choice,
                "data": program.dataset.summary(),
                "metrics": only_finite({split: metrics[lane] for split, metrics in measured.items()}) if good else {},
                "seconds": {"train": run.seconds, "evaluate": seconds, "total": run.seconds + seconds},
                "executed": run.executions[-1],
                "executed_before": run.executions[:-1],
                "commit": commit(),
            }
        )
        if run.tensorboard is not None:
            run.tensorboard.close()
        write_json(run.workdir / RESULT, results[-1])  # last: a sweep may end this process as soon as it is there
    return results
