"""Every knob, stated once: name, type, default (the paper's), the section that says so, bounds, when it is read.

A config file returns the locked ConfigDict of `default_config()`, changed. Rows and command-line overrides act on that;
`freeze` then makes the frozen dataclass `Config` out of it, strictly. `config.model.*` is read in `models/`,
`config.data.*` in `data/`, and so on: the path of a knob tells its room. "The paper" is Vaswani et al. 2017; the
defaults are the base row of its Table 3.
"""

import dataclasses
import functools
import hashlib
import json
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from ml_collections import ConfigDict, config_dict

from transformer_jax.errors import UserError, shown
from transformer_jax.registry import did_you_mean
from transformer_jax.strict_json import to_json


@dataclasses.dataclass(frozen=True)
class Knob:
    """What is known of a field beside its type and default.

    `read_if` is asked of the Config; of a slot of attention, of the AttentionSlots of a place.
    """

    doc: str
    low: float | None = None
    high: float | None = None
    read_if: Callable[[Any], bool] | None = None
    traced: bool = False


def knob(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    read_if: Callable[[Any], bool] | None = None,
    traced: bool = False,
) -> Any:
    """A dataclass field. `traced`: may be an axis of a population. `read_if`: false where it changes nothing."""
    return dataclasses.field(default=default, metadata={"knob": Knob(doc, low, high, read_if, traced)})


# Bounds of what the paper leaves open: far beyond all that was ever trained, and so small that shapes and steps made of
# them can be counted, by JAX too, which counts in int32 and float32.
MOST_STEPS = 10**9
WIDEST = 2**16
LARGEST = 1e30
MOST_TOKENS = 2**24


@dataclasses.dataclass(frozen=True)
class AttentionSlots:
    """Section 3.2. Each can be set for the three places of attention apart."""

    score: str = knob("dot", "how a query and a key are compared (Eq. 1; slot SCORES)")
    scale: str = knob("inv_sqrt_d_k", "multiplies every score (Section 3.2.1; slot SCALES)")
    scale_value: float = knob(
        0.125,
        "the factor itself, at scale 'constant'",
        low=-LARGEST,
        high=LARGEST,
        traced=True,
        read_if=lambda a: a.scale == "constant" and a.weights != "uniform",
    )
    weights: str = knob("softmax", "from scores to weights (Eq. 1; slot WEIGHTS)")
    projections: str = knob("linear", "W_Q, W_K and W_V (Section 3.2.2; slot PROJECTIONS)")
    output_projection: Literal["linear", "none"] = knob("linear", "W_O (Section 3.2.2); without: H * d_v = d_model")
    qk_norm: Literal["none", "rms_norm", "layer_norm"] = knob("none", "normalisation of queries and keys, per head")
    use_bias: bool = knob(
        False,
        "biases in the four projections",
        read_if=lambda a: a.output_projection == "linear" or a.projections != "none",
    )
    dropout_rate: float = knob(
        0.0, "dropout on the attention weights (the paper has none)", low=0, high=0.99, traced=True
    )


def _inherited(field: dataclasses.Field) -> Knob:
    doc = f"unset: model.attention.{field.name}"
    return dataclasses.replace(field.metadata["knob"], doc=doc, traced=False)  # None is no number


if TYPE_CHECKING:
    AttentionOverrides = AttentionSlots
else:
    AttentionOverrides = dataclasses.make_dataclass(
        "AttentionOverrides",
        [
            (
                f.name,
                f.type | None,
                dataclasses.field(default=None, metadata={"knob": _inherited(f)}),
            )
            for f in dataclasses.fields(AttentionSlots)
        ],
        frozen=True,
    )

ATTENTION_PLACES = ("encoder", "decoder", "cross")


@dataclasses.dataclass(frozen=True)
class AttentionConfig(AttentionSlots):
    """The slots of all attention, and what differs in one place."""

    encoder: AttentionOverrides = dataclasses.field(default_factory=AttentionOverrides)
    decoder: AttentionOverrides = dataclasses.field(default_factory=AttentionOverrides)
    cross: AttentionOverrides = dataclasses.field(default_factory=AttentionOverrides)


