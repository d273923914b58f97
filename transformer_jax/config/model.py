"""The knobs of models that are built from the paper's blocks; each family adds its own (see `families`).

Defaults are the base row of the paper's Table 3.
"""

import dataclasses
import typing
from typing import TYPE_CHECKING, ClassVar, Literal

from transformer_jax.config.schema import LARGEST, MOST_TOKENS, WIDEST, Knob, knob

if TYPE_CHECKING:
    from transformer_jax.config.tree import Config

SCALELESS = ("uniform", "proportional")
"""Weights that no scale changes."""


@dataclasses.dataclass(frozen=True)
class AttentionSlots:
    """Section 3.2. Each can be set for the three places of attention apart."""

    score: str = knob("dot", "how a query and a key are compared (Eq. 1; slot SCORES)")
    scale: str = knob(
        "inv_sqrt_d_k",
        "multiplies every score (Section 3.2.1; slot SCALES)",
        read_if=lambda a: a.weights not in SCALELESS,
    )
    scale_value: float = knob(
        0.125,
        "the factor itself, at scale 'constant'",
        low=-LARGEST,
        high=LARGEST,
        traced=True,
        read_if=lambda a: a.scale == "constant" and a.weights not in SCALELESS,
    )
    weights: str = knob("softmax", "from scores to weights (Eq. 1; slot WEIGHTS)")
    window: int | None = knob(
        None, "keys that stand further away than so many positions are not attended to", low=0, high=MOST_TOKENS
    )
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


@dataclasses.dataclass(frozen=True)
class PlacedAttentionSlots(AttentionSlots):
    """The slots of all attention of an encoder-decoder, and what differs in one place."""

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
    """What all families have. Sizes are those of the base model."""

    places: ClassVar[tuple[str, ...]] = ()
    """Where the family has attention; each may have slots of its own, `model.attention.<place>`."""

    reads: ClassVar[tuple[str, ...]] = ("pairs",)
    """The kinds of data that it reads."""
    from_data: ClassVar[tuple[str, ...]] = ()
    """What the data say, where it is unset: sizes of vocabularies, numbers of classes."""
    lengths: ClassVar[str] = "data.max_length and decode.max_extra_length"
    """What says how long its sequences are."""

    family: str = ""
    d_model: int = knob(512, "D, width of the residual stream (Section 3.1)", low=1, high=WIDEST)
    num_heads: int = knob(8, "H, the paper's h (Section 3.2.2)", low=1, high=4096)
    d_k: int | None = knob(
        None, "K, width of a query and a key in one head; unset: d_model / num_heads", low=1, high=WIDEST
    )
    d_v: int | None = knob(None, "V, width of a value in one head; unset: d_model / num_heads", low=1, high=WIDEST)
    dropout_rate: float = knob(
        0.1, "P_drop on sublayer outputs and embedding sums (Section 5.4)", low=0, high=0.99, traced=True
    )
    residual: Literal["post_norm", "pre_norm", "none"] = knob("post_norm", "Section 3.1: LayerNorm(x + Sublayer(x))")
    norm: Literal["layer_norm", "rms_norm", "none"] = knob("layer_norm", "the normalisation of the residual stream")
    norm_epsilon: float = knob(
        1e-6, "added to the variance (left open by the paper)", low=0, high=1, read_if=lambda c: _has_norm(c.model)
    )
    dtype: Literal["float32", "bfloat16"] = knob(
        "float32", "of activations; parameters, softmax and losses stay float32"
    )
    attention: AttentionSlots = dataclasses.field(default_factory=AttentionSlots)

    @property
    def depths(self) -> dict[str, int]:
        """Place of attention -> the number of layers that have it."""
        raise NotImplementedError

    def longest(self, max_length: int, max_extra_length: int) -> int:
        """The most positions of a sequence it reads or writes, with that `data.` and `decode.` lengths."""
        return max_length + max_extra_length

    @property
    def head_widths(self) -> tuple[int, int]:
        """(d_k, d_v), once `derive` has set them."""
        if self.d_k is None or self.d_v is None:
            raise ValueError("d_k and d_v are not derived yet: make the config with freeze() or derive()")
        return self.d_k, self.d_v


