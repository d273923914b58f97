"""What a run leaves on disk, so that any script can read it: config.json, metrics.jsonl, result.json, predictions/."""

import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from transformer_jax.config import Config, config_hash, flatten, freeze, to_dict
from transformer_jax.errors import UserError
from transformer_jax.files import (
    MOST_LOG_BYTES,
    find_irregular,
    open_regular,
    read_bytes,
    remove_drafts,
    write_atomically,
)
from transformer_jax.schema import checked
from transformer_jax.strict_json import to_json

CONFIG, METRICS, RESULT, ERROR = "config.json", "metrics.jsonl", "result.json", "error.json"
DATA = "data.json"  # sizes and fingerprint of the corpus; written when the tokenizers are complete
NONFINITE = "nonfinite.json"  # the step at which a run diverged; see replay.py
MOST_HOLDER = 200  # bytes that are read of a lock
CHECKPOINTS, PREDICTIONS, TOKENIZER, TENSORBOARD = "checkpoints", "predictions", "tokenizer", "tensorboard"


NUMERICS = 1
"""To be raised with every change after which the same config gives other numbers, a changed default among them: older
runs are not reused then."""


def run_key(config: Config, fingerprint: str) -> str:
    """SHA-256 that two runs share exactly if they are the same experiment: config, data and numerics."""
    return hashlib.sha256(f"{config_hash(config)} {fingerprint} {NUMERICS}".encode()).hexdigest()


def read_result(directory: Path) -> dict[str, Any]:
    """What result.json says of a run.

    Raises:
      UserError: it cannot be read, or does not say what every result does.
    """
    path = directory / RESULT
    fields = {"status": Literal["finished", "diverged"], "key": str, "steps": int, "metrics": dict[str, dict[str, Any]]}
    try:
        return checked(read_json(path), fields, path)
    except UserError as error:
        raise UserError(f"{error} Remove it: the same `train` evaluates the run again and writes it anew.") from error


def is_result_of(directory: Path, config: Config) -> bool:
    """Whether result.json is of that config, on the data that data.json names, with today's numerics; UserError if they
    cannot be read."""
    result, data = read_result(directory), checked(read_json(directory / DATA), {"fingerprint": str}, directory / DATA)
    return bool(result["key"] == run_key(config, data["fingerprint"]))


def write_json(path: Path, content: Any) -> None:
    """Writes all of the file or nothing of it."""
    write_atomically(path, (to_json(content, indent=1) + "\n").encode())


def write_lines(path: Path, lines: list[str]) -> None:
    """One line each, so that line n stays line n."""
    write_atomically(path, "".join(one_line(line) + "\n" for line in lines).encode())


def one_line(text: str) -> str:
    """The text with line breaks turned into blanks: a model that writes bytes can write them too."""
    return text.replace("\r", " ").replace("\n", " ")


def read_json(path: Path) -> Any:
    """UserError if it cannot be read."""
    try:
        return json.loads(read_bytes(path).decode())
    except OSError as error:
        raise UserError(f"{path}: cannot be read as JSON ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({type(error).__name__}).") from error


def read_config(directory: Path) -> Config:
    """The resolved config of a run directory.

    Raises:
      UserError: it is no run directory, or its config.json is not a config.
    """
    path = directory / CONFIG
    if not path.is_file():
        raise UserError(f"{directory}: is not a run directory (it has no {CONFIG}).")
    _check_entries(directory)
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no config.")
    try:
        return freeze(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except RecursionError as error:
        raise UserError(f"{path}: holds no config (nested too deep).") from error


def is_run_directory(directory: Path) -> bool:
    """Whether it holds a run, finished or begun."""
    return (directory / CONFIG).is_file() and any((directory / name).exists() for name in (DATA, METRICS, CHECKPOINTS))


def _check_entries(directory: Path) -> None:
    """A run directory made by somebody else must not lead a writer out of itself, nor keep a reader waiting."""
    if found := find_irregular(directory.iterdir()):
        raise UserError(f"{found}; what is written to a run directory must stay inside of it.")


def write_config(directory: Path, config: Config, allowed: Collection[str] = ()) -> bool:
    """Writes config.json if it differs; whether it did. On a run directory only the `allowed` fields may differ.

    Raises:
      UserError: naming the fields that differ.
    """
    differs = not (directory / CONFIG).is_file() or bool(config_changes(directory, config, allowed))
    if differs:
        write_json(directory / CONFIG, to_dict(config))
    return differs


def config_changes(directory: Path, config: Config, allowed: Collection[str] = ()) -> list[str]:
    """The fields in which `config` differs from that of the run directory.

    Raises:
      UserError: fields differ that are not `allowed` to, naming them.
    """
    here, there = flatten(to_dict(config)), flatten(to_dict(read_config(directory)))
    differing = [name for name in here if here[name] != there[name]]
    refused = [name for name in differing if name not in allowed]
    if refused:
        values = "; ".join(f"{name} = {there[name]!r} there, {here[name]!r} now" for name in refused)
        raise UserError(
            f"{directory}: holds a run of another config ({values}). Give the run another --workdir, or go on with "
            f"--allow-config-change={','.join(refused)}."
        )
    return differing


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds the run directory for this process. The lock of a process that has died is gone with it.

    Raises:
      UserError: another process holds it, naming host and process id.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _check_entries(directory)
    with open_regular(directory / "lock", "a+b") as file:
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


def is_settled(directory: Path) -> bool:
    """Whether the run has finished or failed."""
    return (directory / RESULT).is_file() or (directory / ERROR).is_file()


def in_use(directory: Path) -> bool:
    """Whether a process holds the run directory."""
    try:
        with open_regular(directory / "lock") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


class MetricsLog:
    """metrics.jsonl: one JSON object a line, each with `step` and `split`."""

    def __init__(self, directory: Path):
        self._path = directory / METRICS

    def cut_back(self, step: int) -> int:
        """Drops the lines after `step`, and damaged ones: a resumed run writes them again. The number of lines kept."""
        kept = [line for line in self.read() if line["step"] <= step]
        write_atomically(self._path, "".join(to_json(line) + "\n" for line in kept).encode())
        return len(kept)

    def write(self, line: dict[str, Any]) -> None:
        """Appends a line."""
        with self._path.open("a") as file:
            file.write(to_json(line) + "\n")

    def sync(self) -> None:
        """Asks the disk to hold the lines, before a checkpoint says that they are written."""
        with self._path.open("a") as file:
            os.fsync(file.fileno())

    def read(self) -> list[dict[str, Any]]:
        """All whole lines."""
        if not self._path.is_file():
            return []
        text = read_bytes(self._path, MOST_LOG_BYTES).decode("utf-8", "replace")
        lines = [_parse(line) for line in text.split("\n")]
        return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)]


def _parse(text: str) -> Any:
    """What a line holds; None if it is damaged."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
