"""What a run leaves on disk, so that any script can read it: config.json, metrics.jsonl, result.json, predictions/."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformer_jax.config import Config, flatten, freeze, to_dict
from transformer_jax.errors import UserError

CONFIG, METRICS, RESULT, ERROR = "config.json", "metrics.jsonl", "result.json", "error.json"
DATA = "data.json"  # sizes and fingerprint of the corpus; written when the tokenizers are complete
CHECKPOINTS, PREDICTIONS, TOKENIZER, TENSORBOARD = "checkpoints", "predictions", "tokenizer", "tensorboard"


def write_json(path: Path, content: Any) -> None:
    """Writes all of the file or nothing of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(content, indent=1) + "\n")
    unfinished.replace(path)


def write_lines(path: Path, lines: list[str]) -> None:
    """One line each, so that line n stays line n."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(one_line(line) + "\n" for line in lines), encoding="utf-8")


def one_line(text: str) -> str:
    """The text with line breaks turned into blanks: a model that writes bytes can write them too."""
    return text.replace("\r", " ").replace("\n", " ")


def read_json(path: Path) -> Any:
    """UserError if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({type(error).__name__}).") from error


def read_config(directory: Path) -> Config:
    """The resolved config of a run directory.

    Raises:
      UserError: it is no run directory, or its config.json is not a config.
    """
    path = directory / CONFIG
    if not path.is_file():
        raise UserError(f"{directory}: is not a run directory (it has no {CONFIG}).")
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no config.")
    return freeze(content)


def write_config(directory: Path, config: Config) -> None:
    """Writes config.json; on an existing run directory the configs must be equal.

    Raises:
      UserError: naming the fields that differ.
    """
    path = directory / CONFIG
    if path.is_file():
        here, there = flatten(to_dict(config)), flatten(to_dict(read_config(directory)))
        differing = [
            f"{name} = {there[name]!r} there, {here[name]!r} now" for name in here if here[name] != there[name]
        ]
        if differing:
            raise UserError(
                f"{directory}: holds a run of another config ({'; '.join(differing)}). Give the run another --workdir."
            )
        return
    write_json(path, to_dict(config))


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds the run directory for this process. The lock of a process that has died is gone with it.

    Raises:
      UserError: another process holds it, naming host and process id.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise UserError(f"{directory}: is in use by {file.read().strip() or 'another process'}.") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


class MetricsLog:
    """metrics.jsonl: one JSON object a line, each with `step` and `split`."""

    def __init__(self, directory: Path):
        self._path = directory / METRICS

    def cut_back(self, step: int) -> None:
        """Drops the lines after `step`, and a half-written last one: a resumed run writes them again."""
        kept = [line for line in self.read() if line["step"] <= step]
        unfinished = self._path.with_name(f".{METRICS}")
        unfinished.write_text("".join(json.dumps(line) + "\n" for line in kept))
        unfinished.replace(self._path)

    def write(self, line: dict[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All whole lines."""
        lines = []
        if self._path.is_file():
            for text in self._path.read_text().splitlines():
                try:
                    lines.append(json.loads(text))
                except ValueError:
                    break
        return lines
