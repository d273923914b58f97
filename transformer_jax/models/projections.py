"""W_Q, W_K, W_V and W_O (Section 3.2.2), and what may stand in their place.

B batch, T positions, D d_model, H heads, K d_k, V d_v.
"""

from collections.abc import Callable
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from transformer_jax.config import AttentionPlace
from transformer_jax.errors import UserError
from transformer_jax.registry import Entry, demands, resolve


def head_projection(num_heads: int, width: int, use_bias: bool = False, dtype: Any = jnp.float32) -> nn.Module:
    """x W with W in R^{d_model x (h d)}, cut into heads: [B, T, D] -> [B, T, H, d].

    DenseGeneral draws its kernel as that one matrix. Drawn head by head, row A of Table 3 would change the scale of the
    initial values too.
    """
    kernel_init = nn.initializers.xavier_uniform()
    return nn.DenseGeneral((num_heads, width), use_bias=use_bias, dtype=dtype, kernel_init=kernel_init)


class HiddenProjection(nn.Module):
    """relu(x W_1 + b_1) W_2 with a hidden layer of width h d: not linear."""

    num_heads: int
    width: int
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        kernel_init = nn.initializers.xavier_uniform()
        hidden = nn.Dense(self.num_heads * self.width, dtype=self.dtype, kernel_init=kernel_init)
        return head_projection(self.num_heads, self.width, self.use_bias, self.dtype)(nn.relu(hidden(x_BTD)))


class HeadSlice(nn.Module):
    """No projection: head i takes slice i of the vector, [B, T, h d] -> [B, T, H, d]."""

    num_heads: int

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        return x_BTD.reshape(*x_BTD.shape[:-1], self.num_heads, -1)


Projections = tuple[nn.Module, nn.Module, nn.Module]


def slices(*widths: str) -> Callable[[Entry], Entry]:
    """What takes slices of the vector as heads demands that they fill it: H times each of `widths` is d_model."""

    def check(place: AttentionPlace) -> None:
        for width in widths:
            filled = place.model.num_heads * getattr(place.model, width)
            if filled != place.model.d_model:
                raise UserError(
                    f"{place.field}.projections = {place.slots.projections!r} gives each head a slice of the vector: "
                    f"num_heads * {width} = {filled} must equal model.d_model = {place.model.d_model}."
                )

    return demands(check)


def _one_width(place: AttentionPlace) -> None:
    d_k, d_v = place.model.head_widths
    if d_k != d_v:
        raise UserError(
            f"{place.field}.projections = {place.slots.projections!r} needs d_k = d_v, but they are {d_k} and {d_v}."
        )


def linear(num_heads: int, d_k: int, d_v: int, **options: Any) -> Projections:
    """W_Q, W_K and W_V."""
    return tuple(head_projection(num_heads, width, **options) for width in (d_k, d_k, d_v))  # type: ignore[return-value]


def hidden(num_heads: int, d_k: int, d_v: int, **options: Any) -> Projections:
    """One hidden layer in each."""
    return tuple(HiddenProjection(num_heads, width, **options) for width in (d_k, d_k, d_v))  # type: ignore[return-value]


@slices("d_k")
def no_query(num_heads: int, d_k: int, d_v: int, **options: Any) -> Projections:
    """Queries are slices of the input."""
    return HeadSlice(num_heads), *linear(num_heads, d_k, d_v, **options)[1:]


@slices("d_k")
def no_key(num_heads: int, d_k: int, d_v: int, **options: Any) -> Projections:
    """Keys are slices of the input; only queries have a matrix of their own."""
    query, _, value = linear(num_heads, d_k, d_v, **options)
    return query, HeadSlice(num_heads), value


@slices("d_v")
def no_value(num_heads: int, d_k: int, d_v: int, **options: Any) -> Projections:
    """Values are slices of the input."""
    return *linear(num_heads, d_k, d_v, **options)[:2], HeadSlice(num_heads)


@slices("d_k", "d_v")
def none(num_heads: int, d_k: int, d_v: int, **_: Any) -> Projections:
    """Queries, keys and values are slices of the input."""
    return HeadSlice(num_heads), HeadSlice(num_heads), HeadSlice(num_heads)


