"""What the loop remembers of a run beside its state; saved with each checkpoint."""

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any, Literal

from transformer_jax.checked_json import checked
from transformer_jax.config import Config
from transformer_jax.strict_json import only_finite
from transformer_jax.tasks import task_of
from transformer_jax.tasks.task import higher_is_better
from transformer_jax.training.step import GUARDED

SKIPPED = "skipped"  # in a line of the log, where there are any: how many of its steps were left out


@dataclasses.dataclass
class Progress:
    """A run that is being trained; open until it has diverged or stopped early.

    Attributes:
      executions: how it was executed; the last entry is how it is now.
      lines: of metrics.jsonl so far.
      window: name -> sum and count over the steps since the last line.
      window_seconds, seconds: of training, since the last line and in all.
      best_value, best_step: the best evaluation, by `evaluate.best`.
      open: still training.
      status: "finished", or "diverged".
      last_step: the last step that was trained.
    """

    executions: list[dict[str, Any]]
    lines: int = 0
    window: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    window_seconds: float = 0.0
    best_value: float | None = None
    best_step: int | None = None
    evaluations_since_best: int = 0
    seconds: float = 0.0
    open: bool = True
    status: Literal["finished", "diverged"] = "finished"
    last_step: int = 0

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> "Progress":
        """What `dataclasses.asdict` was saved as; `where` is named in the error.

        Raises:
          UserError: a field is missing, or of another type.
        """
        said = checked(only_finite(content), _KINDS, where)
        window = said["window"]
        checked(window, {SKIPPED: tuple[float, float]} if SKIPPED in window else {}, where)
        progress = cls(**{name: said[name] for name in _KINDS})
        # A sum that is not finite is null in JSON.
        progress.window = {name: [math.nan if n is None else n for n in sums] for name, sums in window.items()}
        return progress

    def add(self, totals: Mapping[str, tuple[float, float]]) -> None:
        """Adds what one step measured to the window that the next line of the log is the mean of."""
        for name, (total, count) in totals.items():
            entry = self.window.setdefault(name, [0.0, 0.0])
            entry[0] += float(total)
            entry[1] += float(count)

    def add_skipped(self) -> None:
        """Adds a step whose update was left out."""
        self.window.setdefault(SKIPPED, [0.0, 0.0])[0] += 1

    def take_window(self, unit: str) -> dict[str, Any]:
        """The means of the window, how many steps were left out of them, and the speed in `unit` a second."""
        means: dict[str, Any] = {name: total / max(count, 1.0) for name, (total, count) in self.window.items()}
        if SKIPPED in means:
            means[SKIPPED] = int(means[SKIPPED])
        _, counted = self.window.get("loss", (0.0, 0.0))
        means[f"{unit}_per_second"] = counted / max(self.window_seconds, 1e-9)
        self.window, self.window_seconds = {}, 0.0
        return means

    def note_evaluation(self, config: Config, step: int, metrics: Mapping[str, Any]) -> None:
        """Remembers whether an evaluation was the best; closes the run after `train.patience` others."""
        name = config.evaluate.best
        sign = 1 if higher_is_better(task_of(config), name) else -1
        better = self.best_value is None or sign * metrics[name] > sign * self.best_value
        if better and math.isfinite(metrics[name]):
            self.best_value, self.best_step, self.evaluations_since_best = metrics[name], step, 0
        else:
            self.evaluations_since_best += 1
        patience = config.train.patience
        if patience is not None and self.evaluations_since_best >= patience:
            self.open, self.last_step = False, step


_KINDS = typing.get_type_hints(Progress) | {"window": dict[str, tuple[float | None, float]]}
"""The types of its fields as JSON: a pair that is changed in place is a list of two, and may have lost its sum."""


def is_finite(totals: Mapping[str, tuple[float, float]]) -> bool:
    """Whether all that a step is guarded by is finite."""
    return all(math.isfinite(totals[name][0]) for name in GUARDED)