@dataclasses.dataclass(frozen=True)
class EmbeddingConfig:
    """Section 3.4."""

    tying: Literal["three_way", "decoder", "none"] = knob(
        "three_way", "one table for source, target and softmax; for target and softmax; or three"
    )
    scale: Literal["sqrt_d_model", "one"] = knob("sqrt_d_model", "multiplies the embeddings")
    output_bias: bool = knob(False, "a bias on the output logits")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Section 3 and Table 3. Sizes are those of the base model."""

    family: Literal["transformer"] = knob("transformer", "which file of models/ builds it")
    vocab_size: int | None = knob(
        None, "rows of the (target) table C; unset: from the tokenizer", low=5, high=MOST_TOKENS
    )
    source_vocab_size: int | None = knob(
        None,
        "rows of the source table; unset: vocab_size",
        low=5,
        high=MOST_TOKENS,
        read_if=lambda c: c.model.embedding.tying != "three_way",
    )
    d_model: int = knob(512, "D, width of the residual stream (Section 3.1)", low=1, high=WIDEST)
    num_heads: int = knob(8, "H, the paper's h (Section 3.2.2)", low=1, high=4096)
    d_k: int | None = knob(
        None, "K, width of a query and a key in one head; unset: d_model / num_heads", low=1, high=WIDEST
    )
    d_v: int | None = knob(None, "V, width of a value in one head; unset: d_model / num_heads", low=1, high=WIDEST)
    d_ff: int = knob(
        2048, "F, inner width of the feed-forward (Section 3.3)", low=1, high=2**20, read_if=lambda c: _reads_d_ff(c)
    )
    ffn_depth: int = knob(
        2,
        "linear layers in the feed-forward; 1: one of width d_model without ReLU",
        low=1,
        high=16,
        read_if=lambda c: c.model.feed_forward != "none",
    )
    num_encoder_layers: int = knob(6, "N of the encoder (Section 3.1)", low=1, high=1000)
    num_decoder_layers: int = knob(6, "N of the decoder (Section 3.1)", low=1, high=1000)
    dropout_rate: float = knob(
        0.1, "P_drop on sublayer outputs and embedding sums (Section 5.4)", low=0, high=0.99, traced=True
    )
    ffn_dropout_rate: float = knob(
        0.0,
        "dropout after the feed-forward's non-linearity (the paper has none)",
        low=0,
        high=0.99,
        traced=True,
        read_if=lambda c: c.model.feed_forward != "none" and c.model.ffn_depth >= 2,
    )
    positions: str = knob("sinusoidal", "Section 3.5; slot POSITIONS")
    feed_forward: str = knob("relu", "Eq. 2; slot FEED_FORWARDS")
    residual: Literal["post_norm", "pre_norm", "none"] = knob("post_norm", "Section 3.1: LayerNorm(x + Sublayer(x))")
    norm: Literal["layer_norm", "rms_norm", "none"] = knob("layer_norm", "the normalisation of the residual stream")
    norm_epsilon: float = knob(
        1e-6, "added to the variance (left open by the paper)", low=0, high=1, read_if=lambda c: _has_norm(c)
    )
    decoder_mask: Literal["causal", "none"] = knob(
        "causal", "Section 3.2.3; 'none' lets the decoder see the answer in training"
    )
    dtype: Literal["float32", "bfloat16"] = knob(
        "float32", "of activations; parameters, softmax and losses stay float32"
    )
    attention: AttentionConfig = dataclasses.field(default_factory=AttentionConfig)
    embedding: EmbeddingConfig = dataclasses.field(default_factory=EmbeddingConfig)

    @property
    def head_widths(self) -> tuple[int, int]:
        """(d_k, d_v), once `derive` has set them."""
        if self.d_k is None or self.d_v is None:
            raise ValueError("d_k and d_v are not derived yet: make the config with freeze() or derive()")
        return self.d_k, self.d_v


def _reads_d_ff(config: "Config") -> bool:
    return config.model.feed_forward != "none" and config.model.ffn_depth >= 2


def _has_norm(config: "Config") -> bool:
    return config.model.norm != "none" or any(
        attention_at(config.model, place).qk_norm != "none" for place in ATTENTION_PLACES
    )


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Section 5.1."""

    source: str = knob("parallel_text", "where the sentence pairs come from; slot SOURCES")
    directory: str | None = knob(None, "of the corpus; unset: the environment variable TRANSFORMER_JAX_DATA")
    source_language: str = knob("en", "suffix of the source files")
    target_language: str = knob("de", "suffix of the target files")
    tokenizer: str = knob("sentencepiece(vocab_size=37000)", "slot TOKENIZERS; trained on the training split")
    joint_vocabulary: bool = knob(True, "one vocabulary for both languages")
    max_length: int = knob(256, "tokens a side, end of sentence included", low=2, high=WIDEST)
    over_long: Literal["drop", "truncate"] = knob("drop", "what happens to longer training pairs")
    batching: Literal["length_classes", "packed"] = knob(
        "length_classes", "pairs of like length together, or several in a row"
    )
    tokens_per_batch: int = knob(
        25000, "rows * width at most, per side, padding included (Section 5.1)", low=1, high=MOST_TOKENS
    )
    batch_multiple: int = knob(
        8, "rows of a batch are a multiple of this; so must the device count divide it", low=1, high=MOST_TOKENS
    )
    length_classes: int = knob(
        8,
        "shapes of batches = compiled programs, at most",
        low=1,
        high=1000,
        read_if=lambda c: c.data.batching == "length_classes",
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
        None, "devices that share a batch; unset: all that divide data.batch_multiple", low=1, high=WIDEST
    )


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
    """Section 6.1."""

    strategy: str = knob("beam", "slot STRATEGIES")
    beam_size: int = knob(4, "hypotheses kept", low=1, high=1000, read_if=lambda c: c.decode.strategy == "beam")
    alpha: float = knob(0.6, "length penalty", low=-10, high=10, read_if=lambda c: c.decode.strategy == "beam")
    max_extra_length: int = knob(50, "output tokens beyond the number of input tokens", low=1, high=WIDEST)


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What is measured, and when."""

    metrics: tuple[str, ...] = knob(("bleu", "chrf"), "of decoded text; slot METRICS")
    best: str = knob("nll", "validation metric that chooses the best checkpoint")
    decode_every: int | None = knob(None, "steps between decodings in training; unset: none", low=1, high=MOST_STEPS)
    checkpoint: str = knob("last", "what is evaluated at the end: best, last or average:N")


@dataclasses.dataclass(frozen=True)
class Config:
    """One run."""

    seed: int = knob(0, "of initial values, dropout and the order of the data", low=0, high=2**31 - 1)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    parallel: ParallelConfig = dataclasses.field(default_factory=ParallelConfig)
    decode: DecodeConfig = dataclasses.field(default_factory=DecodeConfig)
    evaluate: EvaluateConfig = dataclasses.field(default_factory=EvaluateConfig)


# --- The schema as a table ---


@dataclasses.dataclass(frozen=True)
class Field:
    """One leaf of the config tree."""

    path: str
    type: Any
    default: Any
    knob: Knob

    @property
    def optional(self) -> bool:
        return type(None) in typing.get_args(self.type)

    @property
    def base_type(self) -> Any:
        """The type without `None`."""
        if not self.optional:
            return self.type
        kept = [t for t in typing.get_args(self.type) if t is not type(None)]
        return functools.reduce(lambda a, b: a | b, kept)


def _fields_of(cls: type, prefix: str) -> Iterator[Field]:
    for field in dataclasses.fields(cls):
        path = prefix + field.name
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            yield from _fields_of(field.type, path + ".")
        else:
            yield Field(path, field.type, field.default, field.metadata["knob"])


FIELDS: Mapping[str, Field] = types.MappingProxyType({f.path: f for f in _fields_of(Config, "")})


def check_value(field: Field, value: Any) -> Any:
    """`value` as the type of `field`; UserError if it is of another type, out of bounds or not one of the choices."""
    if value is None and field.optional:
        return None
    expected = field.base_type
    where = f"{field.path} = {shown(value)}"
    if typing.get_origin(expected) is Literal:
        choices = typing.get_args(expected)
        if value not in choices:
            near = did_you_mean(value, choices)
            raise UserError(f"{where} is not allowed{near}. Allowed: {', '.join(map(str, choices))}.")
        return value
    if typing.get_origin(expected) is tuple:
        if not isinstance(value, (tuple, list)) or not all(isinstance(v, str) for v in value):
            raise UserError(f"{where} must be a list of names.")
        return tuple(value)
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1023 else math.inf
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise UserError(f"{where} must be of type {expected.__name__}, but is {type(value).__name__}.")
    low, high = field.knob.low, field.knob.high
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where} is not a finite number.")
    if isinstance(value, str) and (not value.strip() or "\0" in value):
        raise UserError(f"{where} says nothing.")
    if (low is not None and value < low) or (high is not None and value > high):
        raise UserError(f"{where} is out of range: it must be {_range(low, high)}.")
    return value


def _range(low: float | None, high: float | None) -> str:
    if high is None:
        return f"at least {low}"
    return f"at most {high}" if low is None else f"from {low} to {high}"


# --- From the file's ConfigDict to the frozen Config ---


def default_config() -> ConfigDict:
    """The paper's base model as a locked ConfigDict: it refuses unknown keys and wrong types at once."""
    config = ConfigDict()
    for field in FIELDS.values():
        *parents, name = field.path.split(".")
        node = config
        for parent in parents:
            if parent not in node:
                node[parent] = ConfigDict()
            node = node[parent]
        node[name] = config_dict.placeholder(_plain_type(field)) if field.default is None else field.default
    return config.lock()


