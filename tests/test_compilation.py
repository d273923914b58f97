"""XLA is asked before a flag is set: one that it does not know would end every process."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import jaxlib
import pytest

from transformer_jax import compilation
from transformer_jax.compilation import QUICK_COMPILATION, known_flags

pytestmark = pytest.mark.newest

KNOWN, UNKNOWN = QUICK_COMPILATION[0], "--xla_no_such_flag=1"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def asked(cache, monkeypatch) -> list[str]:
    """The flags that were tried, by a stand-in that knows those with "good" in their names and others not.

    "late" flags give no answer; what begins with "broken" ends every process, flag or none.
    """
    tried: list[str] = []

    def answers(values):
        tried.extend(value for value in values if value)
        if any(value.startswith("broken") for value in values):
            return [False] * len(values)
        return [None if "late" in value else not value or "good" in value for value in values]

    monkeypatch.setattr(compilation, "_try", answers)
    return tried


def test_the_installed_xla_is_asked_once(cache, monkeypatch):
    assert known_flags([UNKNOWN, KNOWN]) == KNOWN
    monkeypatch.setattr(compilation, "_try", None)
    assert known_flags([KNOWN, UNKNOWN]) == KNOWN


def test_the_flags_of_this_suite_start_a_process():
    """Whatever release is installed: a process with these flags does not die."""
    environment = {**os.environ, "XLA_FLAGS": known_flags(QUICK_COMPILATION)}
    subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], env=environment, check=True)


def test_another_release_is_asked_anew(asked, monkeypatch):
    assert known_flags(["good", "bad"]) == known_flags(["good", "bad"]) == "good"
    assert asked == ["good", "bad"]
    monkeypatch.setattr(jaxlib, "__version__", "999.0")
    assert known_flags(["good"]) == "good"
    assert asked == ["good", "bad", "good"]


def test_no_answer_is_not_kept(asked):
    assert known_flags(["good", "late"]) == known_flags(["good", "late"]) == "good"
    assert asked == ["good", "late", "late"]


def test_where_no_process_lives_the_flags_are_not_blamed(asked):
    assert known_flags(["broken", "good"]) == ""
    assert known_flags(["good"]) == "good"


def test_a_damaged_answer_is_asked_again(asked, cache):
    known_flags(["good"])
    (kept,) = (path for path in cache.rglob("*") if path.is_file())
    kept.write_bytes(b"\xff")
    assert known_flags(["good"]) == "good"
    assert asked == ["good", "good"]


def test_a_cache_that_cannot_be_written_is_done_without(asked, cache, monkeypatch):
    (cache / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "file"))
    assert known_flags(["good", "bad"]) == "good"
    assert known_flags(["good", "bad"]) == "good"


AGAIN = """
import concurrent.futures, ctypes, resource
from transformer_jax.compilation import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    memory = libc.malloc(2**27)
    ctypes.memset(memory, 1, 2**27)
    libc.free(memory)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def in_a_thread():
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(faults).result()

given_back = faults()
keep_freed_memory()
in_a_thread()
print(given_back, in_a_thread())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="of glibc alone")
def test_freed_memory_is_not_asked_for_again():
    done = subprocess.run([sys.executable, "-c", AGAIN], capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    assert kept < given_back / 10
