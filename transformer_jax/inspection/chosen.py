"""The examples that somebody wants to look at: of a split, of two files, or a text and what the model makes of it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.data import EOS, PAD, Examples
from transformer_jax.data.text import encode_text
from transformer_jax.errors import UserError
from transformer_jax.evaluation.evaluator import Trained
from transformer_jax.models.tokens import Batch
from transformer_jax.run.saved import SavedRun, Say, judged_by
from transformer_jax.tasks import task_of


@dataclasses.dataclass(frozen=True)
class Choice:
    """What to look at; without anything, the first examples of `split`.

    Attributes:
      text: a sentence, to which the model finds the output, or running text.
      target: an output of `text` that is given.
      split, first: a split of the run's corpus, and the number of the first example, from 0.
      source, reference: files of pairs, in place of the split.
      count: how many examples at most.
    """

    text: str | None = None
    target: str | None = None
    split: str = "valid"
    first: int = 0
    source: Path | None = None
    reference: Path | None = None
    count: int = 1


def choose(run: SavedRun, trained: Trained, choice: Choice, say: Say) -> list[tuple[str, Batch]]:
    """Each chosen example by a name, as a batch of its own in which nothing is padding.

    Raises:
      UserError: there is no such example, or the run learns from something that is not text.
    """
    if choice.text is not None:
        return [_of_text(run, trained, choice.text, choice.target)]
    judged = judged_by(run, choice.split, choice.source, choice.reference, {}, say)
    examples = judged.examples
    if choice.first >= len(examples):
        raise UserError(f"--example={choice.first}: {judged.name} has {len(examples):,} examples, counted from 0.")
    numbers = range(choice.first, min(choice.first + choice.count, len(examples)))
    return [(f"{judged.name} {number}", alone(examples, number)) for number in numbers]


def alone(examples: Examples, number: int) -> Batch:
    """A batch of one example, as wide as it is."""
    widths = {name: int(rows.lengths[number]) for name, rows in examples.sides().items()}
    return {
        name: jnp.asarray(column.gather(np.asarray([number], np.int64), widths[column.side] if column.side else 0))
        for name, column in examples.columns.items()
    }


def _of_text(run: SavedRun, trained: Trained, text: str, target: str | None) -> tuple[str, Batch]:
    kind = run.learns_from
    if kind == "pairs":
        batch = alone(run.encode([text], [target or ""]), 0)
        return text, batch if target is not None else {**batch, "targets": _written(run, trained, text)}
    if kind != "text":
        raise UserError(f"--text: the run in {run.workdir} learns from {kind}; choose an example by --split.")
    if target is not None:
        raise UserError(f"--target: the run in {run.workdir} does not learn from pairs; give --text alone.")
    tokens = encode_text(text, run.assets.target)[: run.config.data.max_length]
    if not tokens:
        raise UserError(f"--text={text!r} holds no token of the run's vocabulary.")
    return text, {
        name: jnp.asarray([ids], jnp.int32) for name, ids in (("inputs", tokens), ("targets", [*tokens[1:], EOS]))
    }


def _written(run: SavedRun, trained: Trained, text: str) -> jax.Array:
    """int32[1, T]: what the model writes for a sentence, by the search that `decode` names."""
    output = task_of(run.config).output
    assert output is not None
    found: Mapping[str, Any] = run.evaluator.predictor(output)(trained, run.encode([text], [""]))
    tokens_T = np.asarray(found["tokens_BNT"])[0, 0, 0]
    tokens_T = tokens_T[tokens_T != PAD]
    return jnp.asarray((tokens_T if len(tokens_T) else np.asarray([EOS]))[None], jnp.int32)
