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

import jax

from transformer_jax.checked_json import checked
from transformer_jax.checkpoint import Checkpoints, average, is_scheduled, parse_checkpoint
from transformer_jax.config import Config, Resolved, replace
from transformer_jax.data import Examples, check_there, encode_pairs, make_dataset, make_source
from transformer_jax.data.parallel_text import read_parallel
from transformer_jax.errors import UserError
from transformer_jax.evaluation.evaluator import Evaluator, Trained
from transformer_jax.parallel.layout import Layout, make_layout
from transformer_jax.parallel.peers import arrays_of_first, is_first, of_first
from transformer_jax.run.compile import stack, state_template
from transformer_jax.run.directory import ASSETS, CHECKPOINTS, DATA, PREDICTIONS, RESULT, write_lines
from transformer_jax.run.identity import IMPORTED, MEANING, check_understood, read_config, recorded
from transformer_jax.run.resolve import load_assets, resolve_config, validate
from transformer_jax.tasks.text_metrics import text_metrics
from transformer_jax.tasks.translation import Translations
from transformer_jax.tasks.writing import what_was_cut_off
from transformer_jax.training.state import lanes_of

Say = Callable[[str], None]
FIXED_BY_TRAINING = (*MEANING, "optimizer.", "train.")
"""Fields that cannot change once a run is trained."""
LONGEST_NAME = 200
"""Bytes of a source's name that the name of its predictions keeps: file systems allow 255 with what is added."""


