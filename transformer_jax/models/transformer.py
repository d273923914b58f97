"""The Transformer (Section 3, Figure 1).

B batch, S source length, T target length, L layers, D d_model, H heads, K d_k, V d_v, C vocabulary.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from transformer_jax.models.attention import MultiHeadAttention
from transformer_jax.models.embedding import Embedding
from transformer_jax.models.masks import causal_mask, segment_mask, segments_of
from transformer_jax.models.positions import NoPositions
from transformer_jax.models.regularisation import Dropout
from transformer_jax.models.residual import AddNorm

KeysValues = tuple[jax.Array, jax.Array]
Bias = jax.Array | float


class Sequence(NamedTuple):
    """Where the tokens of a batch stand: int32[B, T] (or [1, T]) each. Segment 0 is padding."""

    positions: jax.Array
    segments: jax.Array


def one_sentence_a_row(tokens_BT: jax.Array, pad_id: int) -> Sequence:
    """Positions 0, 1, ... and one segment in each row: a batch that is not packed."""
    return Sequence(jnp.arange(tokens_BT.shape[1])[None], segments_of(tokens_BT, pad_id))


class Cache(NamedTuple):
    """Keys [L, B, T, H, K] and values [L, B, T, H, V] of the tokens decoded so far, and their number, int32[]."""

    keys: jax.Array
    values: jax.Array
    length: jax.Array


class EncoderLayer(nn.Module):
    """Section 3.1: self-attention, then a feed-forward network, each in Add & Norm."""

    build_attention: Callable[[], MultiHeadAttention]
    build_feed_forward: Callable[[], nn.Module]
    build_add_norm: Callable[[], AddNorm]
    build_last_add_norm: Callable[[], AddNorm]

    def setup(self) -> None:
        self.self_attention = self.build_attention()
        self.add_norm_1 = self.build_add_norm()
        self.feed_forward = self.build_feed_forward()
        self.add_norm_2 = self.build_last_add_norm()

    def __call__(
        self, x_BSD: jax.Array, mask: jax.Array, positions_BS: jax.Array, bias: Bias, deterministic: bool
    ) -> jax.Array:
        mode = {"deterministic": deterministic}

        def self_attention(x_BSD: jax.Array) -> jax.Array:
            keys_values = self.self_attention.keys_and_values(x_BSD, positions_BS)
            return self.self_attention(x_BSD, keys_values, mask, positions_BS, positions_BS, bias=bias, **mode)

        x_BSD = self.add_norm_1(x_BSD, self_attention, **mode)
        return self.add_norm_2(x_BSD, lambda x_BSD: self.feed_forward(x_BSD, **mode), **mode)


class DecoderLayer(nn.Module):
    """Section 3.1: masked self-attention, attention over the encoder's output, then a feed-forward network."""

    build_self_attention: Callable[[], MultiHeadAttention]
    build_cross_attention: Callable[[], MultiHeadAttention]
    build_feed_forward: Callable[[], nn.Module]
    build_add_norm: Callable[[], AddNorm]
    build_last_add_norm: Callable[[], AddNorm]

    def setup(self) -> None:
        self.self_attention = self.build_self_attention()
        self.add_norm_1 = self.build_add_norm()
        self.cross_attention = self.build_cross_attention()
        self.add_norm_2 = self.build_add_norm()
        self.feed_forward = self.build_feed_forward()
        self.add_norm_3 = self.build_last_add_norm()

    def __call__(
        self, x_BTD: jax.Array, memory: KeysValues, cache: KeysValues | None, call: "DecoderCall"
    ) -> tuple[jax.Array, KeysValues | None]:
        """The layer's output and, if it was given one, its cache with the new tokens in it."""
        mode = {"deterministic": call.deterministic}

        def self_attention(x_BTD: jax.Array) -> jax.Array:
            nonlocal cache
            keys_values = self.self_attention.keys_and_values(x_BTD, call.q_positions)
            if cache is not None:
                cache = keys_values = write(cache, keys_values, call.index)
            return self.self_attention(
                x_BTD, keys_values, call.self_mask, call.q_positions, call.k_positions, bias=call.bias, **mode
            )

        def cross_attention(x_BTD: jax.Array) -> jax.Array:
            source_positions = jnp.zeros_like(call.cross_mask[:, 0, 0], jnp.int32)  # relative kinds do not act here
            return self.cross_attention(x_BTD, memory, call.cross_mask, call.q_positions, source_positions, **mode)

        x_BTD = self.add_norm_1(x_BTD, self_attention, **mode)
        x_BTD = self.add_norm_2(x_BTD, cross_attention, **mode)
        x_BTD = self.add_norm_3(x_BTD, lambda x_BTD: self.feed_forward(x_BTD, **mode), **mode)
        return x_BTD, cache


@dataclasses.dataclass(frozen=True)
class DecoderCall:
    """What all layers of a decoder share in one call."""

    self_mask: jax.Array
    cross_mask: jax.Array
    q_positions: jax.Array
    k_positions: jax.Array
    bias: Bias
    index: jax.Array | None
    deterministic: bool


def write(cache: KeysValues, keys_values: KeysValues, index: jax.Array | None) -> KeysValues:
    """The cache with keys and values [B, t, ...] of new tokens at positions index, index + 1, ..."""
    assert index is not None  # a cache knows how many tokens it holds
    keys, values = (
        jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), index, axis=1)
        for old, new in zip(cache, keys_values, strict=True)
    )
    return keys, values


