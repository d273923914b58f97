"""What a run leaves on disk, so that any script can read it: the names and the formats of its files, stated once."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeGuard

from transformer_jax.errors import UserError
from transformer_jax.files import MOST_LOG_BYTES, find_irregular, one_line, read_bytes, write_atomically
from transformer_jax.strict_json import to_json

CONFIG, METRICS, RESULT, ERROR = "config.json", "metrics.jsonl", "result.json", "error.json"
DATA = "data.json"  # sizes and fingerprint of the corpus; written when the assets are complete
NONFINITE = "nonfinite.json"  # the step at which a run diverged; see divergence.py
JOB = "job.json"  # which job of a cluster may train it; see sweeps/jobs.py
CHECKPOINTS, PREDICTIONS, ASSETS, TENSORBOARD = "checkpoints", "predictions", "tokenizer", "tensorboard"
PROFILE = "profile"  # a trace of some steps; see profile.py
SWEEP, RUNS = "sweep.json", "runs"
SWEEP_SCHEMA, SWEEP_SCHEMAS = 2, (1, 2)  # what is written, and what is read
PACKED_RUNS, PACKED_CURVES = "runs.jsonl", "curves.jsonl"  # in place of RUNS; see report/packed.py
MOST_COUNT = 10**15
MOST_SEEDS = 10_000  # of a sweep


def run_directory_of(sweep: Path, row: str, seed: int) -> Path:
    """Where the run of a row and seed of a sweep lies."""
    return sweep / RUNS / row / f"seed_{seed}"


def find_link_to(run: Path) -> Path | None:
    """The directory between a sweep and that run of it which is a link, or None: it would lead out of the sweep."""
    return next((path for path in (run, *run.parents[:2]) if path.is_symlink()), None)


def is_run_directory(directory: Path) -> bool:
    """Whether it holds a run, finished or begun."""
    return (directory / CONFIG).is_file() and any((directory / name).exists() for name in (DATA, METRICS, CHECKPOINTS))


def is_settled(directory: Path) -> bool:
    """Whether the run has finished or failed."""
    return (directory / RESULT).is_file() or (directory / ERROR).is_file()


def check_entries(directory: Path) -> None:
    """A run directory made by somebody else must not lead a writer out of itself, nor keep a reader waiting.

    Raises:
      UserError: an entry is neither a file nor a directory.
    """
    if found := find_irregular(directory.iterdir()):
        raise UserError(f"{found}; what is written to a run directory must stay inside of it.")


def write_json(path: Path, content: Any) -> None:
    """Writes all of the file or nothing of it."""
    write_atomically(path, (to_json(content, indent=1) + "\n").encode())


def write_lines(path: Path, lines: list[str]) -> None:
    """One line each, so that line n stays line n."""
    write_atomically(path, "".join(one_line(line) + "\n" for line in lines).encode())


def write_json_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """One JSON object a line."""
    write_atomically(path, "".join(to_json(line) + "\n" for line in lines).encode())


def read_json_lines(path: Path) -> list[dict[str, Any] | None]:
    """The object of every line, None where a line is damaged; OSError if the file cannot be read."""
    text = read_bytes(path, MOST_LOG_BYTES).decode("utf-8", "replace")
    return [_parse_line(line) for line in text.removesuffix("\n").split("\n")] if text else []


def _parse_line(text: str) -> dict[str, Any] | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The whole lines of metrics.jsonl, each with its `step`, and the numbers of the damaged ones.

    A damaged last line is none of these: it is being written, or was cut off. No file has no lines; OSError if there is
    one that cannot be read.
    """
    if not os.path.lexists(path):
        return [], []
    lines = [line if line and is_count(line.get("step")) else None for line in read_json_lines(path)]
    damaged = [number for number, line in enumerate(lines[:-1], 1) if line is None]
    return [line for line in lines if line is not None], damaged


def is_count(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number that something can be counted by: steps, parameters."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_COUNT
