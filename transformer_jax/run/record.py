"""One run directory while its run is trained: log, checkpoints, and what is remembered between them."""

import dataclasses
import itertools
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from transformer_jax.checkpoint import Checkpoints, is_scheduled, parse_checkpoint
from transformer_jax.config import Resolved, to_dict
from transformer_jax.errors import UserError
from transformer_jax.parallel.peers import is_first
from transformer_jax.run.compile import Program
from transformer_jax.run.directory import ASSETS, CHECKPOINTS, DATA, PREDICTIONS, RESULT, write_json, write_lines
from transformer_jax.run.divergence import report_divergence
from transformer_jax.run.identity import NUMERICS, TRAINED, check_origin, check_trained, write_config
from transformer_jax.run.log import Log
from transformer_jax.run.progress import Progress
from transformer_jax.run.provenance import executed
from transformer_jax.tasks import task_of

Say = Callable[[str], None]


class RunRecord:
    """What is remembered of a run while it is trained; its first process writes what the run leaves on disk."""

    log: Log
    checkpoints: Checkpoints

    def __init__(self, config: Resolved, workdir: Path, program: Program, allowed: Collection[str], say: Say):
        self.config, self.workdir = config, workdir
        self._allowed, self.say = allowed, say
        self.progress = Progress([executed(program)])
        self.complete = False  # no longer training, and the last state is saved
        self.skipped = 0  # steps of the last saved state whose update was left out
        self._saved_best: int | None = None  # the best step that has its checkpoint
        self._writes = is_first()

    def open(self, program: Program) -> None:
        """Lays down what every run has, once its directory is held. At the first process only, as what reads it."""
        check_origin(self.workdir, program.dataset.fingerprint)
        self._write_data(program)
        self.log = Log(self.workdir)
        self.checkpoints = Checkpoints(self.workdir / CHECKPOINTS, warn=self.say)

    def told(self) -> dict[str, Any]:
        """What the other processes must know of a run that resumes."""
        return {**dataclasses.asdict(self.progress), "skipped": self.skipped}

    def follow(self, told: dict[str, Any]) -> None:
        """What `told` was at the first process holds here, too."""
        if self._writes:
            return
        self.progress = Progress.from_json(told, "what the first process says")
        self.complete, self.skipped = not self.progress.open, told["skipped"]

    def was_open(self, step: int) -> bool:
        """Whether the run was still training when it saved at `step`."""
        return bool(self.checkpoints.progress(step).get("open", True))

    def newest_good(self, at_most: int | None = None) -> int | None:
        """The newest step to resume at: its checkpoint is good, and those before it that the end needs are, too.

        What is trained again is the same again, so that a damaged one is made anew. None: nothing is trained yet.

        Raises:
          UserError: the end needs one that is damaged, and there is no good one before it.
        """
        step = self.checkpoints.newest_good(at_most)
        damaged = {} if step is None else self.checkpoints.find_damaged(self._needed_at_end(step))
        if step is None or not damaged:
            return step
        first, choice = min(damaged), self.config.evaluate.checkpoint
        what = f"{self.workdir}: checkpoint {first} is damaged ({damaged[first]}), and evaluate.checkpoint = {choice!r}"
        earlier = [step for step in self.checkpoints.steps() if step < first]
        if len(self.checkpoints.find_damaged(earlier)) < len(earlier):
            self.say(f"{what} needs it: it is trained again.")
            return self.newest_good(first - 1)
        if choice == "best" and not self._ends_at(step):
            self.say(f"{what} needs it unless a later one is better: there is none before it to train it again from.")
            return step
        raise UserError(
            f"{what} needs it; there is none before it to train it again from. Resume with --config.evaluate.checkpoint"
            "=last --allow-config-change=evaluate.checkpoint, or delete the run directory to start anew."
        )

    def _ends_at(self, step: int) -> bool:
        return step == self.config.train.steps or not self.was_open(step)

    def _needed_at_end(self, step: int) -> list[int]:
        """Checkpoints before `step` by which the run will be evaluated, as far as that is known at `step`."""
        progress, train = self.checkpoints.progress(step), self.config.train
        kind, number = parse_checkpoint(self.config.evaluate.checkpoint, "evaluate.checkpoint")
        if progress.get("status") == "diverged" or kind == "last":
            return []
        if kind == "best":
            best = progress.get("best_step")  # gone if there was a better one, which will be made again
            return [best] if best in self.checkpoints.steps() and best < step else []
        # With patience it may end at any time: then the last of today are those of the end.
        known = self._ends_at(step) or train.patience is not None
        to_come = range(step + 1, step + 1 if known else train.steps + 1)
        newest_first = itertools.chain(reversed(to_come), reversed([s for s in self.checkpoints.steps() if s <= step]))
        last = itertools.islice((s for s in newest_first if is_scheduled(train, s)), number)
        return [s for s in last if s < step]

    def _write_data(self, program: Program) -> None:
        path = self.workdir / DATA
        if not path.is_file():
            assets = program.dataset.assets
            assets.save(self.workdir / ASSETS)
            made = {"numerics": NUMERICS, "assets": assets.fingerprint, "plan": program.plan.summary()}
            write_json(path, {**program.dataset.summary(), **made})

    def resume(self, template: Any, step: int) -> Any:
        """The state at the checkpoint of `step`; log and checkpoints are cut back to it."""
        state, remembered = self.checkpoints.restore(template, step)
        check_trained(self.workdir, step, remembered, self.config, self._allowed)
        (now,) = self.progress.executions
        self.progress = Progress.from_json(remembered, f"{self.workdir}: the checkpoint at step {step}")
        if self.progress.executions[-1:] != [now]:
            self.say(f"{self.workdir}: resumes under other conditions; {RESULT} has them as executed_before.")
            self.progress.executions.append(now)
        self._saved_best, self.complete = self.progress.best_step, not self.progress.open
        self.skipped = int(state.skipped)
        self._write_config()
        self.checkpoints.cut_back(step)
        kept = self.log.cut_back(step)
        if kept < self.progress.lines:
            lost = self.progress.lines - kept
            self.say(f"{self.workdir}: {lost} lines of metrics.jsonl up to step {step} were damaged.")
            self.progress.lines = kept
        return state

    def restart(self) -> None:
        """Before the first step: what an earlier call wrote is cut away."""
        self._write_config()
        self.checkpoints.cut_back(0)
        self.log.cut_back(0)

    def _write_config(self) -> None:
        """Not before the checkpoint is known to fit the config."""
        if write_config(self.workdir, self.config, self._allowed):
            (self.workdir / RESULT).unlink(missing_ok=True)  # that of the config before it was changed

    def save(self, step: int, state: Any) -> None:
        """Starts to save; `prune` keeps the best checkpoint before this one until this one is complete.

        Once more after the run has closed, and then no more: its checkpoints are those of the run alone.
        """
        if self.complete:
            return
        progress = self.progress
        progress.last_step = step if progress.open else progress.last_step
        self.skipped = int(state.skipped)
        if self._writes:
            self.log.sync()
            self.checkpoints.save(step, state, {**dataclasses.asdict(progress), TRAINED: to_dict(self.config)})
        self._saved_best, self.complete = progress.best_step, not progress.open

    def wait(self) -> None:
        """Until the last save is complete."""
        if self._writes:
            self.checkpoints.wait()

    def prune(self) -> None:
        """Deletes checkpoints but the newest, the best and the last `train.keep_last`."""
        if self._writes:
            self.checkpoints.prune(self.config.train, self._saved_best)

    def write_texts(self, split: str, texts: list[str]) -> None:
        """What the model writes for each example of a split."""
        if self._writes:
            write_lines(self.workdir / PREDICTIONS / f"{split}.txt", texts)

    def report_divergence(self, step: int, totals: dict[str, Any], batch: dict[str, np.ndarray]) -> None:
        """Writes and says which step was not finite."""
        if self._writes:
            self.say(report_divergence(self.workdir, step, self.config.seed, totals, batch))

    def finish(self, result: dict[str, Any]) -> None:
        """Writes result.json, last: a sweep may end this process as soon as it is there."""
        if self._writes:
            self.log.close()
            write_json(self.workdir / RESULT, result)

    def log_window(self, step: int) -> dict[str, Any]:
        """Writes the means of the steps since the last line."""
        return self._write({"step": step, "split": "train", **self.progress.take_window(task_of(self.config).unit)})

    def log_evaluation(self, step: int, metrics: dict[str, Any]) -> None:
        """Writes the line of an evaluation and remembers whether it was the best."""
        self._write({"step": step, "split": "valid", **metrics})
        self.progress.note_evaluation(self.config, step, metrics)

    def _write(self, line: dict[str, Any]) -> dict[str, Any]:
        if self._writes:
            self.log.write(line)
        self.progress.lines += 1
        return line
