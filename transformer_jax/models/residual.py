"""Residual connections and normalisation (Section 3.1, "Add & Norm")."""

from collections.abc import Callable
from typing import Any, Protocol

import flax.linen as nn
import jax

from transformer_jax.config import ModelConfig
from transformer_jax.errors import UserError
from transformer_jax.models.regularisation import Dropout
from transformer_jax.registry import demands

Function = Callable[[jax.Array], jax.Array]


class Wiring(Protocol):
    """An entry of RESIDUALS."""

    def __call__(self, x: jax.Array, sublayer: Function, norm: Function, dropout: Function) -> jax.Array:
        """What a sublayer makes of the residual stream [B, T, D]."""


class MakeNorm(Protocol):
    """An entry of NORMS."""

    def __call__(self, epsilon: float = ..., dtype: Any = ..., name: str | None = ...) -> nn.Module:
        """A normalisation of the last axis."""


def post_norm(x: jax.Array, sublayer: Function, norm: Function, dropout: Function) -> jax.Array:
    """LayerNorm(x + Dropout(Sublayer(x))) (Sections 3.1 and 5.4)."""
    return norm(x + dropout(sublayer(x)))


def _has_a_norm(model: ModelConfig) -> None:
    if model.norm == "none":
        raise UserError("model.residual = 'pre_norm' says where the normalisation stands, but model.norm is 'none'.")


@demands(_has_a_norm)
def pre_norm(x: jax.Array, sublayer: Function, norm: Function, dropout: Function) -> jax.Array:
    """x + Dropout(Sublayer(LayerNorm(x))) (e.g. Xiong et al. 2020); the stack normalises its output."""
    return x + dropout(sublayer(norm(x)))


def no_residual(x: jax.Array, sublayer: Function, norm: Function, dropout: Function) -> jax.Array:
    """LayerNorm(Dropout(Sublayer(x)))."""
    return norm(dropout(sublayer(x)))


def left_out(x: jax.Array, sublayer: Function, norm: Function, dropout: Function) -> jax.Array:
    """The sublayer and its Add & Norm removed."""
    return x


RESIDUALS: dict[str, Wiring] = {"post_norm": post_norm, "pre_norm": pre_norm, "none": no_residual}


class NoNorm(nn.Module):
    """The identity in the place of a normalisation."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x


def layer_norm(epsilon: float = 1e-6, dtype: Any = None, name: str | None = None) -> nn.Module:
    """Ba et al. 2016, with scale and bias."""
    return nn.LayerNorm(epsilon, dtype, name=name)


def rms_norm(epsilon: float = 1e-6, dtype: Any = None, name: str | None = None) -> nn.Module:
    """x / rms(x) with a scale (Zhang and Sennrich 2019)."""
    return nn.RMSNorm(epsilon, dtype, name=name)


def no_norm(epsilon: float = 1e-6, dtype: Any = None, name: str | None = None) -> nn.Module:
    """The identity."""
    return NoNorm(name=name)


NORMS: dict[str, MakeNorm] = {"layer_norm": layer_norm, "rms_norm": rms_norm, "none": no_norm}


class AddNorm(nn.Module):
    """A sublayer with its residual connection, dropout and normalisation."""

    wiring: Wiring
    norm: Callable[..., nn.Module]
    dropout: Callable[..., Dropout]

    @nn.compact
    def __call__(self, x: jax.Array, sublayer: Function) -> jax.Array:
        return self.wiring(x, sublayer, self.norm(name="norm"), self.dropout(name="dropout"))
