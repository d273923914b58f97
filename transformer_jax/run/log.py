"""The lines of a run: metrics.jsonl, and the same numbers for TensorBoard."""

import os
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from transformer_jax.run.directory import METRICS, TENSORBOARD, read_metrics, write_json_lines
from transformer_jax.strict_json import to_json


class Log:
    """Appends lines to the log of a run directory."""

    def __init__(self, directory: Path):
        self._path, self._tensorboard_path = directory / METRICS, directory / TENSORBOARD
        self._tensorboard: SummaryWriter | None = None

    def cut_back(self, step: int) -> int:
        """Drops the lines after `step`, and damaged ones: a resumed run writes them again. The number of lines kept."""
        lines, _ = read_metrics(self._path)
        kept = [line for line in lines if line["step"] <= step]
        write_json_lines(self._path, kept)
        return len(kept)

    def write(self, line: dict[str, Any]) -> None:
        """Appends a line; it has "step" and "split"."""
        with self._path.open("a") as file:
            file.write(to_json(line) + "\n")
        if self._tensorboard is None:
            self._tensorboard = SummaryWriter(str(self._tensorboard_path), purge_step=line["step"])
        for name, value in line.items():
            if isinstance(value, float):
                self._tensorboard.add_scalar(f"{line['split']}/{name}", value, line["step"])

    def sync(self) -> None:
        """Asks the disk to hold the lines, before a checkpoint says that they are written."""
        with self._path.open("a") as file:
            os.fsync(file.fileno())

    def close(self) -> None:
        """Completes what TensorBoard reads."""
        if self._tensorboard is not None:
            self._tensorboard.close()
