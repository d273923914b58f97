"""A window of training steps of which JAX's profiler writes a trace, to be looked at with TensorBoard or Perfetto."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from transformer_jax.errors import UserError
from transformer_jax.run.compile import TakesSteps
from transformer_jax.run.directory import PROFILE
from transformer_jax.training.state import Lane

Window = tuple[int, int]
"""The first and the last of some steps, counted from 1."""
CALL = "train"
"""The name that a call of the program has in a trace; its number is that of its first step."""


def check_window(window: Window, start: int, steps: int) -> None:
    """Refuses a window that does not lie between `start`, the steps that are trained already, and the last.

    Raises:
      UserError: saying which steps there are.
    """
    first, last = window
    if start >= steps:
        raise UserError(f"--profile-steps={first}:{last}: all {steps:,} steps are trained already.")
    if not start < first <= last <= steps:
        raise UserError(
            f"--profile-steps={first}:{last}: must lie, its first step before its last, within the steps that are to "
            f"be trained: {start + 1} to {steps}."
        )


class Profiled:
    """Training steps, of which those of a window are traced, exactly these. They compute what they would without."""

    def __init__(self, steps: TakesSteps, window: Window, total: int, directory: Path):
        self._steps, self._window, self._total, self._directory = steps, window, total, directory
        self._begun = self._open = False
        self.init, self.batch = steps.init, steps.batch

    def take(self, state: Any, step: int, limit: int, lanes: Lane) -> tuple[Any, Any, int]:
        """Those of `Steps.take`; none of its calls reaches across an edge of the window."""
        if not self._begun:
            check_window(self._window, step, self._total)
            self._begun = True
        before, last = self._window[0] - 1, self._window[1]
        if step == before:
            jax.block_until_ready(state)  # what was asked of the device earlier is not in the window
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # every call of a Python function would be gigabytes, and slow
            jax.profiler.start_trace(self._directory, profiler_options=options)
            self._open = True
        limit = min([limit, *(edge - step for edge in (before, last) if edge > step)])
        with jax.profiler.StepTraceAnnotation(CALL, step_num=step + 1):
            state, totals, count = self._steps.take(state, step, limit, lanes)
        if step + count == last:
            jax.block_until_ready(state)
            self.close()
        return state, totals, count

    def close(self) -> None:
        """Ends a trace, that of a run which was stopped within the window too."""
        if self._open:
            self._open = False
            jax.profiler.stop_trace()


@contextlib.contextmanager
def profiled(steps: TakesSteps, window: Window, total: int, workdir: Path) -> Iterator[Profiled]:
    """The steps of a run of `total` with a trace of the window in the run directory."""
    traced = Profiled(steps, window, total, workdir / PROFILE)
    try:
        yield traced
    finally:
        traced.close()
