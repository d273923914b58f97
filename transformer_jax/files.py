"""Files that appear whole or not at all, and are read only if they are files.

A directory may come from somebody else. A link in it could lead out of it, a pipe or a device never end: neither is
opened. The draft of a file has a name that nobody can guess, and is locked while its writer lives, so that the next
writer can tell what a killed one left.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import IO

MOST_BYTES = 64 * 2**20
"""No file that is read whole is larger: what a run or a sweep says of itself takes kilobytes."""
MOST_LOG_BYTES = 256 * 2**20
DRAFT = re.compile(r"\.[0-9a-f]{16}\.draft")


def write_atomically(path: Path, content: bytes) -> None:
    """Writes `path`: a reader, even after a crash, finds the old content or all of the new.

    Raises:
      OSError: it fails, or `path` is a directory, a pipe or a device. A link is replaced, not followed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_symlink():
        _refuse_irregular(str(path), path.lstat().st_mode)
    remove_drafts(path.parent)
    draft, descriptor = _open_draft(path.parent)
    with os.fdopen(descriptor, "wb") as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            # Drafts are private to their owner; a saved file is as readable as its directory suggests.
            os.fchmod(file.fileno(), 0o644)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def _open_draft(directory: Path) -> tuple[Path, int]:
    """A new file of nobody else's choosing, and its descriptor, which holds the lock."""
    while True:
        draft = directory / f".{secrets.token_hex(8)}.draft"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(OSError):  # a file system without locks: there drafts of the dead stay
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return draft, descriptor
        os.close(descriptor)  # another writer took it for that of a dead one, before it was locked


def remove_drafts(directory: Path) -> None:
    """Removes what killed writers left in a directory. The draft of a living one is locked, and stays."""
    for entry in list(os.scandir(directory)):
        if DRAFT.fullmatch(entry.name):
            with contextlib.suppress(OSError), open_regular(Path(entry.path), "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                Path(entry.path).unlink()


def open_regular(path: Path, mode: str = "rb", follow_links: bool = False) -> IO[bytes]:
    """Opens a regular file without ever waiting for it.

    Raises:
      OSError: it cannot be opened, or is no regular file: a link, a directory, a pipe, a device.
    """

    def opener(name: str, flags: int) -> int:
        with contextlib.suppress(FileNotFoundError):  # a mode may create it
            _refuse_irregular(name, Path(name).stat(follow_symlinks=follow_links).st_mode)
        flags |= os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
        descriptor = os.open(name, flags, 0o666)
        try:
            _refuse_irregular(name, os.fstat(descriptor).st_mode)  # of what was opened: it may have been exchanged
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    return open(path, mode, opener=opener)


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file of at most that many bytes; OSError for any other."""
    with open_regular(path) as file:
        fits = os.fstat(file.fileno()).st_size <= most
        content = file.read(most + 1) if fits else b""
    if not fits or len(content) > most:
        raise OSError(errno.EFBIG, f"is larger than {most // 2**20} MiB", str(path))
    return content


def one_line(text: str) -> str:
    """The text with line breaks turned into blanks: a model that writes bytes can write them too."""
    return text.replace("\r", " ").replace("\n", " ")


def find_irregular(paths: Iterable[Path]) -> str | None:
    """The first of the paths that is neither a regular file nor a directory, with what it is."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # gone meanwhile, as drafts are
            mode = path.lstat().st_mode
            if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                return f"{path}: {_kind(mode)}"
    return None


def _refuse_irregular(name: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, _kind(mode), name)


def _kind(mode: int) -> str:
    return "is a link" if stat.S_ISLNK(mode) else "is a directory" if stat.S_ISDIR(mode) else "is no regular file"


def flush(directory: Path) -> None:
    """Asks the disk to hold all that is in a directory, before a rename says that it is complete."""
    for entry in [*sorted(directory.rglob("*")), directory]:
        sync(entry)


def sync(path: Path) -> None:
    """Asks the disk to hold a file, or the names in a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
