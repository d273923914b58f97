"""How programs are compiled and kept: the cache on disk, and the processors they may use."""

import os
from pathlib import Path

import jax

HURRY = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
"""XLA_FLAGS for programs that take a few steps only: on a CPU they compile in a fifth of the time, and run slower.

An unknown flag ends a process; jaxlib 0.10.2 to 0.12.0 know these.
"""


def cache_directory() -> Path:
    """Where this program keeps what it can make again: under $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "transformer_jax"


def use_persistent_cache() -> None:
    """Lets JAX keep programs that took half a second to compile, unless its own variables say otherwise."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "compiled"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def available_cpus() -> list[int]:
    """The processors this process may run on, where the system tells; else all there are."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def use_cpus(cpus: list[int]) -> None:
    """Keeps this process, and the thread pool that XLA is yet to make, to those processors."""
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
