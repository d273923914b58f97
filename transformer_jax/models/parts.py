"""The parts that a config chooses for a model: its slots, resolved. Every family of models is built from them."""

import dataclasses
import functools
from typing import Any, Generic, TypeVar

import flax.linen as nn
import jax.numpy as jnp

from transformer_jax.config import LayersConfig, ModelConfig, TokenModelConfig, attention_at
from transformer_jax.models.attention import MultiHeadAttention
from transformer_jax.models.embedding import Embedding, NoOutputBias, OutputBias
from transformer_jax.models.feed_forward import FEED_FORWARDS
from transformer_jax.models.masks import everywhere, within
from transformer_jax.models.positions import NoPositions, positions_of
from transformer_jax.models.projections import OUTPUT_PROJECTIONS, PROJECTIONS
from transformer_jax.models.regularisation import Dropout
from transformer_jax.models.residual import NORMS, RESIDUALS, AddNorm, NoNorm, left_out
from transformer_jax.models.scales import SCALES
from transformer_jax.models.scores import SCORES
from transformer_jax.models.weights import WEIGHTS
from transformer_jax.registry import resolve

Family = TypeVar("Family", bound=ModelConfig)
OfLayers = TypeVar("OfLayers", bound=LayersConfig)
OfTokens = TypeVar("OfTokens", bound=TokenModelConfig)


@dataclasses.dataclass(frozen=True)
class Parts(Generic[Family]):
    """Makes the modules of a config in which nothing is unset any more. Float fields of it may be tracers.

    Attributes:
      remat: what of a layer is computed again for its gradient instead of kept; see `stack.each_layer`.
    """

    config: Family
    remat: str = "none"

    @property
    def dtype(self) -> Any:
        """The dtype of activations."""
        return jnp.dtype(self.config.dtype)

    def attention(self: "Parts[Any]", place: str) -> MultiHeadAttention:
        """The attention of the encoder, of the decoder over its own tokens, or the decoder's "cross" attention."""
        config, slots, field = self.config, attention_at(self.config, place), f"model.attention.{place}"
        d_k, d_v = config.head_widths
        linear = {"use_bias": slots.use_bias, "dtype": self.dtype}
        projections = resolve(PROJECTIONS, slots.projections, f"{field}.projections")
        output_projection = OUTPUT_PROJECTIONS[slots.output_projection]
        scale = resolve(SCALES, slots.scale, f"{field}.scale")
        return MultiHeadAttention(
            num_heads=config.num_heads,
            d_k=d_k,
            d_v=d_v,
            projections=lambda: projections(config.num_heads, d_k, d_v, **linear),
            score=resolve(SCORES, slots.score, f"{field}.score"),
            scale=lambda attention: scale(attention, value=slots.scale_value),
            weights=resolve(WEIGHTS, slots.weights, f"{field}.weights"),
            reach=everywhere if slots.window is None else functools.partial(within, window=slots.window),
            output_projection=lambda: output_projection(config.d_model, **linear),
            qk_norm=lambda: NORMS[slots.qk_norm](epsilon=config.norm_epsilon, dtype=self.dtype),
            positions=NoPositions if place == "cross" else self.positions,
            dropout=lambda: Dropout(slots.dropout_rate),
        )

    def positions(self: "Parts[OfLayers]") -> NoPositions:
        """How a stack, or its self-attentions, know where a token stands."""
        return resolve(positions_of(self.config), self.config.positions, "model.positions")()

    def feed_forward(self: "Parts[OfLayers]") -> nn.Module:
        """The position-wise network."""
        make = resolve(FEED_FORWARDS, self.config.feed_forward, "model.feed_forward")
        return make(
            d_model=self.config.d_model,
            d_ff=self.config.d_ff,
            depth=self.config.ffn_depth,
            dropout=lambda name: Dropout(self.config.ffn_dropout_rate, name=name),
            dtype=self.dtype,
        )

    def add_norm(self: "Parts[Any]", sublayer: str) -> AddNorm:
        """What stands around a sublayer, "attention" or "feed_forward"."""
        missing = sublayer == "feed_forward" and self.config.feed_forward == "none"
        wiring = left_out if missing else RESIDUALS[self.config.residual]
        return AddNorm(wiring, self.norm, self.dropout)

    def norm(self, name: str | None = None) -> nn.Module:
        """The normalisation of the residual stream."""
        return NORMS[self.config.norm](epsilon=self.config.norm_epsilon, dtype=self.dtype, name=name)

    def final_norm(self) -> nn.Module:
        """The normalisation at the end of a stack, which only pre-norm layers need."""
        return self.norm() if self.config.residual == "pre_norm" else NoNorm()

    def dropout(self, name: str | None = None) -> Dropout:
        """Dropout on sublayer outputs and embedding sums (Section 5.4)."""
        return Dropout(self.config.dropout_rate, name=name)

    def embedding(self: "Parts[OfTokens]", vocab_size: int | None) -> Embedding:
        """A table of that many tokens (Section 3.4)."""
        assert vocab_size is not None  # the tokenizer has set it
        scale = self.config.d_model**0.5 if self.config.embedding.scale == "sqrt_d_model" else 1.0
        return Embedding(vocab_size, self.config.d_model, scale, self.dtype)

    def output_bias(self: "Parts[OfTokens]") -> nn.Module:
        """What is added to the logits."""
        return OutputBias() if self.config.embedding.output_bias else NoOutputBias()
