"""One process at a time writes to a directory."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformer_jax.errors import UserError
from transformer_jax.files import open_regular, remove_drafts
from transformer_jax.run.directory import check_entries

LOCK = "lock"
MOST_HOLDER = 200  # bytes that are read of a lock


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds the directory of a run or a sweep for this process. The lock of a process that has died is gone with it.

    Raises:
      UserError: another process holds it, naming host and process id.
    """
    directory.mkdir(parents=True, exist_ok=True)
    check_entries(directory)
    with open_regular(directory / LOCK, "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = "".join(filter(str.isprintable, file.read(MOST_HOLDER).decode(errors="replace")))
            raise UserError(f"{directory}: is in use by {holder or 'another process'}.") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        file.flush()
        remove_drafts(directory)
        yield


def in_use(directory: Path) -> bool:
    """Whether a process holds the directory."""
    try:
        with open_regular(directory / LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
