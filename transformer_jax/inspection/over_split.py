"""What is measured of a trained model over all of a split, or of two files, and written as a file of JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from transformer_jax.data import Examples
from transformer_jax.evaluation.evaluator import Trained
from transformer_jax.inspection.chosen import Choice
from transformer_jax.inspection.sites import Site, sites_of
from transformer_jax.run.directory import write_json
from transformer_jax.run.saved import SavedRun, Say, judged_by, open_run

INSPECTION = "inspection"
"""Of a run directory: where its pictures and numbers lie, if nothing else is said."""


class OverSplit(NamedTuple):
    """A trained run with attention, and the examples that it is measured on.

    Attributes:
      facts: what each file says of where its numbers come from.
    """

    run: SavedRun
    trained: Trained
    sites: Mapping[str, Site]
    examples: Examples
    facts: Mapping[str, Any]


def open_over(
    workdir: Path, choice: Choice, checkpoint: str | None, overrides: Mapping[str, Any] | None, say: Say
) -> OverSplit:
    """The run in `workdir`, and all examples of the split or the files of `choice`.

    Raises:
      UserError: the model has no attention, or what is missing or does not fit.
    """
    run = open_run(workdir, overrides)
    sites = sites_of(run.config)
    used, trained = run.load(checkpoint)
    judged = judged_by(run, choice.split, choice.source, choice.reference, overrides or {}, say)
    facts = {
        "schema": 1,
        "run": str(workdir),
        "checkpoint": used,
        "split": judged.name,
        "examples": len(judged.examples),
    }
    return OverSplit(run, trained, sites, judged.examples, facts)


def write(content: Mapping[str, Any], name: str, workdir: Path, output: Path | None) -> dict[str, Any]:
    """Writes the file into `output`, or into inspection/ of the run; the content, and "file", its path."""
    path = (output or workdir / INSPECTION) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)
    return {**content, "file": str(path)}
