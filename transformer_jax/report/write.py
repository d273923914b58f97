"""The report of a sweep (or of one run), made from its directory alone: HTML, Markdown, CSV and LaTeX."""

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformer_jax.errors import UserError
from transformer_jax.files import write_atomically
from transformer_jax.report.analysis import Analysis, analyse
from transformer_jax.report.formats import to_csv, to_latex, to_markdown
from transformer_jax.report.packed import curve_lines, definition_of, is_packed, run_lines
from transformer_jax.report.page import to_html
from transformer_jax.report.read import read_sweep
from transformer_jax.run.directory import PACKED_CURVES, PACKED_RUNS, SWEEP, write_json, write_json_lines

WRITERS = {"html": to_html, "md": to_markdown, "csv": to_csv, "tex": to_latex}
PACKED_WRITERS = {"md": to_markdown, "csv": to_csv}  # what a repository shows; the others are made from it


@dataclasses.dataclass(frozen=True)
class Report:
    """The analysis and the files it was written to, by their ending; of a packed one by their name."""

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
    """Write report.html, .md, .csv and .tex into a sweep directory, packed or not, or into the directory of a run.

    The same results give the same bytes. A reader never sees half a file.

    Raises:
      UserError: if the directory is no sweep and no run.
    """
    return _write(analyse(read_sweep(directory)), directory, WRITERS)


def pack_report(directory: Path, out: Path) -> Report:
    """Write a sweep or a run in five files to a new directory: see `packed.py`, and report.md and .csv beside.

    It appears whole or not at all; what is packed stays as it is.

    Raises:
      UserError: there is something at `out` already, or nothing to pack.
    """
    if os.path.lexists(out):
        raise UserError(f"{out}: is there already, and nothing is overwritten. Give --pack a name that is free.")
    if is_packed(directory):
        raise UserError(f"{directory}: is packed already; copy it.")
    sweep = read_sweep(directory)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".packing-", dir=out.parent))
    try:
        write_json(draft / SWEEP, definition_of(sweep))
        write_json_lines(draft / PACKED_RUNS, run_lines(sweep, directory))
        write_json_lines(draft / PACKED_CURVES, curve_lines(sweep, directory))
        packed = read_sweep(draft)
        if packed.problems:
            raise UserError(f"{directory}: cannot be packed: {'; '.join(packed.problems)}.")
        report = _write(analyse(packed), draft, PACKED_WRITERS)
        draft.chmod(0o755)
        draft.rename(out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    names = [SWEEP, PACKED_RUNS, PACKED_CURVES, *(path.name for path in report.files.values())]
    return Report(report.analysis, {name: out / name for name in names})


def _write(analysis: Analysis, directory: Path, writers: Mapping[str, Callable[[Analysis], str]]) -> Report:
    files = {}
    for ending, write in writers.items():
        files[ending] = directory / f"report.{ending}"
        # A lone surrogate, legal in JSON, cannot be written as UTF-8.
        write_atomically(files[ending], write(analysis).encode(errors="replace"))
    return Report(analysis, files)
