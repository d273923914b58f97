"""One run directory while its run is trained: log, checkpoints, and what is remembered between them."""

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from transformer_jax.checkpoint import Checkpoints
from transformer_jax.config import Resolved
from transformer_jax.run.compile import Program
from transformer_jax.run.directory import ASSETS, CHECKPOINTS, DATA, RESULT, write_json
from transformer_jax.run.identity import NUMERICS, check_origin, write_config
from transformer_jax.run.log import Log
from transformer_jax.run.progress import Progress
from transformer_jax.run.provenance import executed
from transformer_jax.tasks import task_of

Say = Callable[[str], None]


class RunRecord:
    """Writes what a run leaves on disk."""

    def __init__(self, config: Resolved, workdir: Path, program: Program, allowed: Collection[str], say: Say):
        self.config, self.workdir = config, workdir
        self._allowed, self.say = allowed, say
        check_origin(workdir, program.dataset.fingerprint)
        self._write_data(program)
        self.log = Log(workdir)
        self.checkpoints = Checkpoints(workdir / CHECKPOINTS, warn=say)
        self.progress = Progress([executed(program)])
        self.complete = False  # no longer training, and the last state is saved
        self.skipped = 0  # steps of the last saved state whose update was left out
        self._saved_best: int | None = None  # the best step that has its checkpoint

    def was_open(self, step: int) -> bool:
        """Whether the run was still training when it saved at `step`."""
        return bool(self.checkpoints.progress(step).get("open", True))

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
        self.log.sync()
        self.checkpoints.save(step, state, dataclasses.asdict(progress))
        self._saved_best, self.complete = progress.best_step, not progress.open

    def prune(self) -> None:
        """Deletes checkpoints but the newest, the best and the last `train.keep_last`."""
        self.checkpoints.prune(self.config.train, self._saved_best)

    def log_window(self, step: int) -> dict[str, Any]:
        """Writes the means of the steps since the last line."""
        return self._write({"step": step, "split": "train", **self.progress.take_window(task_of(self.config).unit)})

    def log_evaluation(self, step: int, metrics: dict[str, Any]) -> None:
        """Writes the line of an evaluation and remembers whether it was the best."""
        self._write({"step": step, "split": "valid", **metrics})
        self.progress.note_evaluation(self.config, step, metrics)

    def _write(self, line: dict[str, Any]) -> dict[str, Any]:
        self.log.write(line)
        self.progress.lines += 1
        return line
