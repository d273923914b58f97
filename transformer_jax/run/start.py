"""The state that a run begins with: random parameters, or those of another run (`train.start_from`)."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from transformer_jax.errors import UserError
from transformer_jax.run.compile import Program, stack, unstack
from transformer_jax.run.identity import read_config
from transformer_jax.run.resolve import start_directory
from transformer_jax.run.saved import load_params
from transformer_jax.training.state import Lane, TrainState, by_path

Say = Callable[[str], None]


def begin(program: Program, lanes: Lane, say: Say) -> Any:
    """The state of all lanes before the first step, on the devices.

    Raises:
      UserError: there is no run to start from, or a parameter of it has another size.
    """
    state = program.steps.init(lanes)
    chosen = program.config.train.start_from
    if chosen is None:
        return state
    directory = start_directory(chosen)
    there = load_params(directory, read_config(directory).evaluate.checkpoint)
    states = unstack(program.layout.get(state), program.layout.lanes)
    say(what_is_taken(directory, there, states[0].params))
    return program.layout.put(stack([_with_parameters(each, there, directory) for each in states]))


def _with_parameters(state: TrainState, there: Any, directory: Path) -> TrainState:
    params = take_parameters(state.params, there, directory)
    return dataclasses.replace(state, params=params, average=None if state.average is None else params)


def take_parameters(here: Any, there: Any, directory: Path) -> Any:
    """The parameters `here` with the values of those `there` that have their path.

    Heads may be cut otherwise: a matrix of as many entries is the same matrix.
    """
    values = by_path(there)

    def take(name: str, leaf: np.ndarray) -> np.ndarray:
        if name not in values:
            return leaf
        if values[name].size != leaf.size:
            raise UserError(
                f"train.start_from: {name} has shape {values[name].shape} in {directory}, but {leaf.shape} in this "
                "model: choose the same sizes."
            )
        return np.asarray(values[name], leaf.dtype).reshape(leaf.shape)

    return jax.tree.unflatten(jax.tree.structure(here), [take(name, leaf) for name, leaf in by_path(here).items()])


def what_is_taken(directory: Path, there: Any, here: Any) -> str:
    """A sentence on which parameters are those of the other run."""
    before, after = by_path(there), by_path(here)
    parts = [f"Starts from {directory}: {len(before.keys() & after.keys())} of {len(after)} arrays of parameters"]
    for what, names in (("random", after.keys() - before.keys()), ("left out", before.keys() - after.keys())):
        parts += [f"{what}: {', '.join(sorted(names))}"] if names else []
    return "; ".join(parts) + "."
