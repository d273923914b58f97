"""What this machine has and does: devices, versions, corpora, determinism, and how to get what is missing.

python -m transformer_jax.doctor true|false      trains the job of `check_determinism`, prints its hash and its speed
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax

from transformer_jax.compilation import available_cpus, cache_directory
from transformer_jax.config import freeze
from transformer_jax.errors import UserError
from transformer_jax.processes import of_this_code
from transformer_jax.run.compile import compile_program
from transformer_jax.strict_json import to_json

REQUIRED = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml-collections", "sentencepiece", "sacrebleu"
)  # fmt: skip
OPTIONAL = {
    "tensorflow-datasets": "pip install 'transformer_jax[tfds]'",
    "scikit-learn": "pip install 'transformer_jax[digits]'",
}
NEWEST_TRIED = {
    "python": "3.13",
    "jax": "0.12",
    "jaxlib": "0.12",
    "flax": "0.12",
    "optax": "0.2",
    "orbax-checkpoint": "0.12",
    "numpy": "2.5",
    "ml-collections": "1.1",
    "sentencepiece": "0.2",
    "sacrebleu": "2.6",
}
"""The newest series of releases under which the whole test suite has passed."""
JOB = {
    "data.source": "reverse(symbols=20, min_length=5, max_length=12, examples=2000)",
    "data.tokenizer": "words",
    "data.length_classes": 1,
    "data.tokens_per_batch": 1024,
    "model.d_model": 64,
    "model.d_ff": 256,
    "model.num_heads": 4,
    "model.num_encoder_layers": 1,
    "model.num_decoder_layers": 1,
    "train.steps": 30,
    "optimizer.warmup_steps": 10,
}
"""What is trained to see whether the device is deterministic."""


def diagnose() -> dict[str, str]:
    """Subject -> what was found, or how to get it."""
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "devices": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
        "processors": str(len(available_cpus())),
        **{name: _version(name) or "missing: run ./launch.sh again" for name in REQUIRED},
        **{name: _version(name) or f"missing (optional): {how}" for name, how in OPTIONAL.items()},
        "not tried yet": _not_tried(),
        "compiled programs": str(cache_directory()),
        "corpora": _corpora(),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _not_tried() -> str:
    """A warning of versions that are newer than what was tried."""
    found = {name: platform.python_version() if name == "python" else _version(name) for name in NEWEST_TRIED}
    newer = [
        f"{name} {version} (tried up to {NEWEST_TRIED[name]})"
        for name, version in found.items()
        if version is not None and _series(version) > _series(NEWEST_TRIED[name])
    ]
    return f"{', '.join(newer)}: ./launch.sh test tells whether it works" if newer else "none of these versions"


def _series(version: str) -> list[int]:
    """Its first two numbers."""
    return [int(number) for number in re.findall("[0-9]+", version)[:2]]


def _corpora() -> str:
    directory = os.environ.get("TRANSFORMER_JAX_DATA")
    if not directory:
        return "none: set TRANSFORMER_JAX_DATA to a directory of corpora; SCAN needs none"
    if not Path(directory).is_dir():
        return f"TRANSFORMER_JAX_DATA = {directory} is not a directory"
    return f"{directory}: {', '.join(sorted(path.name for path in Path(directory).iterdir() if path.is_dir()))}"


def check_determinism() -> dict[str, str]:
    """Trains the same job twice, each time in a new process that compiles anew, and the same with train.deterministic.

    The four take turns, so that what else the machine does falls on both ways alike.
    """
    try:
        runs = [(deterministic, _job_in_a_process(deterministic)) for deterministic in (False, True, False, True)]
    except UserError as error:
        return {"the same job twice": f"could not be tried: {error}"}
    plain, switched = ([run for which, run in runs if which is wanted] for wanted in (False, True))
    cost = statistics.median(r["step"] for r in switched) / statistics.median(r["step"] for r in plain)
    verdicts = [
        "differs" if len({run["hash"] for run in both}) > 1 else "bit for bit equal" for both in (plain, switched)
    ]
    return {
        "the same job twice": verdicts[0],
        "train.deterministic=true": f"{verdicts[1]}, {cost:.2f} times the time of a step",
    }


def _job_in_a_process(deterministic: bool) -> dict[str, Any]:
    command = [sys.executable, "-m", "transformer_jax.doctor", str(deterministic).lower()]
    environment = {
        **of_this_code(os.environ),
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(f"the job failed ({last})") from error


def run_job(deterministic: bool) -> dict[str, Any]:
    """Trains the job: the "hash" of the state and of every loss, and "step", the median seconds of one."""
    config = freeze({**JOB, "train.deterministic": deterministic})
    program = compile_program(config)
    lanes = program.lanes([program.config])
    state = program.steps.init(lanes)
    digest, seconds = hashlib.sha256(), []
    for step in range(config.train.steps):
        started = time.perf_counter()
        state, totals, _ = program.steps.take(state, step, 1, lanes)
        digest.update(jax.device_get(totals["loss"][0]).tobytes())
        seconds.append(time.perf_counter() - started)
    for leaf in jax.tree.leaves(program.layout.get(state)):
        digest.update(leaf.tobytes())
    return {"hash": digest.hexdigest(), "step": statistics.median(seconds)}


if __name__ == "__main__":
    print(to_json(run_job(sys.argv[1] == "true")))
