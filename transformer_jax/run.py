"""One run from config to `result.json`, to be read from top to bottom. Several runs of one program are a population."""

import contextlib
import functools
import importlib.metadata
import math
import platform
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter

from transformer_jax.checkpoint import Checkpoints, is_scheduled
from transformer_jax.compilation import available_cpus
from transformer_jax.config import Config, TrainConfig, field_at
from transformer_jax.errors import UserError
from transformer_jax.evaluation.evaluator import Trained, higher_is_better
from transformer_jax.program import (
    TRACEABLE,
    Program,
    check_origin,
    common_config,
    count_parameters,
    differing,
    load_tokenizers,
    state_template,
    validate,
    with_vocabulary,
)
from transformer_jax.run_directory import (
    CHECKPOINTS,
    CONFIG,
    DATA,
    NONFINITE,
    NUMERICS,
    PREDICTIONS,
    RESULT,
    TENSORBOARD,
    TOKENIZER,
    MetricsLog,
    config_changes,
    locked,
    read_json,
    run_key,
    write_config,
    write_json,
    write_lines,
)
from transformer_jax.saved_run import load_params

Say = Callable[[str], None]
Result = dict[str, Any]


class Interruption(Exception):  # noqa: N818 - nothing went wrong
    """The run was asked to stop; its state is saved."""

    def __init__(self, step: int | None):
        super().__init__("stopped" if step is None else f"stopped and saved at step {step}")
        self.step = step


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
        return [read_json(workdir / RESULT) for workdir in workdirs]
    lanes = len(configs) if population else None
    with contextlib.ExitStack() as stack:
        if program is None:
            program = Program(configs[0], lanes, load_tokenizers(workdirs[0]), differing(configs))
        sized = [with_vocabulary(config, program.dataset.tokenizers) for config in configs]
        for workdir in workdirs:
            stack.enter_context(locked(workdir))
        stop = stack.enter_context(stop_requested())
        runs = [_Run(c, w, program, allow_config_change, say) for c, w in zip(sized, workdirs, strict=True)]
        say(_introduction(program))
        _fit(program, runs, stop, say)
        return _conclude(program, runs, stop, say)


def _check_group(configs: Sequence[Config]) -> None:
    if any(common_config(config) != common_config(configs[0]) for config in configs):
        raise UserError(f"Runs of one program may differ in seed and {', '.join(TRACEABLE)} only.")


def _changes(config: Config, workdir: Path, allowed: Collection[str]) -> list[str]:
    """The allowed fields in which `config` differs from that of the run directory; refuses others before any work."""
    if not (workdir / CONFIG).is_file():
        return []
    tokenizers = load_tokenizers(workdir)
    if tokenizers is None:
        raise UserError(f"{workdir}: has no tokenizer; the run directory is not complete.")
    return config_changes(workdir, with_vocabulary(config, tokenizers), allowed)


def _introduction(program: Program) -> str:
    source, target = program.plan.padding_share
    return (
        f"{count_parameters(program.config):,} parameters; {len(program.dataset.splits['train']):,} training pairs in "
        f"batches of {len(program.plan.shapes)} shapes; {source:.0%} of source and {target:.0%} of target cells are "
        f"padding; {program.layout.devices} x {jax.devices()[0].device_kind}"
    )


# --- Training ---


