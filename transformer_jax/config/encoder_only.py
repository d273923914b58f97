"""The knobs of an encoder alone."""

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from transformer_jax.config.model import EmbeddingConfig, LayersConfig, TokenModelConfig
from transformer_jax.config.schema import MOST_CLASSES, knob

if TYPE_CHECKING:
    from transformer_jax.config.tree import Config


def _fills_in(config: "Config") -> bool:
    return isinstance(config.model, EncoderOnlyConfig) and config.model.num_classes == 0


def _classifies(config: "Config") -> bool:
    return not _fills_in(config)


@dataclasses.dataclass(frozen=True)
class EncoderOnlyEmbedding(EmbeddingConfig):
    """Section 3.4, with one language and, as in BERT, a normalisation of the sum."""

    tying: Literal["decoder", "none"] = knob("decoder", "one table for tokens and softmax; or two", read_if=_fills_in)
    output_bias: bool = knob(True, "a bias on the output logits", read_if=_fills_in)
    norm: bool = knob(
        True, "model.norm of the sum of token, position and sentence", read_if=lambda c: c.model.norm != "none"
    )


@dataclasses.dataclass(frozen=True)
class EncoderOnlyConfig(TokenModelConfig, LayersConfig):
    """The left half of Figure 1, which says of every token, or of all of them, what they are (Devlin et al. 2019)."""

    from_data: ClassVar[tuple[str, ...]] = ("vocab_size", "num_classes")
    reads: ClassVar[tuple[str, ...]] = ("sentences", "text")
    places: ClassVar[tuple[str, ...]] = ("encoder",)
    lengths: ClassVar[str] = "data.max_length and the class token"

    family: Literal["encoder_only"] = knob("encoder_only", "which file of models/ builds it; set by the config file")
    num_classes: int | None = knob(
        None, "C; unset: from the data; 0: it says which tokens were hidden", low=0, high=MOST_CLASSES
    )
    num_layers: int = knob(6, "N (Section 3.1)", low=1, high=1000)
    num_sentences: int = knob(
        2, "vectors for the first, the second, ... sentence of an example; the last is for all others too; 0: none",
        low=0,
        high=1000,
    )  # fmt: skip
    pooling: Literal["class_token", "mean"] = knob(
        "class_token", "what is classified: the token before all others, or the mean of all", read_if=_classifies
    )
    embedding: EncoderOnlyEmbedding = dataclasses.field(default_factory=EncoderOnlyEmbedding)

    @property
    def depths(self) -> dict[str, int]:
        return {"encoder": self.num_layers}

    def longest(self, max_length: int, max_extra_length: int) -> int:
        """The class token stands before the others."""
        return 1 + max_length
