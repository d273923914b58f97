"""What a model does on a split: teacher-forced figures, and metrics of the text it writes by itself."""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.config import Config, with_values
from transformer_jax.data import PAD, Batch, EncodedSplit, Tokenizer, evaluation_batches
from transformer_jax.errors import UserError
from transformer_jax.evaluation.decode import build_decode
from transformer_jax.evaluation.text_metrics import METRICS
from transformer_jax.parallel.layout import Layout
from transformer_jax.registry import resolve
from transformer_jax.training.objective import smoothed_cross_entropy, teacher_forced_logits
from transformer_jax.training.state import Lane

Metrics = dict[str, Any]


class Trained(NamedTuple):
    """What is evaluated: parameters, and the lane they were trained as."""

    params: Any
    lane: Lane

    def on(self, config: Config) -> Config:
        """The config with the seed and the traced numbers of the lane."""
        return with_values(config, {**self.lane.numbers, "seed": self.lane.seed})


TEACHER_FORCED = {"nll": False, "perplexity": False, "token_accuracy": True, "exact_match_teacher_forced": True}
"""Metric -> whether higher is better."""


def higher_is_better(metric: str) -> bool:
    """The direction of a metric; those of text are all better when higher."""
    return TEACHER_FORCED.get(metric, True)


class Evaluator:
    """Compiles what measures a config once. `lanes`: parameters have a lane axis, and there is a result for each."""

    def __init__(self, config: Config, tokenizer: Tokenizer, layout: Layout, lanes: int | None = None):
        """`tokenizer`: of the target side."""
        self._config = config
        self._tokenizer = tokenizer
        self._lanes = lanes
        self._score = layout.compile_rows(self._teacher_forced)
        self._layout = layout
        self._decode = self._compile_decode(1)
        self._translate = functools.cache(self._compile_decode)

    def _teacher_forced(self, trained: Trained, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """float32[B] each: sums over the tokens of a row, and whether all of them were right."""
        logits = teacher_forced_logits(trained.on(self._config), trained.params, batch, key=None)
        real = batch["targets"] != PAD
        _, nll = smoothed_cross_entropy(logits, batch["targets"], 0.0)
        correct = (jnp.argmax(logits, axis=-1) == batch["targets"]) & real
        return {
            "nll": jnp.sum(nll * real, axis=-1),
            "correct": jnp.sum(correct, axis=-1),
            "tokens": jnp.sum(real, axis=-1),
            "all_correct": jnp.all(correct | ~real, axis=-1),
        }

    def teacher_forced(self, trained: Trained, split: EncodedSplit) -> list[Metrics]:
        """nll (nats a token, EOS counted), perplexity, accuracies, given the true tokens before; one dict a lane."""
        rows = self._rows(self._score, trained, split)
        return [_figures({name: values[lane] for name, values in rows.items()}) for lane in range(self._lanes or 1)]

    def decode(self, trained: Trained, split: EncodedSplit) -> list[list[str]]:
        """The text that the model writes for each source of the split, in order, for a blank one a blank; one list a
        lane."""
        tokens_KN1T = self._search(self._decode, trained, split)["tokens_BNT"]
        return [[self._tokenizer.decode(row.tolist()) for row in tokens_N1T[:, 0]] for tokens_N1T in tokens_KN1T]

    def translate(self, trained: Trained, split: EncodedSplit, num_results: int) -> list[list[tuple[str, float]]]:
        """For each source of the split, in order, the best texts and the scores they are ranked by; of a solo run.

        Fewer than `num_results` where the search found fewer; of a blank source one, a blank.
        """
        found = self._search(self._translate(num_results), trained, split)
        text = self._tokenizer.decode
        return [
            [
                (text(tokens.tolist()), float(score))
                for tokens, score in zip(tokens_NT, scores_N, strict=True)
                if math.isfinite(score)
            ]
            for tokens_NT, scores_N in zip(found["tokens_BNT"][0], found["scores_BN"][0], strict=True)
        ]

    def _compile_decode(self, num_results: int) -> Any:
        def decode(trained: Trained, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            return build_decode(trained.on(self._config), num_results)(trained.params, batch)._asdict()

        return self._layout.compile_rows(decode)

    def _search(self, decode: Any, trained: Trained, split: EncodedSplit) -> dict[str, np.ndarray]:
        """What `decode` finds for every source of the split. One without a word is no row to it, so nothing is written.

        A model has seen no such sentence in training, and would make one up.
        """
        spoken = np.asarray([bool(source.strip()) for source in split.sources]) & (split.inputs.lengths > 1)

        def search(trained: Trained, batch: Batch) -> Any:
            inputs = np.where(spoken[batch["row"]][:, None], batch["inputs"], np.int32(PAD))
            return decode(trained, {**batch, "inputs": inputs})

        return self._rows(search, trained, split)

    def _rows(self, function: Any, trained: Trained, split: EncodedSplit) -> dict[str, np.ndarray]:
        """What `function` says of every pair of the split, in order: [lanes, pairs, ...].

        "row" of its batches is the index of each pair, -1 of an empty row.
        """
        found: list[dict[str, np.ndarray]] = []
        order: list[np.ndarray] = []
        for indices, batch in evaluation_batches(split, self._config.data):
            rows = function(trained, {**batch, "row": indices.astype(np.int32)})
            rows = rows if self._lanes else {name: values[None] for name, values in rows.items()}
            found.append({name: values[:, indices >= 0] for name, values in rows.items()})
            order.append(indices[indices >= 0])
        position = np.argsort(np.concatenate(order))
        return {name: _concatenate([rows[name] for rows in found])[:, position] for name in found[0]}

    def measure(
        self, trained: Trained, split: EncodedSplit, *, decode: bool
    ) -> tuple[list[Metrics], list[list[str]] | None]:
        """All metrics of a split, one dict a lane; with the decoded text if `decode`."""
        metrics = self.teacher_forced(trained, split)
        if not decode:
            return metrics, None
        texts = self.decode(trained, split)
        for lane, text in zip(metrics, texts, strict=True):
            lane.update(text_metrics(self._config.evaluate.metrics, text, split.references))
        return metrics, texts


def _concatenate(parts: list[np.ndarray]) -> np.ndarray:
    """Along axis 1; token rows of different widths are filled up with PAD."""
    width = max(part.shape[-1] for part in parts)
    if parts[0].ndim == 2 or all(part.shape[-1] == width for part in parts):
        return np.concatenate(parts, axis=1)
    padded = [
        np.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, width - part.shape[-1])], constant_values=PAD) for part in parts
    ]
    return np.concatenate(padded, axis=1)