class _Run:
    """One run directory while it is trained, and what the loop remembers of it beside the state."""

    def __init__(self, config: Config, workdir: Path, program: Program, allowed: Collection[str], say: Say):
        self.config, self.workdir = config, workdir
        self._allowed, self._say = allowed, say
        check_origin(workdir, program.dataset)
        self._write_data(program)
        self.log = MetricsLog(workdir)
        self.tensorboard: SummaryWriter | None = None
        self.checkpoints = Checkpoints(workdir / CHECKPOINTS, warn=say)
        self.lines = 0
        self.window: dict[str, list[float]] = {}
        self.window_seconds = 0.0
        self.best_value: float | None = None
        self.best_step: int | None = None
        self._saved_best: int | None = None  # the best step that has its checkpoint
        self.evaluations_since_best = 0
        self.seconds = 0.0
        self.executions = [executed(program)]
        self.open = True  # still training: neither diverged nor stopped early
        self.complete = False  # no longer training, and the last state is saved
        self.status = "finished"
        self.last_step = 0

    def was_open(self, step: int) -> bool:
        """Whether the run was still training when it saved at `step`."""
        return bool(self.checkpoints.progress(step).get("open", True))

    def _write_data(self, program: Program) -> None:
        path = self.workdir / DATA
        if not path.is_file():
            tokenizers = program.dataset.tokenizers
            tokenizers.save(self.workdir / TOKENIZER)
            plan = {"tokenizers": tokenizers.fingerprint, "plan": program.plan.summary()}
            write_json(path, {**program.dataset.summary(), "numerics": NUMERICS, **plan})

    def resume(self, template: Any, step: int) -> Any:
        """The state at the checkpoint of `step`; log and checkpoints are cut back to it."""
        state, progress = self.checkpoints.restore(template, step)
        for name in self._remembered():
            if name not in progress:
                raise UserError(f"{self.workdir}: the checkpoint at step {step} does not say {name!r}.")
            if name != "executions":
                setattr(self, name, progress[name])
        before = list(progress["executions"])
        if before[-1:] != self.executions:
            self._say(f"{self.workdir}: goes on under other conditions; {RESULT} has them as executed_before.")
            self.executions = [*before, *self.executions]
        else:
            self.executions = before
        self._saved_best, self.complete = self.best_step, not self.open
        self._write_config()
        self.checkpoints.cut_back(step)
        kept = self.log.cut_back(step)
        if kept < self.lines:
            self._say(f"{self.workdir}: {self.lines - kept} lines of metrics.jsonl up to step {step} were damaged.")
            self.lines = kept
        return state

    def restart(self) -> None:
        """Before the first step: what an earlier call wrote is cut away."""
        self._write_config()
        self.checkpoints.cut_back(0)
        self.log.cut_back(0)

    def _write_config(self) -> None:
        """Not before the checkpoint is known to fit the config."""
        if write_config(self.workdir, self.config, self._allowed):
            (self.workdir / RESULT).unlink(missing_ok=True)  # of the config before it was changed

    def _remembered(self) -> dict[str, Any]:
        names = (
            "executions",
            "lines",
            "window",
            "window_seconds",
            "best_value",
            "best_step",
            "evaluations_since_best",
            "seconds",
            "open",
            "status",
            "last_step",
        )
        return {name: getattr(self, name) for name in names}

    def save(self, step: int, state: Any) -> None:
        """Starts to save; `prune` keeps the best checkpoint before this one until this one is complete.

        Once more after the run has closed, and then no more: its checkpoints are those of the run alone.
        """
        if self.complete:
            return
        self.last_step = step if self.open else self.last_step
        self.log.sync()
        self.checkpoints.save(step, state, self._remembered())
        self._saved_best, self.complete = self.best_step, not self.open

    def prune(self) -> None:
        """Deletes checkpoints but the newest, the best and the last `train.keep_last`."""
        steps = self.checkpoints.steps()
        train = self.config.train
        scheduled = [step for step in steps if is_scheduled(train, step)]
        self.checkpoints.delete({*steps} - {*steps[-1:], *scheduled[-train.keep_last :], self._saved_best})

    def add(self, sums: dict[str, tuple[float, float]]) -> None:
        """Adds the sums and counts of one step to the window that the next line of the log is the mean of."""
        for name, (total, count) in sums.items():
            entry = self.window.setdefault(name, [0.0, 0.0])
            entry[0] += float(total)
            entry[1] += float(count)

    def log_window(self, step: int) -> dict[str, Any]:
        """Writes the means of the window."""
        means = {name: total / max(count, 1.0) for name, (total, count) in self.window.items()}
        speed = self.window["nll"][1] / max(self.window_seconds, 1e-9)
        line = {"step": step, "split": "train", **means, "tokens_per_second": speed}
        self._write(line)
        self.window, self.window_seconds = {}, 0.0
        return line

    def _write(self, line: dict[str, Any]) -> None:
        self.log.write(line)
        self.lines += 1
        if self.tensorboard is None:
            self.tensorboard = SummaryWriter(str(self.workdir / TENSORBOARD), purge_step=line["step"])
        for name, value in line.items():
            if isinstance(value, float):
                self.tensorboard.add_scalar(f"{line['split']}/{name}", value, line["step"])

    def log_evaluation(self, step: int, metrics: dict[str, Any]) -> None:
        """Writes the line of an evaluation and remembers whether it was the best."""
        self._write({"step": step, "split": "valid", **metrics})
        name = self.config.evaluate.best
        sign = 1 if higher_is_better(name) else -1
        better = self.best_value is None or sign * metrics[name] > sign * self.best_value
        if better and math.isfinite(metrics[name]):
            self.best_value, self.best_step, self.evaluations_since_best = metrics[name], step, 0
        else:
            self.evaluations_since_best += 1
        patience = self.config.train.patience
        if patience is not None and self.evaluations_since_best >= patience:
            self.open, self.last_step = False, step

    def diverge(self, step: int, sums: dict[str, Any], program: Program) -> None:
        """Closes a run whose loss or gradient at `step` was not finite; its state is the last good one."""
        self.open, self.status, self.last_step = False, "diverged", step
        command = shlex.join(["./launch.sh", "replay", f"--workdir={self.workdir}"])
        batch = program.plan.batch_at(step - 1, self.config.seed)
        content = {
            "step": step,
            "seed": self.config.seed,
            "measured": {name: str(float(total) / max(float(count), 1.0)) for name, (total, count) in sums.items()},
            "batch": {name: rows.tolist() for name, rows in batch.items()},
            "replay": command,
        }
        write_json(self.workdir / NONFINITE, content)
        self._say(
            f"{self.workdir}: loss or gradient of step {step} is not finite; the state before it is kept. {command}"
        )


