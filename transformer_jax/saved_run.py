"""A run directory, read again: its parameters, scores on a split or on files, translations."""

import dataclasses
import hashlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transformer_jax.checkpoint import Checkpoints, average, is_scheduled
from transformer_jax.config import Config, replace
from transformer_jax.data import EncodedSplit, TokenizerPair, encode_pairs, make_dataset
from transformer_jax.data.parallel_text import read_parallel
from transformer_jax.errors import UserError
from transformer_jax.evaluation.evaluator import Evaluator, Trained, parse_checkpoint, text_metrics
from transformer_jax.parallel.layout import Layout, make_layout
from transformer_jax.program import load_tokenizers, state_template, validate, with_vocabulary
from transformer_jax.run_directory import CHECKPOINTS, DATA, PREDICTIONS, RESULT, read_config, read_json, write_lines
from transformer_jax.schema import checked
from transformer_jax.training.state import Lane

Say = Callable[[str], None]
FIXED = ("model.", "optimizer.", "train.", "data.tokenizer", "data.joint_vocabulary")
"""Fields that training has settled."""
LONGEST_NAME = 200
"""Bytes of a source's name that the name of its predictions keeps: file systems allow 255 with what is added."""


def _to_standard_error(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def load_params(workdir: Path, choice: str) -> Any:
    """Parameters of a run as it is evaluated, on the host: of the best or last checkpoint, of one step, or averaged.

    Where training deletes a checkpoint between the choice and the end of reading, the choice is made again.

    Raises:
      UserError: there is no such checkpoint, or it is damaged.
    """
    config = read_config(workdir)
    checkpoints = Checkpoints(workdir / CHECKPOINTS)
    while True:
        steps = checkpoints.steps()
        try:
            chosen = _choose(workdir, config, checkpoints, steps, choice)
            params = [checkpoints.restore(state_template(config), step)[0].evaluated for step in chosen]
        except Exception:  # whatever a reader says of a file that vanishes under it
            if set(steps) <= set(checkpoints.steps()):
                raise
        else:
            return params[0] if len(params) == 1 else average(params)


def _choose(workdir: Path, config: Config, checkpoints: Checkpoints, steps: list[int], choice: str) -> list[int]:
    """Which of the checkpoints at `steps` are meant."""
    kind, number = parse_checkpoint(choice, "checkpoint")
    if not steps:
        raise UserError(f"{workdir}: has no checkpoint yet.")
    if kind == "best":
        best_step = checked(checkpoints.progress(steps[-1]), {"best_step": int | None}, workdir)["best_step"]
        if best_step is None:
            raise UserError(f"{workdir}: nothing was evaluated yet, so there is no best checkpoint.")
        return [best_step]
    if kind == "step":
        return [number]
    if kind == "average":
        averaged = [step for step in steps if is_scheduled(config.train, step)][-number:]
        if len(averaged) < number:
            raise UserError(f"{workdir}: holds {len(averaged)} checkpoints to average, fewer than {choice!r} needs.")
        return averaged
    return steps[-1:]


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """What a run directory makes, once, without its corpus: compiled functions for any of its checkpoints."""

    workdir: Path
    config: Config
    tokenizers: TokenizerPair
    layout: Layout
    evaluator: Evaluator

    def load(self, choice: str | None) -> tuple[str, Trained]:
        """The choice, None being what `evaluate.checkpoint` says, and its parameters on the devices."""
        choice = choice or self.config.evaluate.checkpoint
        lane = Lane(np.int32(self.config.seed), {})
        return choice, self.layout.put(Trained(load_params(self.workdir, choice), lane))

    def encode(self, sources: list[str], references: list[str]) -> EncodedSplit:
        """Pairs from outside of the corpus."""
        return encode_pairs(sources, references, self.config.data, self.tokenizers)


def open_run(workdir: Path, overrides: Mapping[str, Any] | None = None) -> SavedRun:
    """A run directory with its own tokenizers.

    Args:
      overrides: dotted path -> value of what may differ from training: decoding, devices, where the corpus lies.

    Raises:
      UserError: it is no run directory, it is not complete, or an override is of what training has settled.
    """
    for path in overrides or {}:
        if path.startswith(FIXED):
            raise UserError(f"--config.{path}: training has settled that; {workdir} can be evaluated as it is only.")
    config = replace(read_config(workdir), overrides or {})
    tokenizers = load_tokenizers(workdir)
    if tokenizers is None:
        raise UserError(f"{workdir}: has no tokenizer; the run directory is not complete.")
    if _recorded(workdir, "tokenizers") not in (None, tokenizers.fingerprint):
        raise UserError(f"{workdir}: its tokenizer is not the one it was trained with; {DATA} holds the fingerprint.")
    validate(config)
    config = with_vocabulary(config, tokenizers)
    layout = make_layout(config)
    return SavedRun(workdir, config, tokenizers, layout, Evaluator(config, tokenizers.target, layout))


def _recorded(workdir: Path, name: str) -> Any:
    content = read_json(workdir / DATA)
    return content.get(name) if isinstance(content, dict) else None


def evaluate_run(
    workdir: Path,
    *,
    checkpoint: str | None = None,
    split: str = "test",
    source: Path | None = None,
    reference: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    say: Say = _to_standard_error,
) -> dict[str, Any]:
    """All metrics of a run on a split of its corpus, or on a source and a reference file, by the path training takes.

    Args:
      checkpoint: best, last, a step or average:N; None: what `evaluate.checkpoint` says.
      split: train, valid or test; of train, whose texts are not kept, only what needs no decoding.
      say: is told how many pairs were cut or left out; "truncated" and "dropped" of the result hold the numbers.

    Raises:
      UserError: naming what is missing or does not fit.
    """
    run = open_run(workdir, overrides)
    return _evaluate(run, checkpoint, _pairs(run, split, source, reference, overrides or {}, say))


@dataclasses.dataclass(frozen=True)
class _Judged:
    """What is evaluated: its name, its pairs, and how the names of its predictions begin."""

    name: str
    pairs: EncodedSplit
    predictions: str


def _pairs(
    run: SavedRun, split: str, source: Path | None, reference: Path | None, overrides: Mapping[str, Any], say: Say
) -> _Judged:
    judged = _find_pairs(run, split, source, reference, overrides)
    for line in judged.pairs.losses(judged.name, run.config.data.max_length):
        say(line)
    return judged


def _find_pairs(
    run: SavedRun, split: str, source: Path | None, reference: Path | None, overrides: Mapping[str, Any]
) -> _Judged:
    if (source is None) != (reference is None):
        raise UserError("--source and --reference go together: the sentences and their translations.")
    if source is not None and reference is not None:
        text = read_parallel(source, reference)
        name = os.fsencode(source.name).decode("utf-8", "replace")
        return _Judged(name, run.encode(text.sources, text.references), _named_by_content(name, text.sources))
    dataset = make_dataset(run.config.data, run.tokenizers)
    moved = any(path.startswith("data.") and path != "data.directory" for path in overrides)
    if not moved and _recorded(run.workdir, "fingerprint") != dataset.fingerprint:
        raise UserError(
            f"{run.workdir}: was trained on other data than data.source = {run.config.data.source!r} holds now; "
            f"{DATA} has the fingerprint. Give files by --source and --reference, or restore the corpus."
        )
    if split not in dataset.splits:
        raise UserError(f"--split={split}: the corpus has {', '.join(dataset.splits)}.")
    pairs = dataset.splits[split]
    return _Judged(split, pairs, _named_by_content(split, pairs.sources) if moved else split)


def _named_by_content(name: str, sources: Sequence[str]) -> str:
    """A name that no split of the run has, nor another text of the same name."""
    kept = name.encode()[:LONGEST_NAME].decode("utf-8", "ignore")
    digest = hashlib.sha256("\n".join(sources).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{kept}.{digest[:8]}"


def _evaluate(run: SavedRun, checkpoint: str | None, judged: _Judged) -> dict[str, Any]:
    choice, trained = run.load(checkpoint)
    pairs = judged.pairs
    metrics, texts = run.evaluator.measure(trained, pairs, decode=bool(pairs.references))
    result = {
        "split": judged.name,
        "checkpoint": choice,
        "pairs": len(pairs),
        "dropped": pairs.dropped,
        "truncated": pairs.truncated,
        "metrics": metrics[0],
    }
    if texts is not None:
        path = run.workdir / PREDICTIONS / f"{judged.predictions}.{choice.replace(':', '_')}.txt"
        write_lines(path, texts[0])
        result["predictions"] = str(path)
    return result


def watch_run(
    workdir: Path,
    *,
    split: str = "test",
    source: Path | None = None,
    reference: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    poll_seconds: float = 10.0,
    say: Say = _to_standard_error,
) -> Iterator[dict[str, Any]]:
    """Follows a training run: `evaluate_run` of each checkpoint as it appears, until the run has its result."""
    run = open_run(workdir, overrides)
    judged = _pairs(run, split, source, reference, overrides or {}, say)
    checkpoints = Checkpoints(workdir / CHECKPOINTS)
    seen: set[int] = set()
    while True:
        finished = (workdir / RESULT).is_file()
        for step in [step for step in checkpoints.steps() if step not in seen]:
            seen.add(step)
            try:
                yield _evaluate(run, str(step), judged)
            except UserError:
                if step in checkpoints.steps():  # else training has deleted it meanwhile
                    raise
        if finished:
            return
        time.sleep(poll_seconds)


def translate(
    workdir: Path,
    sources: list[str],
    *,
    checkpoint: str | None = None,
    num_results: int = 1,
    overrides: Mapping[str, Any] | None = None,
    say: Say = _to_standard_error,
) -> list[list[tuple[str, float]]]:
    """For each source sentence up to `num_results` best translations, each with its score; of a blank one a blank.

    The score is the one that beam search ranks by: log-probability over length penalty. A source that is longer than
    `data.max_length` is cut, and `say` is told which those are, counted from 1.
    """
    run = open_run(workdir, overrides)
    if num_results > 1 and run.config.decode.strategy != "beam":
        raise UserError(f"--nbest={num_results} needs decode.strategy = 'beam', not {run.config.decode.strategy!r}.")
    _, trained = run.load(checkpoint)
    if not sources:
        return []
    pairs = run.encode(sources, [""] * len(sources))
    if pairs.truncated:
        lines = "line" if pairs.truncated == 1 else f"{pairs.truncated:,} lines"
        limit = f"data.max_length = {run.config.data.max_length} tokens"
        say(f"{lines} cut to {limit}, what lies beyond is not translated: {_ranges((pairs.cut + 1).tolist())}")
    return run.evaluator.translate(trained, pairs, num_results)


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers: "1-3, 7"."""
    runs = [[n for _, n in run] for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def score_files(hypotheses: Path, references: Path, metrics: Sequence[str]) -> dict[str, Any]:
    """Metrics of given translations, each with its signature.

    Raises:
      UserError: a file cannot be read, or their numbers of lines differ.
    """
    text = read_parallel(hypotheses, references, written=True)
    return text_metrics(metrics, text.sources, text.references)