class Transformer(nn.Module):
    """Figure 1. The layers of a stack are scanned, so that depth costs no compile time."""

    num_encoder_layers: int
    num_decoder_layers: int
    pad_id: int
    build_source_embedding: Callable[[], Embedding]
    build_target_embedding: Callable[[], Embedding] | None
    build_softmax: Callable[[], Embedding] | None
    build_output_bias: Callable[[], nn.Module]
    build_encoder_layer: Callable[[], EncoderLayer]
    build_decoder_layer: Callable[[], DecoderLayer]
    build_final_norm: Callable[[], nn.Module]
    build_positions: Callable[[], NoPositions]
    build_dropout: Callable[[], Dropout]
    decoder_mask: Callable[[jax.Array, jax.Array], jax.Array]
    num_heads: int

    def setup(self) -> None:
        self.source_embedding = self.build_source_embedding()
        self.target_embedding = self.build_target_embedding() if self.build_target_embedding else self.source_embedding
        self.softmax = self.build_softmax() if self.build_softmax else self.target_embedding
        self.output_bias = self.build_output_bias()
        self.encoder_positions, self.decoder_positions = self.build_positions(), self.build_positions()
        self.encoder_dropout, self.decoder_dropout = self.build_dropout(), self.build_dropout()
        self.encoder_layers = self.build_encoder_layer()
        self.decoder_layers = self.build_decoder_layer()
        self.encoder_norm, self.decoder_norm = self.build_final_norm(), self.build_final_norm()

    def __call__(
        self,
        inputs_BS: jax.Array,
        decoder_inputs_BT: jax.Array,
        source: Sequence | None = None,
        target: Sequence | None = None,
        *,
        deterministic: bool,
    ) -> jax.Array:
        """float32[B, T, C]: logits of the token that follows each of `decoder_inputs_BT` (the targets shifted right).

        `source` and `target` say where the tokens of packed rows stand; without them a row is one sentence.
        """
        source = source or one_sentence_a_row(inputs_BS, self.pad_id)
        target = target or one_sentence_a_row(decoder_inputs_BT, self.pad_id)
        memory = self.encode(inputs_BS, source, deterministic=deterministic)
        return self.decode(decoder_inputs_BT, memory, source.segments, target, deterministic=deterministic)[0]

    def encode(self, inputs_BS: jax.Array, source: Sequence | None = None, *, deterministic: bool) -> KeysValues:
        """The encoder's output as the decoder layers attend to it: keys [L, B, S, H, K], values [L, B, S, H, V]."""
        source = source or one_sentence_a_row(inputs_BS, self.pad_id)
        mask = segment_mask(source.segments, source.segments)
        bias = self.encoder_positions.bias(self.num_heads, source.positions, source.positions, causal=False)
        x_BSD = self.encoder_positions.add(self.source_embedding(inputs_BS), source.positions)
        x_BSD = self.encoder_dropout(x_BSD, deterministic=deterministic)

        def layer(layer: EncoderLayer, x_BSD: jax.Array, _: None) -> tuple[jax.Array, None]:
            return layer(x_BSD, mask, source.positions, bias, deterministic), None

        def keys_and_values(layer: DecoderLayer, memory_BSD: jax.Array, _: None) -> tuple[jax.Array, KeysValues]:
            return memory_BSD, layer.cross_attention.keys_and_values(memory_BSD, source.positions)

        x_BSD, _ = scan_layers(layer, self.num_encoder_layers)(self.encoder_layers, x_BSD, None)
        memory_BSD = self.encoder_norm(x_BSD)
        return scan_layers(keys_and_values, self.num_decoder_layers)(self.decoder_layers, memory_BSD, None)[1]

    def decode(
        self,
        tokens_BT: jax.Array,
        memory: KeysValues,
        source_segments_BS: jax.Array,
        target: Sequence | None = None,
        *,
        cache: Cache | None = None,
        deterministic: bool,
    ) -> tuple[jax.Array, Cache | None]:
        """float32[B, T, C]: logits of the next tokens, and the cache, if there is one, with `tokens_BT` in it."""
        if cache is None:
            target = target or one_sentence_a_row(tokens_BT, self.pad_id)
            k_positions, layer_caches, index = target.positions, None, None
            self_mask = segment_mask(target.segments, target.segments)
            self_mask &= self.decoder_mask(target.positions, k_positions)
        else:
            target = Sequence(cache.length + jnp.arange(tokens_BT.shape[1])[None], jnp.ones_like(tokens_BT))
            k_positions, layer_caches, index = (
                jnp.arange(cache.keys.shape[2])[None],
                (cache.keys, cache.values),
                cache.length,
            )
            self_mask = causal_mask(target.positions, k_positions)
        call = DecoderCall(
            self_mask,
            segment_mask(target.segments, source_segments_BS),
            target.positions,
            k_positions,
            self.decoder_positions.bias(self.num_heads, target.positions, k_positions, causal=True),
            index,
            deterministic,
        )
        x_BTD = self.decoder_positions.add(self.target_embedding(tokens_BT), target.positions)
        x_BTD = self.decoder_dropout(x_BTD, deterministic=deterministic)

        def layer(
            layer: DecoderLayer, x_BTD: jax.Array, scanned: tuple[KeysValues, KeysValues | None]
        ) -> tuple[jax.Array, KeysValues | None]:
            return layer(x_BTD, *scanned, call)

        scanned = scan_layers(layer, self.num_decoder_layers)
        x_BTD, new_caches = scanned(self.decoder_layers, x_BTD, (memory, layer_caches))
        logits_BTC = self.output_bias(self.softmax.logits(self.decoder_norm(x_BTD)))
        return logits_BTC, None if cache is None else Cache(
            new_caches[0], new_caches[1], cache.length + tokens_BT.shape[1]
        )


def scan_layers(body: Callable[..., Any], length: int) -> Callable[..., Any]:
    """`body(layer, x, scanned) -> (x, out)` over `length` layers that differ in parameters and dropout."""
    return nn.scan(body, variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True}, length=length)
