"""How programs are compiled and kept: the cache on disk, and the processors they may use."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jaxlib

from transformer_jax.files import read_bytes, write_atomically
from transformer_jax.processes import of_this_code

QUICK_COMPILATION = (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)
"""Flags of XLA for programs that take a few steps only: on a CPU they compile in a fifth of the time, and run slower.

Not every release has all of them; see `known_flags`.
"""
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of glibc's malloc.h
PATIENCE = 300
"""Seconds that a process has to try a flag."""


def known_flags(flags: Sequence[str]) -> str:
    """Those of the flags that the installed XLA knows, as the value of XLA_FLAGS.

    XLA ends a process that names a flag which it does not know, so each is tried by a process of its own. The answers
    are kept on disk, for this release alone.
    """
    kept = cache_directory() / "xla_flags" / f"jaxlib-{jaxlib.__version__}"
    answers = {flag: _read_answer(kept / flag) for flag in flags}
    if asked := [flag for flag, answer in answers.items() if answer is None]:
        *found, plain = _try([*asked, ""])
        answers |= dict(zip(asked, found, strict=True))
        if plain:  # else it is not the flags that processes die of
            for flag, answer in zip(asked, found, strict=True):
                _keep_answer(kept / flag, answer)
    return " ".join(flag for flag in flags if answers[flag])


def _read_answer(path: Path) -> bool | None:
    """None: the flag was not tried yet."""
    try:
        return {b"known": True, b"unknown": False}.get(read_bytes(path))
    except OSError:
        return None


def _keep_answer(path: Path, answer: bool | None) -> None:
    """Where nothing can be written, or there is no answer, it is asked again."""
    if answer is None:
        return
    with contextlib.suppress(OSError):
        write_atomically(path, b"known" if answer else b"unknown")


def _try(values: Sequence[str]) -> list[bool | None]:
    """Whether JAX starts with each value of XLA_FLAGS; None: its process was ended from outside."""
    environment = {**of_this_code(os.environ), "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", "import jax; jax.devices()"],
            env={**environment, "XLA_FLAGS": value},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for value in values
    ]  # fmt: skip
    return [_answer_of(process) for process in processes]


def _answer_of(process: subprocess.Popen[bytes]) -> bool | None:
    try:
        status = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
    return status == 0 if status >= 0 or status == -signal.SIGABRT else None


def cache_directory() -> Path:
    """Where this program keeps what it can make again: under $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "transformer_jax"


def use_persistent_cache() -> None:
    """Lets JAX keep programs that took half a second to compile, unless its own variables say otherwise."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "compiled"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def keep_freed_memory() -> None:
    """Lets this process keep the memory that it frees, where the C library is glibc.

    A step frees all that it kept for its gradient, which glibc gives back to the system: at the next step each page of
    it is asked for and filled with zeros anew, which takes as long as the computation of a small model.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)  # the arenas of other threads cannot hold 64 MiB in one piece
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def available_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs of NVIDIA that a process with these variables sees, as CUDA_VISIBLE_DEVICES names them."""
    if (named := environment.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name]
    return [str(n) for n in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


def available_cpus() -> list[int]:
    """The processors this process may run on, where the system tells; else all there are."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def use_cpus(cpus: list[int]) -> None:
    """Keeps this process, and the thread pool that XLA is yet to make, to those processors."""
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
