"""The knobs of a decoder alone."""

import dataclasses
from typing import ClassVar, Literal

from transformer_jax.config.model import EmbeddingConfig, LayersConfig, TokenModelConfig
from transformer_jax.config.schema import knob


@dataclasses.dataclass(frozen=True)
class DecoderOnlyEmbedding(EmbeddingConfig):
    """Section 3.4, with one language."""

    tying: Literal["decoder", "none"] = knob("decoder", "one table for tokens and softmax; or two")


@dataclasses.dataclass(frozen=True)
class DecoderOnlyConfig(TokenModelConfig, LayersConfig):
    """The right half of Figure 1 without attention to a source (Radford et al. 2018, "GPT")."""

    reads: ClassVar[tuple[str, ...]] = ("text",)
    places: ClassVar[tuple[str, ...]] = ("decoder",)
    lengths: ClassVar[str] = "data.max_length"

    family: Literal["decoder_only"] = knob("decoder_only", "which file of models/ builds it; set by the config file")
    num_layers: int = knob(6, "N (Section 3.1)", low=1, high=1000)
    decoder_mask: Literal["causal", "none"] = knob(
        "causal", "Section 3.2.3; 'none' lets the model see the answer in training"
    )
    embedding: DecoderOnlyEmbedding = dataclasses.field(default_factory=DecoderOnlyEmbedding)

    @property
    def depths(self) -> dict[str, int]:
        return {"decoder": self.num_layers}

    def longest(self, max_length: int, max_extra_length: int) -> int:
        """What it writes stays within a window of `data.max_length` tokens."""
        return max_length