def _restore(program: Program, runs: list[_Run], lane: Any, say: Say) -> tuple[int, Any]:
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


def _fit(program: Program, runs: list[_Run], stop: list[int], say: Say) -> None:
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
        if save:
            clock.skip()
        if stopping:
            _settle(runs)
            raise Interruption(step)
    if not save:
        _save(program, runs, step, state)  # all runs are closed: their states stand still
    _settle(runs)


def _next_stop(train: TrainConfig, step: int) -> int:
    """The step after `step` at which something is logged, evaluated or saved."""
    every = (train.log_every, train.evaluate_every, train.checkpoint_every)
    return min(train.steps, *(step - step % n + n for n in every if n is not None))


def _collect(program: Program, runs: list[_Run], pending: list[tuple[int, int, Any]]) -> None:
    """Fetches what the steps measured and adds it to the windows; closes runs that are no longer finite."""
    stopping = program.config.train.on_nonfinite == "stop"
    for before, count, measured in jax.device_get(pending):
        for step, sums in enumerate(program.each_step(measured, count), before + 1):
            for run, own in zip(runs, program.unstack(sums), strict=True):
                finite = all(math.isfinite(own[name][0]) for name in ("loss", "gradient_norm"))
                if run.open and not finite and stopping:
                    run.diverge(step, own, program)
                if run.open and finite:
                    run.add(own)
    pending.clear()


def _log(runs: list[_Run], step: int, steps: int, say: Say) -> None:
    lines = [run.log_window(step) for run in runs if run.open and run.window]
    if not lines:
        return
    loss, nll = (sum(line[name] for line in lines) / len(lines) for name in ("loss", "nll"))
    speed = sum(line["tokens_per_second"] for line in lines)
    left = (steps - step) * sum(run.seconds for run in runs) / step
    say(
        f"step {step}/{steps}  loss {loss:.4f}  nll {nll:.4f}  {speed:,.0f} tokens/s  "
        f"{int(left) // 60}:{int(left) % 60:02d} left"
    )


def _evaluate(program: Program, runs: list[_Run], step: int, trained: Trained, say: Say) -> None:
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


def _save(program: Program, runs: list[_Run], step: int, state: Any) -> None:
    states = program.unstack(program.layout.get(state))
    _settle(runs)
    for run, own in zip(runs, states, strict=True):
        run.save(step, own)


def _settle(runs: list[_Run]) -> None:
    """Waits for the saves and then prunes, in this order: there is always a step at which all runs have checkpoints."""
    for run in runs:
        run.checkpoints.wait()
    for run in runs:
        run.prune()


class _Clock:
    """Seconds of training, shared out to the runs that train together."""

    def __init__(self, runs: list[_Run]):
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


@contextlib.contextmanager
def stop_requested() -> Iterator[list[int]]:
    """A list that fills when SIGINT or SIGTERM asks to stop; the second SIGINT stops at once."""
    received: list[int] = []

    def handle(number: int, _: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    try:
        previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever started it handles signals
        previous = {}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


# --- The result ---


def _conclude(program: Program, runs: list[_Run], stop: list[int], say: Say) -> list[Result]:
    """Evaluates every split with the parameters that `evaluate.checkpoint` names, and writes result.json."""
    begun = time.perf_counter()
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
                "best_step": run.best_step,
                "checkpoint": choice,
                "metrics": {split: metrics[lane] for split, metrics in measured.items()} if good else {},
                "seconds": {"train": run.seconds, "evaluate": seconds, "total": run.seconds + seconds},
                "executed": run.executions[-1],
                "executed_before": run.executions[:-1],
                "commit": commit(),
            }
        )
        write_json(run.workdir / RESULT, results[-1])
        if run.tensorboard is not None:
            run.tensorboard.close()
    return results


def executed(program: Program) -> dict[str, Any]:
    """How a run was executed: bit for bit equality holds among runs for which this is equal."""
    device = jax.devices()[0]
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "transformer_jax")
    return {
        "platform": device.platform,
        "device_kind": device.device_kind,
        "devices": program.layout.devices,
        "cpus": len(available_cpus()),
        "lanes": program.lanes or 1,
        "traced": list(program.traced),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


@functools.cache
def commit() -> str | None:
    """The commit of this program's checkout, with "+" if files differ from it; None outside of a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", str(here))
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