def shared_query_key(num_heads: int, d_k: int, d_v: int, **options: Any) -> Projections:
    """W_Q = W_K (in cross-attention: the same weights on different inputs)."""
    query, _, value = linear(num_heads, d_k, d_v, **options)
    return query, query, value


@demands(_one_width)
def shared_key_value(num_heads: int, d_k: int, d_v: int, **options: Any) -> Projections:
    """W_K = W_V: softmax(Q V^T) V."""
    query, key, _ = linear(num_heads, d_k, d_v, **options)
    return query, key, key


@demands(_one_width)
def shared(num_heads: int, d_k: int, d_v: int, **options: Any) -> Projections:
    """W_Q = W_K = W_V."""
    query, _, _ = linear(num_heads, d_k, d_v, **options)
    return query, query, query


class SharedHeads(nn.Module):
    """x W for fewer heads, each taken by H / groups heads that follow each other: [B, T, D] -> [B, T, H, d]."""

    num_heads: int
    groups: int
    width: int
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        x_BTGK = head_projection(self.groups, self.width, self.use_bias, self.dtype)(x_BTD)
        return jnp.repeat(x_BTGK, self.num_heads // self.groups, axis=2)


def _groups_share_the_heads(place: AttentionPlace) -> None:
    field = f"{place.field}.projections"
    groups = resolve(PROJECTIONS, place.slots.projections, field).keywords.get("groups", 1)
    if groups < 1 or place.model.num_heads % groups:
        raise UserError(
            f"{field} = {place.slots.projections!r}: groups must divide model.num_heads = {place.model.num_heads}."
        )


@demands(_groups_share_the_heads)
def grouped(num_heads: int, d_k: int, d_v: int, groups: int = 1, **options: Any) -> Projections:
    """All heads share the keys and values of one (multi-query, Shazeer 2019) or of some (Ainslie et al. 2023)."""
    key, value = (SharedHeads(num_heads, groups, width, **options) for width in (d_k, d_v))
    return head_projection(num_heads, d_k, **options), key, value


class MakeProjections(Protocol):
    """An entry of PROJECTIONS; the options are `use_bias` and `dtype`."""

    def __call__(self, num_heads: int, d_k: int, d_v: int, **options: Any) -> Projections:
        """What makes queries, keys and values: [B, T, D] to [B, T, H, K], [B, T, H, K] and [B, T, H, V]."""


PROJECTIONS: dict[str, MakeProjections] = {
    "linear": linear,
    "no_query": no_query,
    "no_key": no_key,
    "no_value": no_value,
    "none": none,
    "shared_query_key": shared_query_key,
    "shared_key_value": shared_key_value,
    "shared": shared,
    "hidden": hidden,
    "grouped": grouped,
}


def output_projection(d_model: int, use_bias: bool = False, dtype: Any = jnp.float32) -> nn.Module:
    """Concat(head_1, ..., head_h) W_O: [B, T, H, V] -> [B, T, D]."""
    kernel_init = nn.initializers.xavier_uniform()
    return nn.DenseGeneral(d_model, axis=(-2, -1), use_bias=use_bias, dtype=dtype, kernel_init=kernel_init)


class Concatenation(nn.Module):
    """Concat(head_1, ..., head_h) alone: without W_O, h d_v must be d_model."""

    d_model: int

    def __call__(self, heads_BTHV: jax.Array) -> jax.Array:
        return heads_BTHV.reshape(*heads_BTHV.shape[:-2], self.d_model)


def _heads_fill_the_vector(place: AttentionPlace) -> None:
    filled = place.model.num_heads * place.model.head_widths[1]
    if filled != place.model.d_model:
        raise UserError(
            f"{place.field}.output_projection = 'none' adds the heads to the residual stream as they are: num_heads * "
            f"d_v = {filled} must equal model.d_model = {place.model.d_model}."
        )


@demands(_heads_fill_the_vector)
def concatenation(d_model: int, **_: Any) -> nn.Module:
    """The heads as they are."""
    return Concatenation(d_model)


OUTPUT_PROJECTIONS: dict[str, Callable[..., nn.Module]] = {"linear": output_projection, "none": concatenation}