def to_standard_error(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def load_params(workdir: Path, choice: str) -> Any:
    """Parameters of a run as it is evaluated, on the host: of the best or last checkpoint, of one step, or averaged.

    Where training deletes a checkpoint between the choice and the end of reading, the choice is made again.

    Raises:
      UserError: there is no such checkpoint, it is damaged, or config.json is not that of the newest checkpoint.
    """
    config = Resolved(read_config(workdir))
    checkpoints = Checkpoints(workdir / CHECKPOINTS)
    while True:
        steps = checkpoints.steps()
        try:
            _check_config(workdir, config, checkpoints, steps)
            chosen = _choose(workdir, config, checkpoints, steps, choice)
            params = [checkpoints.restore(state_template(config), step)[0].evaluated for step in chosen]
        except Exception:  # whatever a reader says of a file that vanishes under it
            if set(steps) <= set(checkpoints.steps()):
                raise
        else:
            return params[0] if len(params) == 1 else average(params)


def load_for_all(config: Resolved, chosen: Sequence[tuple[Path, str]]) -> list[Any]:
    """`load_params` of each run and choice; where there are several processes, the first one reads for all."""
    found: list[Any] = []
    of_first(lambda: found.extend(load_params(workdir, choice) for workdir, choice in chosen))
    return list(arrays_of_first(found or None, [state_template(config).params] * len(chosen)))


def _check_config(workdir: Path, config: Config, checkpoints: Checkpoints, steps: list[int]) -> None:
    """Against the newest checkpoint that can be read: older ones may be of before a change that was allowed."""
    for step in reversed(steps):
        try:
            remembered = checkpoints.progress(step)
        except UserError:
            continue
        check_understood(workdir, step, remembered, config)
        return


def _choose(workdir: Path, config: Config, checkpoints: Checkpoints, steps: list[int], choice: str) -> list[int]:
    """Which of the checkpoints at `steps` are meant."""
    kind, number = parse_checkpoint(choice, "checkpoint")
    if not steps:
        raise UserError(f"{workdir}: has no checkpoint yet.")
    if kind == "best":
        best_step = checked(checkpoints.progress(steps[-1]), {"best_step": int | None}, workdir)["best_step"]
        if best_step is None:
            raise UserError(f"{workdir}: no evaluation was finite so far, so there is no best checkpoint.")
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
    """A run directory, ready to be evaluated.

    Attributes:
      config: that of the run, with the overrides of the call.
    """

    workdir: Path
    config: Resolved
    assets: Any
    layout: Layout
    evaluator: Evaluator

    @property
    def learns_from(self) -> str:
        """The kind of its data: "pairs", "text", "images" or "sentences"."""
        return make_source(self.config.data).kind

    def load(self, checkpoint: str | None) -> tuple[str, Trained]:
        """The checkpoint that is meant (None: what `evaluate.checkpoint` says), on the devices."""
        choice = checkpoint or self.config.evaluate.checkpoint
        params = stack(load_for_all(self.config, [(self.workdir, choice)]))
        return choice, self.layout.put(Trained(params, lanes_of([self.config])))

    def params_of(self, trained: Trained) -> Any:
        """The parameters on the host, without the axis of lanes."""
        return jax.tree.map(lambda leaf: leaf[0], self.layout.get(trained.params))

    def encode(self, sources: list[str], references: list[str]) -> Examples:
        """Pairs from outside of the corpus; UserError if the run has not learnt from pairs."""
        if self.learns_from != "pairs":
            raise UserError(
                f"{self.workdir}: holds a run of the task {self.config.task.name!r}, which has no sources and "
                "translations."
            )
        return encode_pairs(sources, references, self.config.data, self.assets)


def open_run(workdir: Path, overrides: Mapping[str, Any] | None = None) -> SavedRun:
    """A run directory with its own assets.

    Args:
      overrides: dotted path -> value of what may differ from training: decoding, devices, where the corpus lies.

    Raises:
      UserError: it is no run directory, it is not complete, or an override is of what training has settled.
    """
    for path in overrides or {}:
        if path.startswith(FIXED_BY_TRAINING):
            raise UserError(f"--config.{path}: training has settled that; {workdir} can be evaluated as it is only.")
    config = replace(read_config(workdir), overrides or {})
    assets = load_assets(workdir, config)
    if assets is None:
        raise UserError(f"{workdir}: has no {DATA}; the run directory is not complete.")
    if (recorded(workdir, "assets") or recorded(workdir, "tokenizers")) not in (None, assets.fingerprint):
        raise UserError(f"{workdir}: its {ASSETS} is not the one it was trained with; {DATA} holds the fingerprint.")
    validate(config)
    resolved = resolve_config(config, assets)
    layout = make_layout(resolved)
    return SavedRun(workdir, resolved, assets, layout, Evaluator(resolved, assets, layout))


def evaluate_run(
    workdir: Path,
    *,
    checkpoint: str | None = None,
    split: str = "test",
    source: Path | None = None,
    reference: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    say: Say = to_standard_error,
) -> dict[str, Any]:
    """All metrics of a run on a split of its corpus, or on a source and a reference file, by the path training takes.

    Args:
      checkpoint: best, last, a step or average:N; None: what `evaluate.checkpoint` says.
      split: train, valid or test; of train, whose texts are not kept, only what needs no decoding.
      say: is told how many examples were cut or left out; "truncated" and "dropped" of the result hold the numbers.

    Raises:
      UserError: naming what is missing or does not fit.
    """
    run = open_run(workdir, overrides)
    return _evaluate(run, checkpoint, judged_by(run, split, source, reference, overrides or {}, say), say)


@dataclasses.dataclass(frozen=True)
class Judged:
    """What is evaluated: its name, its examples, and how the names of its predictions begin."""

    name: str
    examples: Examples
    predictions: str


def judged_by(
    run: SavedRun, split: str, source: Path | None, reference: Path | None, overrides: Mapping[str, Any], say: Say
) -> Judged:
    """A split of the run's corpus, or the pairs of two files; `say` is told what of them is not seen.

    Raises:
      UserError: naming what is missing or does not fit.
    """
    judged = _find_examples(run, split, source, reference, overrides)
    for line in judged.examples.losses(judged.name, run.config.data.max_length):
        say(line)
    return judged


def _find_examples(
    run: SavedRun, split: str, source: Path | None, reference: Path | None, overrides: Mapping[str, Any]
) -> Judged:
    if (source is None) != (reference is None):
        raise UserError("--source and --reference go together: the sentences and their translations.")
    if source is not None and reference is not None:
        text = read_parallel(source, reference)
        name = os.fsencode(source.name).decode("utf-8", "replace")
        return Judged(name, run.encode(text.sources, text.references), _named_by_content(name, text.sources))
    check_there(run.config.data)
    dataset = make_dataset(run.config.data, run.assets)
    moved = recorded(run.workdir, IMPORTED) is not None
    moved |= any(path.startswith("data.") and path != "data.directory" for path in overrides)
    if not moved and recorded(run.workdir, "fingerprint") != dataset.fingerprint:
        raise UserError(
            f"{run.workdir}: was trained on other data than data.source = {run.config.data.source!r} holds now; "
            f"{DATA} has the fingerprint. Give files by --source and --reference, or restore the corpus."
        )
    if split not in dataset.splits:
        raise UserError(f"--split={split}: the corpus has {', '.join(dataset.splits)}.")
    examples = dataset.splits[split]
    texts = next(iter(examples.texts.values()), [])
    return Judged(split, examples, _named_by_content(split, texts) if moved else split)


def _named_by_content(name: str, texts: Sequence[str]) -> str:
    """A name that no split of the run has, nor another text of the same name."""
    kept = name.encode()[:LONGEST_NAME].decode("utf-8", "ignore")
    digest = hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{kept}.{digest[:8]}"


def _evaluate(run: SavedRun, checkpoint: str | None, judged: Judged, say: Say) -> dict[str, Any]:
    choice, trained = run.load(checkpoint)
    examples = judged.examples
    metrics, texts = run.evaluator.measure(trained, examples, write=bool(examples.texts))
    for line in what_was_cut_off(judged.name, metrics[0], examples, run.config):
        say(line)
    result = {
        "split": judged.name,
        "checkpoint": choice,
        "examples": len(examples),
        "dropped": examples.dropped,
        "truncated": examples.truncated,
        "metrics": metrics[0],
    }
    if texts is not None:
        path = run.workdir / PREDICTIONS / f"{judged.predictions}.{choice.replace(':', '_')}.txt"
        if is_first():
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
    say: Say = to_standard_error,
) -> Iterator[dict[str, Any]]:
    """Follows a training run: `evaluate_run` of each checkpoint as it appears, until the run has its result."""
    run = open_run(workdir, overrides)
    judged = judged_by(run, split, source, reference, overrides or {}, say)
    checkpoints = Checkpoints(workdir / CHECKPOINTS)
    seen: set[int] = set()
    while True:
        finished = (workdir / RESULT).is_file()
        for step in [step for step in checkpoints.steps() if step not in seen]:
            seen.add(step)
            try:
                yield _evaluate(run, str(step), judged, say)
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
    say: Say = to_standard_error,
) -> list[list[tuple[str, float]]]:
    """For each source sentence up to `num_results` best translations, each with its score; of a blank one a blank.

    The score is the one that beam search ranks by: log-probability over length penalty. A source that is longer than
    `data.max_length` is cut, and `say` is told which those are, counted from 1.
    """
    run = open_run(workdir, overrides)
    if num_results > 1 and run.config.decode.strategy != "beam":
        raise UserError(f"--nbest={num_results} needs decode.strategy = 'beam', not {run.config.decode.strategy!r}.")
    examples = run.encode(sources, [""] * len(sources))
    _, trained = run.load(checkpoint)
    if not sources:
        return []
    if examples.truncated:
        lines = "line" if examples.truncated == 1 else f"{examples.truncated:,} lines"
        limit = f"data.max_length = {run.config.data.max_length} tokens"
        say(f"{lines} cut to {limit}, what lies beyond is not translated: {_ranges((examples.cut + 1).tolist())}")
    output = Translations(num_results)
    predicted = run.evaluator.predictor(output)(trained, examples)
    found = output.ranked({name: values[0] for name, values in predicted.items()}, run.assets)
    if [] in found:
        raise UserError(
            f"{workdir}: no translation of line {found.index([]) + 1} has a finite score: the parameters of this "
            "checkpoint are damaged. Name another by --checkpoint."
        )
    return found


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
