"""The step at which a run diverged: nonfinite.json."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from transformer_jax.checked_json import read_json
from transformer_jax.errors import UserError
from transformer_jax.run.directory import NONFINITE, write_json
from transformer_jax.training.step import GUARDED


def report_divergence(
    directory: Path, step: int, seed: int, totals: Mapping[str, Any], batch: Mapping[str, np.ndarray]
) -> str:
    """Writes what is known of the step that was not finite; a sentence on it."""
    what = [name.removesuffix("_norm") for name in GUARDED if not math.isfinite(totals[name][0])]
    command = shlex.join(["./launch.sh", "replay", f"--workdir={directory}"])
    content = {
        "step": step,
        "seed": seed,
        "measured": {name: str(float(total) / max(float(count), 1.0)) for name, (total, count) in totals.items()},
        "batch": {name: values.tolist() for name, values in batch.items()},
        "replay": command,
    }
    write_json(directory / NONFINITE, content)
    return f"{directory}: step {step} is not finite ({', '.join(what)}); the state before it is kept. {command}"


def diverged_at(directory: Path) -> int:
    """The step that nonfinite.json names.

    Raises:
      UserError: the run has not diverged, or the file does not say.
    """
    path = directory / NONFINITE
    if not path.is_file():
        raise UserError(
            f"{directory}: has no {NONFINITE}: no step of this run was stopped at because it was not finite."
        )
    report = read_json(path)
    step = report.get("step") if isinstance(report, dict) else None
    if not isinstance(step, int) or isinstance(step, bool) or step < 1:
        raise UserError(f"{path}: does not say at which step.")
    return step
