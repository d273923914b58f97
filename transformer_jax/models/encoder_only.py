"""An encoder alone, which says what was hidden in a text, or of which class it is (Devlin et al. 2019, "BERT").

B batch, T length, S length with the class token, D d_model, C vocabulary or classes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from transformer_jax.config import EncoderOnlyConfig
from transformer_jax.models.masks import relate
from transformer_jax.models.parts import Parts
from transformer_jax.models.residual import NoNorm
from transformer_jax.models.stack import each_layer
from transformer_jax.models.tokens import PADDING, Batch, Tokens, tokens_of
from transformer_jax.models.transformer import EncoderLayer
from transformer_jax.vocabulary import EOS, class_token


class EncoderOnly(nn.Module):
    """Every token attends to all others. The table of tokens ends with MASK and CLS (see `vocabulary`)."""

    parts: Parts[EncoderOnlyConfig]

    def setup(self) -> None:
        config = self.parts.config
        assert config.num_classes is not None  # the data have set it
        self.embedding = self.parts.embedding(config.vocab_size)
        self.positions = self.parts.positions()
        if config.num_sentences:
            normal = nn.initializers.normal(config.d_model**-0.5)
            self.sentences = nn.Embed(config.num_sentences, config.d_model, embedding_init=normal)
        self.embedding_norm = self.parts.norm() if config.embedding.norm else NoNorm()
        self.dropout = self.parts.dropout()
        self.layers = EncoderLayer(self.parts)
        self.norm = self.parts.final_norm()
        if config.num_classes:
            self.classifier = nn.Dense(config.num_classes, kernel_init=nn.initializers.xavier_uniform())
        else:
            self.hidden_token = HiddenToken(self.parts)
            untied = config.embedding.tying == "none"
            self.softmax = self.parts.embedding(config.vocab_size) if untied else self.embedding
            self.output_bias = self.parts.output_bias()

    def __call__(self, batch: Batch) -> jax.Array:
        """The logits of the classes, float32[B, C]; of a model without classes the tokens, float32[B, T, C],
        or, where a batch names "places", int32[B, K], of the tokens there: float32[B, K, C]."""
        tokens = with_class_token(tokens_of(batch, "inputs"), self.parts.config)
        x_BSD = self.encode(tokens)
        if not self.parts.config.num_classes:
            x_BTD = x_BSD[:, 1:]
            if "places" in batch:
                x_BTD = jnp.take_along_axis(x_BTD, batch["places"][..., None], axis=1)
            return self.output_bias(self.softmax.logits(self.hidden_token(x_BTD)))
        x_BSD = self.dropout(x_BSD).astype(jnp.float32)
        if self.parts.config.pooling == "class_token":
            return self.classifier(x_BSD[:, 0])
        there_BS1 = (tokens.segments != PADDING)[..., None]
        return self.classifier(jnp.sum(x_BSD * there_BS1, axis=1) / jnp.sum(there_BS1, axis=1))

    def encode(self, tokens: Tokens) -> jax.Array:
        """[B, S, D]: what the layers make of the tokens."""
        config = self.parts.config
        to_self = self.positions.biased(relate(tokens, tokens), config.num_heads, causal=False)
        x_BSD = self.positions.add(self.embedding(tokens.ids), tokens.positions)
        if config.num_sentences:
            x_BSD += self.sentences(sentence_of(tokens.ids, config.num_sentences)).astype(x_BSD.dtype)
        x_BSD = self.dropout(self.embedding_norm(x_BSD))
        x_BSD = each_layer(
            lambda layer, x_BSD: layer(x_BSD, to_self), self.layers, x_BSD, config.num_layers, self.parts.remat
        )
        return self.norm(x_BSD)


class HiddenToken(nn.Module):
    """What stands between the encoder and the softmax: a layer with GELU, normalised (Devlin et al., their code)."""

    parts: Parts[EncoderOnlyConfig]

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        config, xavier = self.parts.config, nn.initializers.xavier_uniform()
        x_BTD = nn.Dense(config.d_model, dtype=self.parts.dtype, kernel_init=xavier, name="linear")(x_BTD)
        return self.parts.norm(name="norm")(nn.gelu(x_BTD, approximate=False))


def with_class_token(tokens: Tokens, config: EncoderOnlyConfig) -> Tokens:
    """The tokens with CLS before each example, at position 0 of its first sentence."""
    assert config.vocab_size is not None
    first = ((0, 0), (1, 0))
    return Tokens(
        jnp.pad(tokens.ids, first, constant_values=class_token(config.vocab_size)),
        jnp.pad(tokens.positions + 1, first),
        jnp.pad(tokens.segments, first, constant_values=1),
    )


def sentence_of(ids_BT: jax.Array, sentences: int) -> jax.Array:
    """int32[B, T]: the number of each token's sentence, from 0 and below `sentences`; EOS ends one."""
    ended_BT = (ids_BT == EOS).astype(jnp.int32)
    return jnp.minimum(jnp.cumsum(ended_BT, axis=1) - ended_BT, sentences - 1)