def _plain_type(field: Field) -> type:
    choices = typing.get_args(field.base_type) if typing.get_origin(field.base_type) is Literal else ()
    return type(choices[0]) if choices else field.base_type


def flatten(tree: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted path -> leaf."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, (Mapping, ConfigDict)):
            flat.update(flatten(value, path + "."))
        else:
            flat[path] = value
    return flat


def freeze(tree: Mapping[str, Any] | ConfigDict) -> Config:
    """The frozen Config of a complete or partial tree (what is missing is the default); d_k and d_v are derived.

    Raises:
      UserError: unknown path, wrong type, out of range, or a width that the heads do not divide.
    """
    return derive(replace(Config(), flatten(tree)))


def derive(config: Config) -> Config:
    """Fills d_k and d_v where they are unset (Section 3.2.2: d_k = d_v = d_model / h)."""
    model = config.model
    if model.d_k is not None and model.d_v is not None:
        return config
    if model.d_model % model.num_heads:
        raise UserError(
            f"model.num_heads = {model.num_heads} does not divide model.d_model = {model.d_model}: "
            "choose another number of heads or set model.d_k and model.d_v."
        )
    width = model.d_model // model.num_heads
    return with_values(config, {"model.d_k": model.d_k or width, "model.d_v": model.d_v or width})


def field_at(path: str) -> Field:
    """The field of that dotted path; UserError with a suggestion if there is none."""
    if path not in FIELDS:
        raise UserError(f"config.{path} does not exist{did_you_mean(path, FIELDS)}.")
    return FIELDS[path]


def replace(config: Config, overrides: Mapping[str, Any]) -> Config:
    """`config` with the dotted paths of `overrides` set, each checked against the schema."""
    return with_values(config, {path: check_value(field_at(path), value) for path, value in overrides.items()})


def with_values(node: Any, values: Mapping[str, Any]) -> Any:
    """Like `replace`, unchecked: the values may be tracers, so that a number can be an axis of a population."""
    here: dict[str, Any] = {}
    below: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        head, _, rest = path.partition(".")
        if rest:
            below.setdefault(head, {})[rest] = value
        else:
            here[head] = value
    here.update({head: with_values(getattr(node, head), rest) for head, rest in below.items()})
    return dataclasses.replace(node, **here)


def value_at(config: Any, path: str) -> Any:
    """The leaf at a dotted path."""
    return functools.reduce(getattr, path.split("."), config)


def to_dict(config: Config) -> dict[str, Any]:
    """The nested dict that `config.json` holds."""
    return json.loads(to_json(dataclasses.asdict(config)))


_DEFAULTS = flatten(json.loads(to_json(dataclasses.asdict(Config()))))


def config_hash(config: Config) -> str:
    """SHA-256 of what differs from the defaults, as canonical JSON: a field that is new here changes no older hash."""
    chosen = {path: value for path, value in flatten(to_dict(config)).items() if value != _DEFAULTS[path]}
    return hashlib.sha256(to_json(chosen, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def not_read(config: Config) -> list[str]:
    """Paths of the fields that this config does not read: changing them changes nothing."""
    return [path for path, field in FIELDS.items() if not is_read(field, config)]


def is_read(field: Field, config: Config) -> bool:
    """Whether a change of `field` in this config can change anything."""
    ask = field.knob.read_if or (lambda _: True)
    parent, _, name = field.path.rpartition(".")
    if parent == "model.attention":
        heirs = [p for p in ATTENTION_PLACES if getattr(getattr(config.model.attention, p), name) is None]
        return any(ask(attention_at(config.model, p)) for p in heirs)
    if parent.startswith("model.attention."):
        return ask(attention_at(config.model, parent.removeprefix("model.attention.")))
    return ask(config)


def attention_at(model: ModelConfig, place: str) -> AttentionSlots:
    """The slots of one place of attention: `model.attention` with what `model.attention.<place>` sets."""
    overrides = getattr(model.attention, place)
    names = [f.name for f in dataclasses.fields(AttentionSlots)]
    own = {name: getattr(overrides, name) for name in names}
    return AttentionSlots(**{n: getattr(model.attention, n) if own[n] is None else own[n] for n in names})
