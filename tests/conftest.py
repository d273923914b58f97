"""Settings of the whole suite: JAX on the CPU, programs compiled quickly and kept between runs.

They are environment variables, so that the processes which tests start have them too. Most of the time goes into
compiling programs that run once.
"""

import ctypes
import gc
import os
import signal
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "transformer_jax" / "tests"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# What JAX reads when it is imported stands above.
import jax  # noqa: E402
import pytest  # noqa: E402
import tiny_run  # noqa: E402

from transformer_jax.compilation import QUICK_COMPILATION, known_flags  # noqa: E402
from transformer_jax.processes import of_this_code  # noqa: E402

os.environ.update(of_this_code(os.environ))
if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = known_flags(QUICK_COMPILATION)

# A shell that starts the suite in the background has it ignore Ctrl-C, and the processes that tests interrupt with it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Mutants stand in one file, and yet are shared out to all processes."""
    if config.option.markexpr == "mutation":
        from xdist.scheduler import LoadScheduling

        return LoadScheduling(config, log)
    return None


@pytest.fixture(autouse=True)
def give_memory_back():
    """After a test: a thousand small programs are a gigabyte, which neither JAX nor the C library gives back."""
    yield
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if resident > 1.25 * 2**30:
        jax.clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run of the module's own: evaluating it writes predictions into it."""
    return tiny_run.copy_of(tiny_run.finished(), tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture(scope="module")
def opened_once():
    """Runs that are opened again and again are compiled once for the module."""
    with pytest.MonkeyPatch.context() as patch:
        tiny_run.keep_what_is_opened(patch)
        yield