def _figures(rows: Mapping[str, np.ndarray]) -> Metrics:
    tokens = int(rows["tokens"].sum())
    nll = float(rows["nll"].sum(dtype=np.float64)) / tokens
    return {
        "nll": nll,
        "perplexity": math.exp(min(nll, 700.0)),
        "token_accuracy": float(rows["correct"].sum()) / tokens,
        "exact_match_teacher_forced": float(rows["all_correct"].mean()),
    }


def text_metrics(specs: Sequence[str], hypotheses: list[str], references: list[str]) -> Metrics:
    """Metrics of text (see METRICS), each with its signature where it has one."""
    metrics: Metrics = {}
    for spec in specs:
        score = resolve(METRICS, spec, "evaluate.metrics")(hypotheses, references)
        metrics[spec] = score.score
        if score.signature:
            metrics[f"{spec}_signature"] = score.signature
    return metrics


def check(config: Config) -> None:
    """Refuses metrics that do not exist and a choice of the best that is never measured.

    Raises:
      UserError: naming the field, what was found and what is allowed.
    """
    for spec in config.evaluate.metrics:
        resolve(METRICS, spec, "evaluate.metrics")(["a"], ["a"])  # so that its options are refused now
    best, decode_every = config.evaluate.best, config.evaluate.decode_every
    if best not in (*TEACHER_FORCED, *config.evaluate.metrics):
        allowed = ", ".join((*TEACHER_FORCED, *config.evaluate.metrics))
        raise UserError(f"evaluate.best = {best!r} is not measured. Allowed: {allowed}.")
    if best not in TEACHER_FORCED and decode_every != config.train.evaluate_every:
        raise UserError(
            f"evaluate.best = {best!r} needs decoded text at each evaluation: set evaluate.decode_every to "
            f"train.evaluate_every = {config.train.evaluate_every}, not {decode_every}."
        )
    if decode_every is not None and decode_every % config.train.evaluate_every:
        raise UserError(
            f"evaluate.decode_every = {decode_every} must be a multiple of train.evaluate_every = "
            f"{config.train.evaluate_every}."
        )
    kind, count = parse_checkpoint(config.evaluate.checkpoint, "evaluate.checkpoint")
    if kind == "step":
        raise UserError(
            f"evaluate.checkpoint = {config.evaluate.checkpoint!r}: a step may be deleted before the end. Allowed: "
            "best, last, or average:N."
        )
    if kind == "average":
        _check_average(config, count)


def _check_average(config: Config, count: int) -> None:
    """The run must make and keep as many checkpoints as are averaged."""
    train, field = config.train, f"evaluate.checkpoint = 'average:{count}'"
    if count > train.keep_last:
        raise UserError(f"{field} needs more checkpoints than train.keep_last = {train.keep_last} keeps.")
    every = [n for n in (train.evaluate_every, train.checkpoint_every) if n is not None]
    made = {train.steps, *(k * n for n in every for k in range(1, count + 1) if k * n < train.steps)}
    if count > len(made):
        raise UserError(f"{field} needs more checkpoints than the {len(made)} of train.steps = {train.steps}.")
    if train.patience is not None and count > train.patience + 1:
        raise UserError(
            f"{field} needs more checkpoints than there may be with train.patience = {train.patience}: at least "
            f"{train.patience + 1} evaluations come before an early stop."
        )


def parse_checkpoint(choice: str, field: str) -> tuple[str, int]:
    """("best" | "last", 0), ("average", N) or ("step", N); UserError if it is none of them."""
    name, _, number = choice.partition(":")
    if choice in ("best", "last"):
        return choice, 0
    if re.fullmatch("[0-9]{1,12}", choice):
        return "step", int(choice)
    if name == "average" and re.fullmatch("[0-9]{1,12}", number) and int(number) > 0:
        return "average", int(number)
    raise UserError(f"{field} = {choice!r} is not allowed. Allowed: best, last, a step, or average:N.")
