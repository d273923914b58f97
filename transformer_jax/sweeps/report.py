"""The report of a sweep (or of one run), made from its directory alone: HTML, Markdown, CSV and LaTeX."""

import dataclasses
from pathlib import Path
from typing import Any

from transformer_jax.files import write_atomically
from transformer_jax.sweeps.analysis import Analysis, analyse
from transformer_jax.sweeps.formats import to_csv, to_latex, to_markdown
from transformer_jax.sweeps.page import to_html
from transformer_jax.sweeps.results import read_sweep

WRITERS = {"html": to_html, "md": to_markdown, "csv": to_csv, "tex": to_latex}


@dataclasses.dataclass(frozen=True)
class Report:
    """The analysis and the files it was written to, by their ending."""

    analysis: Analysis
    files: dict[str, Path]

    @property
    def summary(self) -> str:
        """The findings in one sentence."""
        return self.analysis.summary

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; see `Analysis.as_dict`."""
        return self.analysis.as_dict() | {"files": {ending: str(path) for ending, path in self.files.items()}}


def write_report(directory: Path) -> Report:
    """Write report.html, .md, .csv and .tex into a sweep directory, or into the directory of a single run.

    The same results give the same bytes. A reader never sees half a file.

    Raises:
      UserError: if the directory is no sweep and no run.
    """
    analysis = analyse(read_sweep(directory))
    files = {}
    for ending, write in WRITERS.items():
        files[ending] = directory / f"report.{ending}"
        # A lone surrogate, legal in JSON, cannot be written as UTF-8.
        write_atomically(files[ending], write(analysis).encode(errors="replace"))
    return Report(analysis, files)
