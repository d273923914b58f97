"""The step at which a run diverged, once more, with a look inside."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.checkpoint import Checkpoints
from transformer_jax.errors import UserError
from transformer_jax.program import Program, check_origin, load_tokenizers, state_template
from transformer_jax.run_directory import CHECKPOINTS, NONFINITE, read_config, read_json
from transformer_jax.training.step import gradient_and_update


def replay(workdir: Path) -> dict[str, Any]:
    """Takes the step that nonfinite.json names from the last good state, and changes nothing on disk.

    Returns:
      "step"; "measured": name -> what the step measured, as in the log; "parameters": path -> "largest", the largest
      absolute value before the step, "gradient_norm" and "update_norm", all None where they are not finite.

    Raises:
      UserError: the run has not diverged, or its last good state is gone.
    """
    config = read_config(workdir)
    path = workdir / NONFINITE
    if not path.is_file():
        raise UserError(f"{workdir}: has no {NONFINITE}: no step of this run was stopped at because it was not finite.")
    report = read_json(path)
    step = report.get("step") if isinstance(report, dict) else None
    if not isinstance(step, int) or isinstance(step, bool) or step < 1:
        raise UserError(f"{path}: does not say at which step.")
    checkpoints = Checkpoints(workdir / CHECKPOINTS)
    newest = max(checkpoints.steps(), default=None)
    state = None if newest is None else checkpoints.restore(state_template(config), newest)[0]
    if state is None or int(state.step) != step - 1:
        raise UserError(f"{workdir}: holds no checkpoint of the state before step {step}.")
    program = Program(config, None, load_tokenizers(workdir))
    check_origin(workdir, program.dataset)
    lane, batch = program.lane([config]), program.batch(step - 1, [config.seed])
    look_inside = jax.jit(functools.partial(gradient_and_update, program.config))
    gradients, updates = jax.device_get(look_inside(state, batch, lane))
    start = program.layout.put(state.replace(alive=np.ones((), bool)))
    _, sums, count = program.dispatch(start, step - 1, 1, [config.seed], lane)
    (measured,) = program.each_step(jax.device_get(sums), count)
    inside = jax.tree_util.tree_map(_look, state.params, gradients, updates)
    named = jax.tree_util.tree_leaves_with_path(
        inside, is_leaf=lambda node: isinstance(node, dict) and "largest" in node
    )
    return {
        "step": step,
        "measured": {name: _finite(total / max(number, 1)) for name, (total, number) in measured.items()},
        "parameters": {jax.tree_util.keystr(path, simple=True, separator="."): look for path, look in named},
    }


def _look(parameter: np.ndarray, gradient: np.ndarray, update: np.ndarray) -> dict[str, float | None]:
    return {
        "largest": _finite(np.max(np.abs(parameter))),
        "gradient_norm": _finite(jnp.linalg.norm(jnp.ravel(gradient))),
        "update_norm": _finite(jnp.linalg.norm(jnp.ravel(update))),
    }


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
