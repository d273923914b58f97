"""The knobs of an encoder-decoder of recurrent networks."""

import dataclasses
from typing import Literal

from transformer_jax.config.model import AttentionSlots, EncoderDecoderConfig, ModelConfig, PerhapsAttention
from transformer_jax.config.schema import knob, with_default


@dataclasses.dataclass(frozen=True)
class RecurrentAttention(AttentionSlots):
    """Bahdanau et al. 2015, Eq. 5 and 6: scores v^T tanh(W_a s + U_a h), no scale; what is found are annotations."""

    score: str = with_default(AttentionSlots, "score", "additive")
    scale: str = with_default(AttentionSlots, "scale", "none")
    projections: str = with_default(AttentionSlots, "projections", "no_value")
    output_projection: Literal["linear", "none"] = with_default(AttentionSlots, "output_projection", "none")


def _has_upper_layers(model: "RecurrentConfig") -> bool:
    return max(model.num_encoder_layers, model.num_decoder_layers) > 1


@dataclasses.dataclass(frozen=True)
class RecurrentConfig(PerhapsAttention, EncoderDecoderConfig):
    """What came before the Transformer; the defaults are the network of Bahdanau et al. 2015."""

    family: Literal["recurrent"] = knob("recurrent", "which file of models/ builds it; set by the config file")
    cell: Literal["gru", "lstm", "vanilla"] = knob("gru", "f of s_t = f(s_{t-1}, x_t)")
    bidirectional: bool = knob(True, "the encoder's first layer reads from both ends, with half of d_model each")
    context: Literal["bahdanau", "luong", "fixed"] = knob(
        "bahdanau", "c_t: attended to by the state before step t, or after it; or what the encoder ends with; CONTEXTS"
    )
    num_heads: int = with_default(PerhapsAttention, "num_heads", 1)
    num_encoder_layers: int = with_default(EncoderDecoderConfig, "num_encoder_layers", 1)
    num_decoder_layers: int = with_default(EncoderDecoderConfig, "num_decoder_layers", 1)
    residual: Literal["post_norm", "pre_norm", "none"] = knob(
        "none",
        "around each layer above the first; GNMT's is post_norm with norm 'none'",
        read_if=lambda c: _has_upper_layers(c.model),
    )
    norm: Literal["layer_norm", "rms_norm", "none"] = with_default(ModelConfig, "norm", "none")
    attention: RecurrentAttention = dataclasses.field(default_factory=RecurrentAttention)

    @property
    def places(self) -> tuple[str, ...]:  # type: ignore[override]
        """None where the decoder is told what the encoder ends with, and nothing else."""
        return () if self.context == "fixed" else ("cross",)

    @property
    def depths(self) -> dict[str, int]:
        return dict.fromkeys(self.places, 1)
