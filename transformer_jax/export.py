"""Parameters as safetensors, a format that is read without this program and cannot run code."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from transformer_jax.checked_json import read_json
from transformer_jax.config import to_dict
from transformer_jax.errors import UserError
from transformer_jax.files import write_atomically
from transformer_jax.run.directory import RESULT, is_run_directory
from transformer_jax.run.identity import read_config
from transformer_jax.run.saved import load_params
from transformer_jax.strict_json import to_json
from transformer_jax.training.state import by_path

SUFFIX = ".safetensors"


def export(workdir: Path, output: Path, checkpoint: str | None = None) -> dict[str, Any]:
    """Writes the parameters of a checkpoint to `output`.

    Layers are stacked: those of `encoder.layers` and `decoder.layers` have a leading axis of layers. The metadata
    hold "config" (the content of config.json), "checkpoint" and "commit".

    Args:
      checkpoint: best, last, a step or average:N; None: what `evaluate.checkpoint` says.

    Returns:
      "output", "checkpoint", and "tensors": name -> shape.

    Raises:
      UserError: there is no such checkpoint, it is damaged, or `output` would replace something else.
    """
    _check_output(output)
    config = read_config(workdir)
    choice = checkpoint or config.evaluate.checkpoint
    tensors = {name: np.ascontiguousarray(leaf) for name, leaf in by_path(load_params(workdir, choice)).items()}
    result = read_json(workdir / RESULT) if (workdir / RESULT).is_file() else None
    commit = result.get("commit") if isinstance(result, dict) else None
    metadata = {"config": to_json(to_dict(config)), "checkpoint": choice, "commit": str(commit)}
    write_atomically(output, save(tensors, metadata))
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    return {"output": str(output), "checkpoint": choice, "tensors": shapes}


def _check_output(output: Path) -> None:
    """Refuses what is there already, unless it is an export, and all that a run directory may come to hold."""
    place = output.resolve()
    for directory in place.parents:
        if not is_run_directory(directory):
            continue
        if directory != place.parent or place.suffix != SUFFIX:
            raise UserError(
                f"--output={output}: {directory} is a run directory, which only its run writes; give a file outside of "
                f"it, or one directly in it whose name ends in {SUFFIX}."
            )
    if output.is_dir():
        raise UserError(f"--output={output}: is a directory; give the name of a file.")
    if output.exists() and not _is_safetensors(output):
        raise UserError(f"--output={output}: is there already and is no safetensors file; give another name.")


def _is_safetensors(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with safe_open(path, "np"):
            return True
    except (OSError, SafetensorError):
        return False
