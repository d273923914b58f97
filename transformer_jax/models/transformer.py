"""The Transformer (Section 3, Figure 1).

B batch, S source length, T target length, D d_model, C vocabulary.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from transformer_jax.config import TransformerConfig
from transformer_jax.models.embedding import Embedding
from transformer_jax.models.masks import Relation, by_hypothesis, relate, relate_decoded
from transformer_jax.models.parts import Parts
from transformer_jax.models.stack import each_layer
from transformer_jax.models.tokens import Batch, Tokens, shift_right, tokens_of
from transformer_jax.models.written import add_written, begin_written


class EncoderLayer(nn.Module):
    """Section 3.1: self-attention, then a feed-forward network, each in Add & Norm. Relatives are made of it too."""

    parts: Parts[Any]
    place: str = "encoder"  # of its attention

    def setup(self) -> None:
        self.self_attention = self.parts.attention(self.place)
        self.add_norm_1 = self.parts.add_norm("attention")
        self.feed_forward = self.parts.feed_forward()
        self.add_norm_2 = self.parts.add_norm("feed_forward")

    def __call__(self, x_BSD: jax.Array, to_self: Relation) -> jax.Array:
        x_BSD = self.add_norm_1(x_BSD, lambda x_BSD: self.self_attention(x_BSD, x_BSD, to_self))
        return self.add_norm_2(x_BSD, self.feed_forward)


class DecoderLayer(nn.Module):
    """Section 3.1: masked self-attention, attention over the encoder's output, then a feed-forward network."""

    parts: Parts[TransformerConfig]

    def setup(self) -> None:
        self.self_attention = self.parts.attention("decoder")
        self.add_norm_1 = self.parts.add_norm("attention")
        self.cross_attention = self.parts.attention("cross")
        self.add_norm_2 = self.parts.add_norm("attention")
        self.feed_forward = self.parts.feed_forward()
        self.add_norm_3 = self.parts.add_norm("feed_forward")

    def __call__(
        self, x_BTD: jax.Array, encoded_BSD: jax.Array | None, to_self: Relation, to_source: Relation
    ) -> jax.Array:
        x_BTD = self.add_norm_1(x_BTD, lambda x_BTD: self.self_attention(x_BTD, x_BTD, to_self))
        x_BTD = self.add_norm_2(x_BTD, lambda x_BTD: self.cross_attention(x_BTD, encoded_BSD, to_source))
        return self.add_norm_3(x_BTD, self.feed_forward)

    def start(self, encoded_BSD: jax.Array, source: Tokens, length: int) -> None:
        """Keeps what is needed to write `length` tokens."""
        self.cross_attention.keep(encoded_BSD, source.positions)
        self.self_attention.reserve(encoded_BSD.shape[0], length, encoded_BSD.dtype)


class Encoder(nn.Module):
    """The left half of Figure 1, above the embedding."""

    parts: Parts[TransformerConfig]

    def setup(self) -> None:
        self.positions = self.parts.positions()
        self.dropout = self.parts.dropout()
        self.layers = EncoderLayer(self.parts)
        self.norm = self.parts.final_norm()

    def __call__(self, x_BSD: jax.Array, to_self: Relation) -> jax.Array:
        """[B, S, D]: what the embedded source is encoded to."""
        depth, num_heads = self.parts.config.num_encoder_layers, self.parts.config.num_heads
        to_self = self.positions.biased(to_self, num_heads, causal=False)
        x_BSD = self.dropout(self.positions.add(x_BSD, to_self.q_positions_BT))
        x_BSD = each_layer(lambda layer, x_BSD: layer(x_BSD, to_self), self.layers, x_BSD, depth, self.parts.remat)
        return self.norm(x_BSD)


