"""A decoder alone, which predicts each token from those before it (Radford et al. 2018, "GPT").

B batch, T length, N hypotheses, D d_model, C vocabulary.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from transformer_jax.config import DecoderOnlyConfig
from transformer_jax.models.masks import Relation, by_hypothesis, relate_decoded
from transformer_jax.models.parts import Parts
from transformer_jax.models.stack import each_layer
from transformer_jax.models.tokens import Batch, Tokens, tokens_of
from transformer_jax.models.transformer import EncoderLayer
from transformer_jax.models.written import add_written, begin_written


class DecoderOnly(nn.Module):
    """A language model: without a source to attend to, a decoder layer is an encoder layer under the causal mask."""

    parts: Parts[DecoderOnlyConfig]

    def setup(self) -> None:
        config = self.parts.config
        self.embedding = self.parts.embedding(config.vocab_size)
        untied = config.embedding.tying == "none"
        self.softmax = self.parts.embedding(config.vocab_size) if untied else self.embedding
        self.positions = self.parts.positions()
        self.dropout = self.parts.dropout()
        self.layers = EncoderLayer(self.parts, place="decoder")
        self.norm = self.parts.final_norm()
        self.output_bias = self.parts.output_bias()

    def __call__(self, batch: Batch) -> jax.Array:
        """float32[B, T, C]: the logits of the token that follows each of the inputs."""
        tokens = tokens_of(batch, "inputs")
        return self._logits(tokens, relate_decoded(tokens, self.parts.config.decoder_mask))

    def _logits(self, tokens: Tokens, to_self: Relation) -> jax.Array:
        config = self.parts.config
        to_self = self.positions.biased(to_self, config.num_heads, causal=True)
        x_BTD = self.dropout(self.positions.add(self.embedding(tokens.ids), tokens.positions))

        def call(layer: EncoderLayer, x_BTD: jax.Array) -> jax.Array:
            return layer(x_BTD, to_self)

        x_BTD = each_layer(call, self.layers, x_BTD, config.num_layers, self.parts.remat)
        return self.output_bias(self.softmax.logits(self.norm(x_BTD)))

    # --- Token by token: what is kept between calls lies in the collections "context" and "cache" ---

    def start(self, batch: Batch, width: int, length: int) -> None:
        """Makes room for `width` texts an example of at most `length` tokens each; of these none is there yet."""
        batch_size, dtype, depth = batch["inputs"].shape[0], self.parts.dtype, self.parts.config.num_layers
        self.put_variable("context", "examples", jnp.arange(batch_size))
        begin_written(self, batch_size, width, length)

        def start(layer: EncoderLayer, _: None) -> None:
            layer.self_attention.reserve(batch_size, length * width, dtype)

        each_layer(start, self.layers, None, depth)

    def step(self, tokens_NT: jax.Array) -> jax.Array:
        """float32[N, T, C]: the logits of the token that follows each of these, which follow those of earlier steps."""
        batch_size: int = self.get_variable("context", "examples").shape[0]
        tokens, to_self = add_written(self, tokens_NT, batch_size)
        return by_hypothesis(self._logits(tokens, to_self), tokens_NT.shape[0])
