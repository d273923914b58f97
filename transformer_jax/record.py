"""One run directory while it is trained, and what the loop remembers of it beside the state."""

import math
import shlex
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal

from tensorboardX import SummaryWriter

from transformer_jax.checkpoint import Checkpoints, is_scheduled
from transformer_jax.config import Config
from transformer_jax.evaluation.evaluator import higher_is_better
from transformer_jax.program import Program, check_origin
from transformer_jax.provenance import executed
from transformer_jax.run_directory import (
    CHECKPOINTS,
    DATA,
    NONFINITE,
    NUMERICS,
    RESULT,
    TENSORBOARD,
    TOKENIZER,
    MetricsLog,
    write_config,
    write_json,
)
from transformer_jax.schema import checked
from transformer_jax.strict_json import only_finite
from transformer_jax.training.step import GUARDED

Say = Callable[[str], None]
SKIPPED = "skipped"  # in a line of the log, where there are any: how many of its steps were left out
MOST_SKIPPED = 0.1
"""Of the steps of a run may be left out; with more it is not what its config describes, and has no score."""

REMEMBERED = {
    "executions": list[dict[str, Any]],
    "lines": int,
    "window": dict[str, tuple[float | None, float]],
    "window_seconds": float,
    "best_value": float | None,
    "best_step": int | None,
    "evaluations_since_best": int,
    "seconds": float,
    "open": bool,
    "status": Literal["finished", "diverged"],
    "last_step": int,
}
"""What the loop remembers beside the state, in progress.json: attributes of a RunRecord and their types."""


class RunRecord:
    """Writes the log, the checkpoints and the reports of one run; open until it has diverged or stopped early."""

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
        self.skipped = 0  # steps of the last saved state whose update was left out

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
        (now,) = self.executions
        where = f"{self.workdir}: the checkpoint at step {step}"
        said = checked(only_finite(progress), REMEMBERED, where)
        checked(said["window"], {SKIPPED: tuple[float, float]} if SKIPPED in said["window"] else {}, where)
        for name in REMEMBERED:
            setattr(self, name, said[name])
        # A sum that is not finite is null in JSON.
        self.window = {name: [math.nan if n is None else n for n in sums] for name, sums in self.window.items()}
        if self.executions[-1:] != [now]:
            self._say(f"{self.workdir}: goes on under other conditions; {RESULT} has them as executed_before.")
            self.executions.append(now)
        self._saved_best, self.complete = self.best_step, not self.open
        self.skipped = int(state.skipped)
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
        return {name: getattr(self, name) for name in REMEMBERED}

    def save(self, step: int, state: Any) -> None:
        """Starts to save; `prune` keeps the best checkpoint before this one until this one is complete.

        Once more after the run has closed, and then no more: its checkpoints are those of the run alone.
        """
        if self.complete:
            return
        self.last_step = step if self.open else self.last_step
        self.skipped = int(state.skipped)
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

    def add_skipped(self) -> None:
        """Adds a step whose update was left out to the window."""
        self.window.setdefault(SKIPPED, [0.0, 0.0])[0] += 1

    def log_window(self, step: int) -> dict[str, Any]:
        """Writes the means of the window, and how many steps were left out of them."""
        means: dict[str, Any] = {name: total / max(count, 1.0) for name, (total, count) in self.window.items()}
        if SKIPPED in means:
            means[SKIPPED] = int(means[SKIPPED])
        _, tokens = self.window.get("nll", (0.0, 0.0))
        speed = tokens / max(self.window_seconds, 1e-9)
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
        """Closes a run of which `step` was not finite (see GUARDED); its state is the last good one."""
        self.open, self.status, self.last_step = False, "diverged", step
        what = [name.removesuffix("_norm") for name in GUARDED if not math.isfinite(sums[name][0])]
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
            f"{self.workdir}: step {step} is not finite ({', '.join(what)}); the state before it is kept. {command}"
        )

    def count_skipped(self) -> None:
        """Says how many steps were left out; a run that left out too many has diverged, though it went on."""
        if not self.skipped:
            return
        left_out = f"{self.workdir}: {self.skipped} of {self.last_step} steps were left out, as they were not finite"
        if self.status == "finished" and self.skipped > MOST_SKIPPED * self.last_step:
            self.status = "diverged"
            self._say(f"{left_out}: more than {MOST_SKIPPED:.0%}, so this run is no measurement.")
        else:
            self._say(f"{left_out}.")


def is_finite(sums: dict[str, tuple[float, float]]) -> bool:
    """Whether all that a step is guarded by is finite."""
    return all(math.isfinite(sums[name][0]) for name in GUARDED)
