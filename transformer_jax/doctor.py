"""What this machine has: devices, versions, corpora, and how to get what is missing."""

import importlib.metadata
import os
import platform
from pathlib import Path

import jax

from transformer_jax.compilation import available_cpus, cache_directory

REQUIRED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ml-collections", "sentencepiece", "sacrebleu")
OPTIONAL = {"tensorflow-datasets": "pip install 'transformer_jax[tfds]'"}


def diagnose() -> dict[str, str]:
    """Subject -> what was found, or how to get it."""
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "devices": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
        "processors": str(len(available_cpus())),
        **{name: _version(name) or "missing: run ./launch.sh again" for name in REQUIRED},
        **{name: _version(name) or f"missing (optional): {how}" for name, how in OPTIONAL.items()},
        "compiled programs": str(cache_directory()),
        "corpora": _corpora(),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _corpora() -> str:
    directory = os.environ.get("TRANSFORMER_JAX_DATA")
    if not directory:
        return "none: set TRANSFORMER_JAX_DATA to a directory of corpora; SCAN needs none"
    if not Path(directory).is_dir():
        return f"TRANSFORMER_JAX_DATA = {directory} is not a directory"
    return f"{directory}: {', '.join(sorted(path.name for path in Path(directory).iterdir() if path.is_dir()))}"
