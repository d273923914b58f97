"""Files that appear whole or not at all."""

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Writes `path`: a reader, even after a crash, finds the old content or all of the new. OSError if it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            # Temporary files are private to their owner; a saved one is as readable as its directory suggests.
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


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
