"""What multiplies every score (Section 3.2.1): functions of the attention module they act in. H heads."""

from typing import Any, Protocol

import flax.linen as nn
import jax

from transformer_jax.config import SCALELESS, AttentionPlace
from transformer_jax.errors import UserError
from transformer_jax.registry import demands


class Scale(Protocol):
    """An entry of SCALES."""

    def __call__(self, attention: nn.Module, value: Any) -> float | jax.Array:
        """What multiplies the scores of that attention; `value` is `scale_value`."""


def inv_sqrt_d_k(attention: nn.Module, value: Any) -> float:
    """1 / sqrt(d_k) (Section 3.2.1)."""
    return attention.d_k**-0.5


def no_scale(attention: nn.Module, value: Any) -> float:
    """1: what Section 3.2.1 warns of."""
    return 1.0


def inv_d_k(attention: nn.Module, value: Any) -> float:
    """1 / d_k (Yang et al. 2022)."""
    return 1 / attention.d_k


def _weights_read_it(place: AttentionPlace) -> None:
    if place.slots.weights in SCALELESS:
        raise UserError(
            f"{place.field}.scale = 'learned' would learn nothing: no scale changes {place.field}.weights = "
            f"{place.slots.weights!r}."
        )


@demands(_weights_read_it)
def learned(attention: nn.Module, value: Any) -> jax.Array:
    """One scalar a head, starting at 1 / sqrt(d_k): [H, 1, 1]."""
    initial = nn.initializers.constant(attention.d_k**-0.5)
    return attention.param("scale", initial, (attention.num_heads,))[:, None, None]


def constant(attention: nn.Module, value: Any) -> Any:
    """A given number: `model.attention.scale_value`."""
    return value


SCALES: dict[str, Scale] = {
    "inv_sqrt_d_k": inv_sqrt_d_k,
    "none": no_scale,
    "inv_d_k": inv_d_k,
    "learned": learned,
    "constant": constant,
}
