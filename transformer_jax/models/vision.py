"""A model of images: an encoder over their patches (Dosovitskiy et al. 2021, "ViT").

B batch, T tokens (patches row by row; a class token before them, where there is one), P pixels of a patch times
channels, D d_model, C classes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.config import Config, VisionConfig
from transformer_jax.errors import UserError
from transformer_jax.models.convolution import GridConvolution
from transformer_jax.models.masks import Relation
from transformer_jax.models.parts import Parts
from transformer_jax.models.positions import POSITIONS_IN_A_GRID, acts_on_scores
from transformer_jax.models.stack import each_layer
from transformer_jax.models.tokens import Batch
from transformer_jax.models.transformer import EncoderLayer
from transformer_jax.registry import demands, resolve


class ConvolutionLayer(nn.Module):
    """An encoder layer in which a convolution over the grid stands in the place of self-attention."""

    parts: Parts[VisionConfig]
    kernel: int

    def setup(self) -> None:
        self.convolution = GridConvolution(self.parts.config.grid, self.kernel, self.parts.dtype)
        self.add_norm_1 = self.parts.add_norm("attention")
        self.feed_forward = self.parts.feed_forward()
        self.add_norm_2 = self.parts.add_norm("feed_forward")

    def __call__(self, x_BTD: jax.Array, to_self: Relation) -> jax.Array:
        return self.add_norm_2(self.add_norm_1(x_BTD, self.convolution), self.feed_forward)


class Mixing(Protocol):
    """An entry of MIXINGS. Its constructor takes the options of the spec."""

    def check(self, model: VisionConfig) -> None:
        """Refuses a config that it cannot stand in."""

    def layer(self, parts: Parts[VisionConfig]) -> nn.Module:
        """What passes between patches, then a feed-forward network: (x_BTD, to_self) -> x_BTD."""


@dataclasses.dataclass(frozen=True)
class Attention:
    """Self-attention: every patch sees all others."""

    def check(self, model: VisionConfig) -> None:
        """It can always be."""

    def layer(self, parts: Parts[VisionConfig]) -> nn.Module:
        return EncoderLayer(parts)


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution of each channel: a patch sees those around it, each with a weight of its own.

    Attributes:
      kernel: height and width of what a patch sees, itself in the middle.
    """

    kernel: int = 3

    def check(self, model: VisionConfig) -> None:
        """A class token stands nowhere in the grid, and there are no scores that positions could act on."""
        if self.kernel % 2 == 0 or not 1 <= self.kernel < 1000:
            raise UserError(f"model.mixing = {model.mixing!r}: kernel must be an odd number below 1000.")
        if model.pooling == "class_token":
            raise UserError(
                f"model.pooling = 'class_token': the token has no place in the grid of model.mixing = "
                f"{model.mixing!r}; set model.pooling to 'mean'."
            )
        if acts_on_scores(resolve(POSITIONS_IN_A_GRID, model.positions, "model.positions")()):
            raise UserError(
                f"model.positions = {model.positions!r} acts on the scores of attention, which model.mixing = "
                f"{model.mixing!r} does without."
            )

    def layer(self, parts: Parts[VisionConfig]) -> nn.Module:
        return ConvolutionLayer(parts, self.kernel)


MIXINGS: dict[str, Callable[..., Mixing]] = {"attention": Attention, "convolution": Convolution}


def _fits(config: Config) -> None:
    """Refuses images that do not consist of whole patches, and what the mixing refuses."""
    model = config.model
    assert isinstance(model, VisionConfig)
    for name in ("image_height", "image_width"):
        size = getattr(model, name)
        if size is not None and size % model.patch_size:
            raise UserError(
                f"model.patch_size = {model.patch_size} does not divide model.{name} = {size}: choose one that does."
            )
    resolve(MIXINGS, model.mixing, "model.mixing")().check(model)


@demands(_fits)
class Vision(nn.Module):
    """An image is cut into patches; what the layers make of them is pooled and classified."""

    parts: Parts[VisionConfig]

    def setup(self) -> None:
        config = self.parts.config
        assert config.num_classes is not None  # the data have set it
        linear = functools.partial(nn.Dense, kernel_init=nn.initializers.xavier_uniform())
        self.patch_embedding = linear(config.d_model, dtype=self.parts.dtype)
        if config.pooling == "class_token":
            self.class_token = self.param(
                "class_token", nn.initializers.normal(config.d_model**-0.5), (config.d_model,)
            )
        self.positions = self.parts.positions()
        self.dropout = self.parts.dropout()
        self.layers = resolve(MIXINGS, config.mixing, "model.mixing")().layer(self.parts)
        self.norm = self.parts.final_norm()
        self.classifier = linear(config.num_classes)

    def __call__(self, batch: Batch) -> jax.Array:
        """float32[B, C]: the logits of the classes of the images."""
        config = self.parts.config
        x_BTD, places_1T2 = self._embedded(batch["images"])
        places_1T = jnp.arange(x_BTD.shape[1])[None]
        x_BTD = self.dropout(self.positions.add(x_BTD, places_1T2 if self.positions.axes == 2 else places_1T))
        everywhere = jnp.ones((1, 1, x_BTD.shape[1], x_BTD.shape[1]), bool)
        to_self = self.positions.biased(Relation(everywhere, places_1T, places_1T), config.num_heads, causal=False)

        def call(layer: Any, x_BTD: jax.Array) -> jax.Array:
            return layer(x_BTD, to_self)

        x_BTD = self.norm(each_layer(call, self.layers, x_BTD, config.num_layers, self.parts.remat))
        x_BTD = x_BTD.astype(jnp.float32)
        x_BD = x_BTD[:, 0] if config.pooling == "class_token" else jnp.mean(x_BTD, axis=1)
        return self.classifier(x_BD)

    def _embedded(self, images_BHWK: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, T, D], and int32[1, T, 2]: row and column of each patch, from 1; 0 and 0 of the class token."""
        config = self.parts.config
        x_BTD = self.patch_embedding(patches(images_BHWK, config.patch_size).astype(self.parts.dtype))
        rows, columns = config.grid
        places_T2 = 1 + np.stack(np.divmod(np.arange(rows * columns), columns), axis=-1)
        if config.pooling == "class_token":
            first_B1D = jnp.broadcast_to(self.class_token.astype(x_BTD.dtype), (x_BTD.shape[0], 1, config.d_model))
            x_BTD = jnp.concatenate([first_B1D, x_BTD], axis=1)
            places_T2 = np.concatenate([np.zeros((1, 2), int), places_T2])
        return x_BTD, jnp.asarray(places_T2, jnp.int32)[None]


def patches(images_BHWK: jax.Array, size: int) -> jax.Array:
    """float32[B, T, P]: patches of `size` x `size` pixels row by row; a pixel of 0 to 255 becomes -1 to 1."""
    batch, height, width, channels = images_BHWK.shape
    rows, columns = height // size, width // size
    x = images_BHWK.astype(jnp.float32).reshape(batch, rows, size, columns, size, channels) / 127.5 - 1.0
    return jnp.swapaxes(x, 2, 3).reshape(batch, rows * columns, size * size * channels)
