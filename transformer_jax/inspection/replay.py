"""The step at which a run diverged, once more, with a look inside."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.checkpoint import Checkpoints
from transformer_jax.config import Resolved
from transformer_jax.data import check_there
from transformer_jax.errors import UserError
from transformer_jax.run.compile import compile_program, stack, state_template
from transformer_jax.run.directory import CHECKPOINTS
from transformer_jax.run.divergence import diverged_at
from transformer_jax.run.identity import check_origin, read_config
from transformer_jax.run.resolve import load_assets, validate
from transformer_jax.training.state import by_path, lanes_of
from transformer_jax.training.step import gradient_and_update


def replay(workdir: Path) -> dict[str, Any]:
    """Takes the step that nonfinite.json names from the last good state, and changes nothing on disk.

    Returns:
      "step"; "measured": name -> what the step measured, as in the log; "parameters": path -> "largest", the largest
      absolute value before the step, "gradient_norm" and "update_norm", all None where they are not finite.

    Raises:
      UserError: the run has not diverged, or its last good state is gone.
    """
    config = Resolved(read_config(workdir))
    step = diverged_at(workdir)
    checkpoints = Checkpoints(workdir / CHECKPOINTS)
    newest = max(checkpoints.steps(), default=None)
    state = None if newest is None else checkpoints.restore(state_template(config), newest)[0]
    if state is None or int(state.step) != step - 1:
        raise UserError(f"{workdir}: holds no checkpoint of the state before step {step}.")
    validate(config)
    check_there(config.data)
    program = compile_program(config, assets=load_assets(workdir, config))
    check_origin(workdir, program.dataset.fingerprint)
    lanes = lanes_of([program.config])
    lane, batch = jax.tree.map(lambda a: a[0], (lanes, program.steps.batch(step - 1, lanes)))
    look_inside = jax.jit(functools.partial(gradient_and_update, program.config))
    gradients, updates = jax.device_get(look_inside(state, batch, lane))
    start = program.layout.put(stack([state.replace(alive=np.ones((), bool))]))
    _, totals, _ = program.steps.take(start, step - 1, 1, lanes)
    parameters, of_gradient, of_update = map(by_path, (state.params, gradients, updates))
    measured = {name: (sums[0, 0], counts[0, 0]) for name, (sums, counts) in jax.device_get(totals).items()}
    return {
        "step": step,
        "measured": {name: _finite(total / max(count, 1)) for name, (total, count) in measured.items()},
        "parameters": {name: _look(leaf, of_gradient[name], of_update[name]) for name, leaf in parameters.items()},
    }


def _look(parameter: np.ndarray, gradient: np.ndarray, update: np.ndarray) -> dict[str, float | None]:
    return {
        "largest": _finite(np.max(np.abs(parameter))),
        "gradient_norm": _finite(jnp.linalg.norm(jnp.ravel(gradient))),
        "update_norm": _finite(jnp.linalg.norm(jnp.ravel(update))),
    }


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
