"""Which source word a target word comes from, as cross-attention has it, against alignments made by people."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.config import Resolved
from transformer_jax.data import EOS, Examples, Tokenizer
from transformer_jax.data.parallel_text import read_lines
from transformer_jax.errors import UserError
from transformer_jax.evaluation.evaluator import Trained
from transformer_jax.inspection.sites import WITH_SOURCE, at, sites_of
from transformer_jax.models.model import Model
from transformer_jax.models.tokens import Batch
from transformer_jax.run.saved import SavedRun

Links = set[tuple[int, int]]
"""(source word, target word), from 0."""
LINK = re.compile(r"(\d{1,9})([-?p])(\d{1,9})")


class Gold(NamedTuple):
    """The links of a pair. All that are sure are possible, too."""

    sure: Links
    possible: Links


def read_gold(path: Path, count: int) -> list[Gold]:
    """A line for each pair: "0-0 1-2 2?1", source word and target word from 0; with "?" or "p" only possible.

    Raises:
      UserError: the file cannot be read, or a line is something else.
    """
    lines = read_lines(path)
    if len(lines) != count:
        raise UserError(f"--gold={path}: has {len(lines):,} lines, but there are {count:,} pairs.")
    return [_parse(path, number, line) for number, line in enumerate(lines, 1)]


def _parse(path: Path, number: int, line: str) -> Gold:
    sure: Links = set()
    possible: Links = set()
    for text in line.split():
        match = LINK.fullmatch(text)
        if match is None:
            raise UserError(f"--gold={path}: line {number} holds {text!r}, which is no link such as 0-1 or 0?1.")
        link = int(match[1]), int(match[3])
        possible.add(link)
        if match[2] == "-":
            sure.add(link)
    return Gold(sure, possible)


def errors_of(run: SavedRun, trained: Trained, examples: Examples, gold: list[Gold]) -> list[dict[str, Any]]:
    """The alignment error rate of each layer (the mean of its heads) and of each head, against the true targets.

    A target token is linked to the source token that the row which predicts it looks at most, and so their words are;
    where that is EOS, it has no link.
    """
    sites = sites_of(run.config)
    if WITH_SOURCE not in sites:
        raise UserError(f"--gold: the run in {run.workdir} has no attention from targets to a source.")

    def look(config: Resolved, model: Model, params: Any, batch: Batch) -> jax.Array:
        _, seen = model.look(params, batch)
        weights_LBHTS = at(sites[WITH_SOURCE], "weights", seen)
        of_layers = jnp.concatenate([jnp.mean(weights_LBHTS, axis=2, keepdims=True), weights_LBHTS], axis=2)
        return jnp.moveaxis(jnp.argmax(of_layers, axis=-1), 0, 1)  # [B, L, 1 + H, T]

    chosen = run.evaluator.rows(run.evaluator.compile(look), trained, examples)[0]
    sides = [
        (examples.sequences(side), tokenizer)
        for side, tokenizer in (("inputs", run.assets.source), ("targets", run.assets.target))
    ]
    words = [[words_of(rows[number].tolist(), tokenizer) for number in range(len(rows))] for rows, tokenizer in sides]
    return [
        {"layer": layer, "head": head - 1 if head else None, **error_rate(links, gold)}
        for layer in range(chosen.shape[1])
        for head in range(chosen.shape[2])
        for links in [[links_of(chosen[i, layer, head], words[0][i], words[1][i]) for i in range(len(examples))]]
    ]


def words_of(ids: list[int], tokenizer: Tokenizer) -> list[int | None]:
    """The word, between blanks, that each token belongs to; None: EOS belongs to none."""
    found: list[int | None] = []
    for place, number in enumerate(ids):
        found.append(None if number == EOS else max(len(tokenizer.decode(ids[: place + 1]).split()) - 1, 0))
    return found


def links_of(chosen_T: np.ndarray, source: list[int | None], target: list[int | None]) -> Links:
    """The links of words, where token t of the target is linked to token chosen_T[t] of the source."""
    pairs = (
        (source[place] if place < len(source) else None, word) for place, word in zip(chosen_T, target, strict=False)
    )
    return {(there, word) for there, word in pairs if there is not None and word is not None}


def error_rate(found: list[Links], gold: list[Gold]) -> dict[str, float]:
    """Och and Ney 2003: AER = 1 - (|A and S| + |A and P|) / (|A| + |S|), over all pairs together."""
    pairs = list(zip(found, gold, strict=True))
    links, sure = sum(len(a) for a, _ in pairs), sum(len(g.sure) for _, g in pairs)
    right_sure, right = sum(len(a & g.sure) for a, g in pairs), sum(len(a & g.possible) for a, g in pairs)
    return {
        "aer": 1 - (right_sure + right) / max(links + sure, 1),
        "precision": right / max(links, 1),
        "recall": right_sure / max(sure, 1),
    }
