"""A model of another program as a run: what every such import shares."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from transformer_jax.checked_json import read_json
from transformer_jax.checkpoint import Checkpoints
from transformer_jax.config import Config, Resolved, replace, to_dict
from transformer_jax.data import TokenizerPair
from transformer_jax.errors import UserError
from transformer_jax.run.compile import resolve_for_machine, state_template
from transformer_jax.run.directory import ASSETS, CHECKPOINTS, CONFIG, DATA, is_run_directory, write_json
from transformer_jax.run.identity import IMPORTED, MEANING, NUMERICS, TRAINED
from transformer_jax.run.progress import Progress
from transformer_jax.run.resolve import validate
from transformer_jax.training.state import state_before

SETTINGS, TENSORS = "config.json", "model.safetensors"


def check_new(directory: Path, option: str) -> None:
    """Refuses a directory that holds something, or that lies in a run directory."""
    place = directory.resolve()
    if inside := next((parent for parent in place.parents if is_run_directory(parent)), None):
        raise UserError(f"{option}={directory}: {inside} is a run directory, which only its run writes.")
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()) or _holds_something(directory):
        raise UserError(f"{option}={directory}: is there already; give the name of a new directory.")


def _holds_something(directory: Path) -> bool:
    return directory.is_dir() and any(directory.iterdir())


def read_settings_file(directory: Path, name: str) -> Any:
    """A file of JSON. Links are followed: a cache of Hugging Face's is made of them."""
    return read_json((directory / name).resolve())


def read_tensors(directory: Path, kind: str) -> dict[str, np.ndarray]:
    """Name -> tensor of its safetensors file; `kind` is the class of transformers that writes one."""
    path = directory / TENSORS
    if not path.is_file():
        raise UserError(
            f"{directory}: has no {TENSORS}. Other formats of weights are not read: write it by "
            f"transformers.{kind}.from_pretrained(...).save_pretrained(...)."
        )
    try:
        with safe_open(path.resolve(), "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}).") from error


class Tensors:
    """Takes tensors out of a state, each of the shape that it must have.

    Attributes:
      left: the names of those that were not taken.
    """

    def __init__(self, state: Mapping[str, npt.NDArray], where: object):
        self._state, self._where = state, where
        self.left = set(state)

    def take(self, name: str, *shape: int) -> npt.NDArray:
        """float32.

        Raises:
          UserError: naming the tensor that is missing or of another shape.
        """
        if name not in self._state:
            raise UserError(f"{self._where}: has no tensor {name!r}.")
        found = self._state[name]
        if found.shape != shape:
            raise UserError(f"{self._where}: {name} has shape {found.shape}, but {SETTINGS} says {shape}.")
        self.left.discard(name)
        return np.asarray(found, np.float32)


def check_request(workdir: Path, overrides: Mapping[str, Any] | None) -> None:
    """Refuses overrides of what the model settles, and a run directory that is there."""
    for path in overrides or {}:
        if path.startswith(MEANING):
            raise UserError(f"--config.{path}: the model that is imported settles that.")
    check_new(workdir, "--workdir")


def complete(config: Config, workdir: Path, tokenizers: TokenizerPair, overrides: Mapping[str, Any] | None) -> Resolved:
    """The config of a model with the overrides and its own tokenizers, which the run directory will hold."""
    config = replace(config, {"data.tokenizer": f"saved(run={str(workdir)!r})", **(overrides or {})})
    validate(config)
    return resolve_for_machine(config, tokenizers)


def make_run(workdir: Path, config: Resolved, tokenizers: TokenizerPair, params: Any, origin: Path) -> dict[str, Any]:
    """Writes the run directory `workdir`, with the parameters as step 0.

    Returns:
      "workdir", "parameters" and "tokens": their numbers.
    """
    params = jax.tree.map(jnp.asarray, params)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, state_template(config).params)
    state = state_before(config, params)
    workdir.mkdir(parents=True, exist_ok=True)
    tokenizers.save(workdir / ASSETS)
    checkpoints = Checkpoints(workdir / CHECKPOINTS)
    checkpoints.save(0, jax.tree.map(np.asarray, state), {**dataclasses.asdict(Progress([])), TRAINED: to_dict(config)})
    checkpoints.wait()
    made = {"numerics": NUMERICS, "assets": tokenizers.fingerprint, IMPORTED: str(origin)}
    write_json(workdir / DATA, {**tokenizers.summary(), **made})
    write_json(workdir / CONFIG, to_dict(config))  # last: without it there is no run
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return {"workdir": str(workdir), "parameters": count, "tokens": tokenizers.target.vocab_size}