class Decoder(nn.Module):
    """The right half of Figure 1, between the embedding and the softmax."""

    parts: Parts[TransformerConfig]

    def setup(self) -> None:
        self.positions = self.parts.positions()
        self.dropout = self.parts.dropout()
        self.layers = DecoderLayer(self.parts)
        self.norm = self.parts.final_norm()

    def __call__(
        self, x_BTD: jax.Array, encoded_BSD: jax.Array | None, to_self: Relation, to_source: Relation
    ) -> jax.Array:
        """[B, T, D]: what follows the embedded tokens, given the encoder's output; None: what `start` kept of it."""
        depth, num_heads = self.parts.config.num_decoder_layers, self.parts.config.num_heads
        to_self = self.positions.biased(to_self, num_heads, causal=True)
        x_BTD = self.dropout(self.positions.add(x_BTD, to_self.q_positions_BT))

        def call(layer: DecoderLayer, x_BTD: jax.Array) -> jax.Array:
            return layer(x_BTD, encoded_BSD, to_self, to_source)

        return self.norm(each_layer(call, self.layers, x_BTD, depth, self.parts.remat))

    def start(self, encoded_BSD: jax.Array, source: Tokens, length: int) -> None:
        """Keeps in every layer what is needed to write `length` tokens."""
        depth = self.parts.config.num_decoder_layers
        each_layer(lambda layer, _: layer.start(encoded_BSD, source, length), self.layers, None, depth)


def tables(parts: Parts[Any]) -> tuple[Embedding, Embedding, Embedding]:
    """The tables of source, target and softmax (Section 3.4): one object where they are tied."""
    config = parts.config
    target = parts.embedding(config.vocab_size)
    if config.embedding.tying == "three_way":
        return target, target, target
    source = parts.embedding(config.source_vocab_size or config.vocab_size)
    return source, target, parts.embedding(config.vocab_size) if config.embedding.tying == "none" else target


class Transformer(nn.Module):
    """Figure 1."""

    parts: Parts[TransformerConfig]

    def setup(self) -> None:
        self.source_embedding, self.target_embedding, self.softmax = tables(self.parts)
        self.encoder = Encoder(self.parts)
        self.decoder = Decoder(self.parts)
        self.output_bias = self.parts.output_bias()

    def __call__(self, batch: Batch) -> jax.Array:
        """float32[B, T, C]: the logits of each of the targets, given the inputs and the targets before it."""
        source, targets = tokens_of(batch, "inputs"), tokens_of(batch, "targets")
        return self.decode(shift_right(targets), self.encode(source), source)

    def encode(self, source: Tokens) -> jax.Array:
        """[B, S, D]: the encoder's output."""
        return self.encoder(self.source_embedding(source.ids), relate(source, source))

    def decode(self, target: Tokens, encoded_BSD: jax.Array, source: Tokens) -> jax.Array:
        """float32[B, T, C]: the logits of the token that follows each of `target`."""
        to_self = relate_decoded(target, self.parts.config.decoder_mask)
        return self._logits(target, encoded_BSD, to_self, source)

    def _logits(self, target: Tokens, encoded_BSD: jax.Array | None, to_self: Relation, source: Tokens) -> jax.Array:
        x_BTD = self.decoder(self.target_embedding(target.ids), encoded_BSD, to_self, relate(target, source))
        return self.output_bias(self.softmax.logits(x_BTD))

    # --- Token by token: what is kept between calls lies in the collections "context" and "cache" ---

    def start(self, batch: Batch, width: int, length: int) -> None:
        """Encodes the inputs, each for `width` hypotheses of at most `length` tokens."""
        source = tokens_of(batch, "inputs")
        self.put_variable("context", "source", Tokens(*(jnp.broadcast_to(a, source.ids.shape) for a in source)))
        begin_written(self, source.ids.shape[0], width, length)
        self.decoder.start(self.encode(source), source, length * width)

    def step(self, tokens_NT: jax.Array) -> jax.Array:
        """float32[N, T, C]: the logits of the token that follows each of these, which follow those of earlier steps."""
        source: Tokens = self.get_variable("context", "source")
        target, to_self = add_written(self, tokens_NT, source.ids.shape[0])
        return by_hypothesis(self._logits(target, None, to_self, source), tokens_NT.shape[0])
