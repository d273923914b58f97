"""A model of another program as a run: what every such import shares."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from transformer_jax.checked_json import read_json
from transformer_jax.checkpoint import Checkpoints
from transformer_jax.config import Resolved, to_dict
from transformer_jax.data import TokenizerPair
from transformer_jax.errors import UserError
from transformer_jax.run.compile import state_template
from transformer_jax.run.directory import ASSETS, CHECKPOINTS, CONFIG, DATA, is_run_directory, write_json
from transformer_jax.run.identity import IMPORTED, NUMERICS, TRAINED
from transformer_jax.run.progress import Progress
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
