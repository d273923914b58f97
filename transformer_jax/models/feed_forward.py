"""Position-wise feed-forward networks (Section 3.3). B batch, T positions, D d_model, F d_ff."""

from collections.abc import Callable
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from transformer_jax.config import LayersConfig
from transformer_jax.errors import UserError
from transformer_jax.models.regularisation import Dropout
from transformer_jax.registry import demands


class FeedForward(nn.Module):
    """Eq. 2: FFN(x) = max(0, x W_1 + b_1) W_2 + b_2.

    At depth n there are n linear layers, the non-linearity after all but the last; depth 1 is one linear layer
    d_model -> d_model.
    """

    d_model: int
    d_ff: int
    depth: int
    activation: Callable[[jax.Array], jax.Array]
    dropout: Callable[..., Dropout]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        h_BTF = x_BTD
        for i in range(1, self.depth):
            h_BTF = self.activation(self._linear(self.d_ff, f"linear_{i}")(h_BTF))
            h_BTF = self.dropout(name=f"dropout_{i}")(h_BTF)
        return self._linear(self.d_model, f"linear_{self.depth}")(h_BTF)

    def _linear(self, features: int, name: str) -> nn.Dense:
        return nn.Dense(features, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name=name)


class GatedFeedForward(nn.Module):
    """(act(x W_1) * x V) W_2 (Shazeer 2020), with 2/3 d_ff so that three matrices hold what two held; no biases."""

    d_model: int
    d_ff: int
    depth: int
    activation: Callable[[jax.Array], jax.Array]
    dropout: Callable[..., Dropout]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        width = max(1, round(self.d_ff * 2 / 3))
        gate_BTF = self.activation(self._linear(width, "gate")(x_BTD))
        h_BTF = gate_BTF * self._linear(width, "linear_1")(x_BTD)
        h_BTF = self.dropout(name="dropout_1")(h_BTF)
        return self._linear(self.d_model, "linear_2")(h_BTF)

    def _linear(self, features: int, name: str) -> nn.Dense:
        kernel_init = nn.initializers.xavier_uniform()
        return nn.Dense(features, use_bias=False, dtype=self.dtype, kernel_init=kernel_init, name=name)


def _has_a_non_linearity(model: LayersConfig) -> None:
    if model.ffn_depth == 1:
        raise UserError(
            f"model.feed_forward = {model.feed_forward!r} changes nothing at model.ffn_depth = 1, one linear layer."
        )


def _has_depth_2(model: LayersConfig) -> None:
    if model.ffn_depth != 2:
        raise UserError(
            f"model.ffn_depth = {model.ffn_depth}: the gated feed-forward {model.feed_forward!r} has depth 2."
        )


def relu(**sizes: Any) -> nn.Module:
    """max(0, x) (Eq. 2)."""
    return FeedForward(activation=nn.relu, **sizes)


@demands(_has_a_non_linearity)
def gelu(**sizes: Any) -> nn.Module:
    """x Phi(x) (Hendrycks and Gimpel 2016)."""
    return FeedForward(activation=lambda x: nn.gelu(x, approximate=False), **sizes)


@demands(_has_a_non_linearity)
def swish(**sizes: Any) -> nn.Module:
    """x / (1 + exp(-x)) (Ramachandran et al. 2017), as in Marian."""
    return FeedForward(activation=nn.silu, **sizes)


@demands(_has_a_non_linearity)
def linear(**sizes: Any) -> nn.Module:
    """No non-linearity."""
    return FeedForward(activation=lambda x: x, **sizes)


@demands(_has_depth_2)
def swiglu(**sizes: Any) -> nn.Module:
    """Gated by swish(x)."""
    return GatedFeedForward(activation=nn.silu, **sizes)


@demands(_has_depth_2)
def geglu(**sizes: Any) -> nn.Module:
    """Gated by GELU(x)."""
    return GatedFeedForward(activation=lambda x: nn.gelu(x, approximate=False), **sizes)


def none(**sizes: Any) -> nn.Module:
    """The sublayer is left out: see `residual.left_out`, which never calls it."""
    return FeedForward(activation=nn.relu, **sizes)


class MakeFeedForward(Protocol):
    """An entry of FEED_FORWARDS; the sizes are the fields of `FeedForward` but its activation."""

    def __call__(self, **sizes: Any) -> nn.Module:
        """The position-wise network: [B, T, D] to [B, T, D]."""


FEED_FORWARDS: dict[str, MakeFeedForward] = {
    "relu": relu,
    "gelu": gelu,
    "swish": swish,
    "linear": linear,
    "swiglu": swiglu,
    "geglu": geglu,
    "none": none,
}
