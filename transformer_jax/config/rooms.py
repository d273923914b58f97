"""The knobs of everything but the model; those of `data.*` are read in `data/`, and so on."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from transformer_jax.config.schema import LARGEST, MOST_STEPS, MOST_TOKENS, WIDEST, knob

if TYPE_CHECKING:
    from transformer_jax.config.tree import Config


def _has_languages(config: "Config") -> bool:
    return "pairs" in config.task.learns_from and config.data.source.startswith(("parallel_text", "tfds"))


def _has_tokens(config: "Config") -> bool:
    return "images" not in config.model.reads


def _has_beams(config: "Config") -> bool:
    return config.task.writes and config.decode.strategy == "beam"


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Section 5.1."""

    source: str = knob("parallel_text", "where the examples come from; slot SOURCES")
    directory: str | None = knob(None, "of the corpus; unset: the environment variable TRANSFORMER_JAX_DATA")
    source_language: str = knob("en", "suffix of the source files", read_if=_has_languages)
    target_language: str = knob("de", "suffix of the target files", read_if=_has_languages)
    tokenizer: str = knob(
        "sentencepiece(vocab_size=37000)", "slot TOKENIZERS; trained on the training split", read_if=_has_tokens
    )
    joint_vocabulary: bool = knob(
        True, "one vocabulary for both languages", read_if=lambda c: "pairs" in c.task.learns_from
    )
    max_length: int = knob(256, "tokens a side, end of sentence included", low=2, high=WIDEST, read_if=_has_tokens)
    over_long: Literal["drop", "truncate"] = knob(
        "drop", "what happens to longer training pairs", read_if=lambda c: "pairs" in c.task.learns_from
    )
    batching: Literal["length_classes", "packed"] = knob(
        "length_classes", "examples of like length together, or several behind each other"
    )
    tokens_per_batch: int = knob(
        25000,
        "examples * width at most, per side, padding included (Section 5.1); the width of an image is 1",
        low=1,
        high=MOST_TOKENS,
    )
    batch_multiple: int = knob(
        8, "examples of a batch are a multiple of this; so must the device count divide it", low=1, high=MOST_TOKENS
    )
    length_classes: int = knob(
        8,
        "shapes of batches = compiled programs, at most",
        low=1,
        high=1000,
        read_if=lambda c: _has_tokens(c) and c.data.batching == "length_classes",
    )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Section 5.3."""

    name: Literal["adam", "adamw", "lion", "sgd"] = knob("adam", "the update rule")
    learning_rate: float = knob(
        1.0, "multiplies the schedule: 1 for Eq. 3, the peak for the others", low=0, high=LARGEST, traced=True
    )
    schedule: str = knob("noam", "Eq. 3; slot SCHEDULES")
    warmup_steps: int = knob(
        4000,
        "of the linear rise (Section 5.3)",
        low=0,
        high=MOST_STEPS,
        read_if=lambda c: not c.optimizer.schedule.startswith("constant"),
    )
    beta_1: float = knob(
        0.9, "decay of the first moment", low=0, high=0.99999, read_if=lambda c: c.optimizer.name != "sgd"
    )
    beta_2: float = knob(
        0.98, "decay of the second moment", low=0, high=0.99999, read_if=lambda c: c.optimizer.name != "sgd"
    )
    epsilon: float = knob(
        1e-9, "in the denominator", low=0, high=1, read_if=lambda c: c.optimizer.name in ("adam", "adamw")
    )
    weight_decay: float = knob(
        0.0,
        "decoupled, on matrices",
        low=0,
        high=LARGEST,
        traced=True,
        read_if=lambda c: c.optimizer.name in ("adamw", "lion"),
    )
    clip_norm: float | None = knob(None, "largest global norm of the gradient; unset: not clipped", low=0, high=LARGEST)
    trained: tuple[str, ...] = knob(
        (), "modules that are trained, the others keep what they start with, as beneath a new classifier; none: all"
    )
    ema_decay: float | None = knob(
        None, "of an average of the parameters that is evaluated in their place", low=0, high=1
    )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Section 5."""

    steps: int = knob(100_000, "updates (Section 5.2)", low=1, high=MOST_STEPS)
    label_smoothing: float = knob(0.1, "mass spread over all classes (Section 5.4)", low=0, high=1, traced=True)
    log_every: int = knob(100, "steps between lines of metrics.jsonl", low=1, high=MOST_STEPS)
    evaluate_every: int = knob(1000, "steps between evaluations on the validation split", low=1, high=MOST_STEPS)
    checkpoint_every: int | None = knob(
        None, "steps between checkpoints; unset: at each evaluation", low=1, high=MOST_STEPS
    )
    keep_last: int = knob(5, "checkpoints kept beside the best", low=1, high=MOST_STEPS)
    patience: int | None = knob(
        None, "evaluations without a better evaluate.best before the run stops early", low=1, high=MOST_STEPS
    )
    on_nonfinite: Literal["stop", "skip"] = knob("stop", "what a loss, gradient or update that is not finite leads to")
    steps_per_dispatch: int = knob(
        1,
        "steps in a row, of one shape, in a call of the program: fewer waits for the host; best with one shape",
        low=1,
        high=1000,
    )
    start_from: str | None = knob(
        None, "a run whose parameters it starts with, where paths and sizes are the same; unset: random ones"
    )
    remat: Literal["none", "layers", "dots_saveable", "dots_with_no_batch_dims_saveable"] = knob(
        "none", "what of a layer is computed again for its gradient, not kept: all, or all but products of matrices"
    )
    accumulate: int = knob(
        1,
        "parts of a batch, one after the other in a step: the same sums, with the memory of one",
        low=1,
        high=WIDEST,
    )
    deterministic: bool = knob(False, "only kernels that give the same bits every time; see `./launch.sh doctor`")

    @property
    def intervals(self) -> tuple[int, ...]:
        """Steps from one line of the log to the next, from one evaluation, and from one checkpoint."""
        return tuple(n for n in (self.log_every, self.evaluate_every, self.checkpoint_every) if n is not None)


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """How the step is laid out over devices."""

    strategy: Literal["jit", "pmap"] = knob("jit", "jit over a mesh, or pmap")
    data: int | None = knob(
        None,
        "devices that share a batch; unset: all that are left and divide data.batch_multiple; -1: all that are left",
        low=-1,
        high=WIDEST,
    )
    fsdp: int = knob(
        1,
        "devices that share a batch, parameters, their gradients and what the optimizer keeps; -1: all that are left",
        low=-1,
        high=WIDEST,
    )
    tensor: int = knob(
        1, "devices that share heads, feed-forward widths and vocabulary; -1: all that are left", low=-1, high=WIDEST
    )
    population: int | None = knob(
        None,
        "devices that share lanes, runs trained together; unset: all that are left, where they divide the lanes",
        low=-1,
        high=WIDEST,
    )


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
    """Section 6.1."""

    strategy: str = knob("beam", "slot STRATEGIES", read_if=lambda c: c.task.writes)
    beam_size: int = knob(4, "hypotheses kept", low=1, high=1000, read_if=_has_beams)
    alpha: float = knob(0.6, "length penalty", low=-10, high=10, read_if=_has_beams)
    max_extra_length: int = knob(
        50,
        "output tokens beyond the number of input tokens",
        low=1,
        high=WIDEST,
        read_if=lambda c: c.task.writes,
    )


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What is measured, and when."""

    metrics: tuple[str, ...] = knob(("bleu", "chrf"), "of decoded text; slot METRICS", read_if=lambda c: c.task.judged)
    best: str = knob("nll", "validation metric that chooses the best checkpoint")
    decode_every: int | None = knob(
        None,
        "steps between decodings in training; unset: none",
        low=1,
        high=MOST_STEPS,
        read_if=lambda c: c.task.judged,
    )
    checkpoint: str = knob("last", "what is evaluated at the end: best, last or average:N")
