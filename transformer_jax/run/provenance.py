"""How a run was executed, and by which version of this program."""

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

import transformer_jax
from transformer_jax.compilation import available_cpus
from transformer_jax.run.compile import Program


def executed(program: Program) -> dict[str, Any]:
    """How a run was executed: bit for bit equality holds among runs for which this is equal."""
    device = jax.devices()[0]
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "platform": device.platform,
        "device_kind": device.device_kind,
        "devices": program.layout.devices,
        **({"processes": jax.process_count()} if jax.process_count() > 1 else {}),
        "cpus": len(available_cpus()),
        "lanes": program.layout.lanes,
        "traced": list(program.traced),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "transformer_jax": transformer_jax.__version__,
    }


@functools.cache
def commit() -> str | None:
    """The commit of this program's checkout, with "+" if files differ from it; None outside of a checkout."""
    here = Path(transformer_jax.__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", str(here))
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
