"""Settings of the whole suite: JAX on the CPU, programs compiled in a hurry and kept between runs.

They are environment variables, so that the processes which tests start have them too. Most of the time goes into
compiling programs that run once: XLA leaves out the optimisations of LLVM, which halves it.
"""

import os
import signal
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "transformer_jax" / "tests"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# A shell that starts the suite in the background has it ignore Ctrl-C, and the processes that tests interrupt with it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
