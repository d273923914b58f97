"""A run directory, read again: its parameters, scores on a split or on files, translations."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer_jax.checkpoint import Checkpoints, average
from transformer_jax.config import with_values
from transformer_jax.data import encode_pairs
from transformer_jax.data.parallel_text import read_parallel
from transformer_jax.errors import UserError
from transformer_jax.evaluation.evaluator import parse_checkpoint, text_metrics
from transformer_jax.program import Program, load_tokenizers, state_template
from transformer_jax.run_directory import CHECKPOINTS, PREDICTIONS, RESULT, read_config, write_lines


def load_params(workdir: Path, choice: str) -> Any:
    """Parameters of a run as it is evaluated, on the host: of the best or last checkpoint, of one step, or averaged.

    Raises:
      UserError: there is no such checkpoint, or it is damaged.
    """
    kind, number = parse_checkpoint(choice, "checkpoint")
    checkpoints = Checkpoints(workdir / CHECKPOINTS)
    steps = checkpoints.steps()
    if not steps:
        raise UserError(f"{workdir}: has no checkpoint yet.")
    template = state_template(read_config(workdir))
    if kind == "best":
        _, progress = checkpoints.restore(template, steps[-1])
        if progress["best_step"] is None:
            raise UserError(f"{workdir}: nothing was evaluated yet, so there is no best checkpoint.")
        steps = [progress["best_step"]]
    elif kind == "step":
        steps = [number]
    else:
        count = number or 1
        if len(steps) < count:
            raise UserError(f"{workdir}: holds {len(steps)} checkpoints, fewer than the {count} of {choice!r}.")
        steps = steps[-count:]
    params = [checkpoints.restore(template, step)[0].evaluated for step in steps]
    return params[0] if len(params) == 1 else average(params)


def open_run(workdir: Path, overrides: Mapping[str, Any] | None = None) -> Program:
    """The program of a run directory with its own tokenizers.

    Args:
      overrides: dotted path -> value of what may differ from training: decoding, devices, where the corpus lies.

    Raises:
      UserError: it is no run directory, or not complete.
    """
    config = with_values(read_config(workdir), overrides or {})
    tokenizers = load_tokenizers(workdir)
    if tokenizers is None:
        raise UserError(f"{workdir}: has no tokenizer; the run directory is not complete.")
    return Program(config, tokenizers=tokenizers)


def evaluate_run(
    workdir: Path,
    *,
    checkpoint: str | None = None,
    split: str = "test",
    source: Path | None = None,
    reference: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All metrics of a run on a split of its corpus, or on a source and a reference file, by the path training takes.

    Args:
      checkpoint: best, last, a step or average:N; None: what `evaluate.checkpoint` says.

    Raises:
      UserError: naming what is missing or does not fit.
    """
    if (source is None) != (reference is None):
        raise UserError("--source and --reference go together: the sentences and their translations.")
    program = open_run(workdir, overrides)
    choice = checkpoint or program.config.evaluate.checkpoint
    params = program.layout.put(load_params(workdir, choice))
    if source is not None and reference is not None:
        text = read_parallel(source, reference)
        pairs = encode_pairs(text.sources, text.references, program.config.data, program.dataset.tokenizers)
        name = source.name
    elif split in program.dataset.splits:
        pairs, name = program.dataset.splits[split], split
    else:
        raise UserError(f"--split={split}: the corpus has {', '.join(program.dataset.splits)}.")
    metrics, texts = program.evaluator.measure(params, pairs, decode=True)
    path = workdir / PREDICTIONS / f"{name}.{choice.replace(':', '_')}.txt"
    write_lines(path, (texts or [[]])[0])
    return {"split": name, "checkpoint": choice, "metrics": metrics[0], "predictions": str(path)}


def watch_run(workdir: Path, *, poll_seconds: float = 10.0, **options: Any) -> Iterator[dict[str, Any]]:
    """Follows a training run: `evaluate_run` of each checkpoint as it appears, until the run has its result."""
    checkpoints = Checkpoints(workdir / CHECKPOINTS)
    seen: set[int] = set()
    while True:
        finished = (workdir / RESULT).is_file()
        for step in checkpoints.steps():
            if step not in seen:
                seen.add(step)
                yield evaluate_run(workdir, checkpoint=str(step), **options)
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
) -> list[list[tuple[str, float]]]:
    """For each source sentence the `num_results` best translations, each with its score; of a blank one a blank.

    The score is the one that beam search ranks by: log-probability over length penalty.
    """
    program = open_run(workdir, overrides)
    params = program.layout.put(load_params(workdir, checkpoint or program.config.evaluate.checkpoint))
    written = [number for number, source in enumerate(sources) if source.strip()]
    found = [[("", 0.0)] for _ in sources]
    if written:
        texts = [sources[number] for number in written]
        pairs = encode_pairs(texts, [""] * len(texts), program.config.data, program.dataset.tokenizers)
        for number, best in zip(written, program.evaluator.translate(params, pairs, num_results), strict=True):
            found[number] = best
    return found


def score_files(hypotheses: Path, references: Path, metrics: Sequence[str]) -> dict[str, Any]:
    """Metrics of given translations, each with its signature.

    Raises:
      UserError: a file cannot be read, or their numbers of lines differ.
    """
    text = read_parallel(hypotheses, references)
    return text_metrics(metrics, text.sources, text.references)