@dataclasses.dataclass(frozen=True)
class LayersConfig(ModelConfig):
    """What families have that are stacks of the paper's layers: the feed-forward network, and positions."""

    axes: ClassVar[int] = 1
    """2 where a token stands in a row and a column, as a part of an image does."""

    d_ff: int = knob(
        2048,
        "F, inner width of the feed-forward (Section 3.3)",
        low=1,
        high=2**20,
        read_if=lambda c: _has_inner_layer(c.model),
    )
    ffn_depth: int = knob(
        2,
        "linear layers in the feed-forward; 1: one of width d_model without ReLU",
        low=1,
        high=16,
        read_if=lambda c: c.model.feed_forward != "none",
    )
    ffn_dropout_rate: float = knob(
        0.0,
        "dropout after the feed-forward's non-linearity (the paper has none)",
        low=0,
        high=0.99,
        traced=True,
        read_if=lambda c: _has_inner_layer(c.model),
    )
    positions: str = knob("sinusoidal", "Section 3.5; slot POSITIONS")
    feed_forward: str = knob("relu", "Eq. 2; slot FEED_FORWARDS")


def _attends(config: "Config") -> bool:
    return bool(config.model.places)


@dataclasses.dataclass(frozen=True)
class PerhapsAttention(ModelConfig):
    """Sizes of heads, in families that can do without attention."""

    num_heads: int = knob(8, "H, the paper's h (Section 3.2.2)", low=1, high=4096, read_if=_attends)
    d_k: int | None = knob(
        None,
        "K, width of a query and a key in one head; unset: d_model / num_heads",
        low=1,
        high=WIDEST,
        read_if=_attends,
    )
    d_v: int | None = knob(
        None, "V, width of a value in one head; unset: d_model / num_heads", low=1, high=WIDEST, read_if=_attends
    )


@dataclasses.dataclass(frozen=True)
class TokenModelConfig(ModelConfig):
    """What families have that read and write tokens of a vocabulary."""

    from_data: ClassVar[tuple[str, ...]] = ("vocab_size",)

    vocab_size: int | None = knob(
        None, "rows of the (target) table C; unset: from the tokenizer", low=5, high=MOST_TOKENS
    )
    embedding: EmbeddingConfig = dataclasses.field(default_factory=EmbeddingConfig)


@dataclasses.dataclass(frozen=True)
class EncoderDecoderConfig(TokenModelConfig):
    """What families have that read a sequence of tokens and write another."""

    source_vocab_size: int | None = knob(
        None,
        "rows of the source table; unset: vocab_size",
        low=5,
        high=MOST_TOKENS,
        read_if=lambda c: c.model.embedding.tying != "three_way",
    )
    num_encoder_layers: int = knob(6, "N of the encoder (Section 3.1)", low=1, high=1000)
    num_decoder_layers: int = knob(6, "N of the decoder (Section 3.1)", low=1, high=1000)


@dataclasses.dataclass(frozen=True)
class TransformerConfig(EncoderDecoderConfig, LayersConfig):
    """The encoder-decoder of Section 3 and Table 3."""

    places: ClassVar[tuple[str, ...]] = ("encoder", "decoder", "cross")

    family: Literal["transformer"] = knob("transformer", "which file of models/ builds it; set by the config file")
    decoder_mask: Literal["causal", "none"] = knob(
        "causal", "Section 3.2.3; 'none' lets the decoder see the answer in training"
    )
    attention: PlacedAttentionSlots = dataclasses.field(default_factory=PlacedAttentionSlots)

    @property
    def depths(self) -> dict[str, int]:
        return dict(zip(self.places, (self.num_encoder_layers, *[self.num_decoder_layers] * 2), strict=True))


def _has_inner_layer(model: LayersConfig) -> bool:
    return model.feed_forward != "none" and model.ffn_depth >= 2


def _has_norm(model: ModelConfig) -> bool:
    return model.norm != "none" or any(attention_at(model, place).qk_norm != "none" for place in model.places)


def attention_at(model: ModelConfig, place: str) -> AttentionSlots:
    """The slots of one place of attention: `model.attention` with what `model.attention.<place>` sets."""
    overrides = getattr(model.attention, place) if hasattr(model.attention, place) else AttentionOverrides()
    names = [f.name for f in dataclasses.fields(AttentionSlots)]
    own = {name: getattr(overrides, name) for name in names}
    return AttentionSlots(**{n: getattr(model.attention, n) if own[n] is None else own[n] for n in names})


class AttentionPlace(typing.NamedTuple):
    """A place of attention and its slots, as the entries of these see them when they are checked."""

    name: str
    model: ModelConfig
    slots: AttentionSlots

    @property
    def field(self) -> str:
        """The path of its slots."""
        return f"model.attention.{self.name}"


def attention_place(model: ModelConfig, name: str) -> AttentionPlace:
    """The place of attention of that name."""
    return AttentionPlace(name, model, attention_at(model, name))
