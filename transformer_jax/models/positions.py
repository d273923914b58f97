"""How the model knows where a token stands (Section 3.5).

A scheme has four hooks, each neutral unless it is the scheme's own: `add` at the embedding; `bias` on the logits of a
stack's self-attentions, computed once a stack; inside each self-attention `rotate` on queries and keys, and `score`
beside q . k, before the scale. Positions are int32[B, T] or int32[1, T]; in packed rows they restart at 0. Schemes of a
grid add to the embedding alone, by the row and the column of each token, int32[1, T, 2].
B batch, T query positions, S key positions, D d_model, H heads, K d_k.
"""

import math
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from transformer_jax.config import SCALELESS, AttentionPlace, Config, LayersConfig, value_at
from transformer_jax.errors import UserError
from transformer_jax.models.masks import Relation


def _spec(config: Config) -> str:
    return repr(value_at(config, "model.positions"))


class NoPositions(nn.Module):
    """Nothing: only the causal mask of the decoder tells order."""

    axes: ClassVar[int] = 1
    """How many numbers say where a token stands."""

    def check(self, config: Config) -> None:
        """Refuses a config in which the scheme cannot work."""

    def check_place(self, config: Config, place: AttentionPlace) -> None:
        """Refuses the self-attentions of one of its stacks in which it cannot."""
        weights = place.slots.weights
        if acts_on_scores(self) and weights in SCALELESS:
            raise UserError(
                f"model.positions = {_spec(config)} acts on the scores, and not as "
                f"{place.field}.weights = {weights!r} reads them."
            )

    def add(self, x_BTD: jax.Array, positions_BT: jax.Array) -> jax.Array:
        """The embeddings with what the scheme adds to them."""
        return x_BTD

    def bias(
        self, num_heads: int, q_positions_BT: jax.Array, k_positions_BS: jax.Array, *, causal: bool
    ) -> jax.Array | float:
        """What is added to the scaled scores: [B, H, T, S] or 0. `causal`: of a decoder, where no key lies ahead."""
        return 0.0

    def biased(self, relation: Relation, num_heads: int, *, causal: bool) -> Relation:
        """The relation of a stack's tokens to each other, with the scheme's bias."""
        bias = self.bias(num_heads, relation.q_positions_BT, relation.k_positions_BS, causal=causal)
        return relation._replace(bias_BHTS=bias)

    def rotate(self, x_BTHK: jax.Array, positions_BT: jax.Array) -> jax.Array:
        """Queries or keys with their positions in them."""
        return x_BTHK

    def score(
        self, q_BTHK: jax.Array, k_BSHK: jax.Array, q_positions_BT: jax.Array, k_positions_BS: jax.Array
    ) -> jax.Array | float:
        """What is added to q . k before the scale: [B, H, T, S] or 0."""
        return 0.0


class Sinusoidal(NoPositions):
    """Section 3.5: PE(p, 2i) = sin(p / 10000^(2i/d_model)), PE(p, 2i+1) = cos(p / 10000^(2i/d_model)); interleaved."""

    base: float = 10000.0

    def add(self, x_BTD: jax.Array, positions_BT: jax.Array) -> jax.Array:
        return x_BTD + sinusoids(positions_BT, x_BTD.shape[-1], self.base).astype(x_BTD.dtype)


class Sinusoidal2D(NoPositions):
    """Section 3.5 in a grid: the first half of the coordinates tells the row, the second the column."""

    axes = 2
    base: float = 10000.0

    def check(self, config: Config) -> None:
        if config.model.d_model < 2:
            raise UserError(f"model.positions = {_spec(config)} needs two coordinates: raise model.d_model.")

    def add(self, x_BTD: jax.Array, positions_BT: jax.Array) -> jax.Array:
        """`positions_BT`: int32[1, T, 2], row and column."""
        of_rows, d_model = (x_BTD.shape[-1] + 1) // 2, x_BTD.shape[-1]
        widths = of_rows, d_model - of_rows
        halves = [sinusoids(positions_BT[..., axis], width, self.base) for axis, width in enumerate(widths)]
        return x_BTD + jnp.concatenate(halves, axis=-1).astype(x_BTD.dtype)


def sinusoids(positions_BT: jax.Array, d_model: int, base: float = 10000.0) -> jax.Array:
    """float32[B, T, D]: the interleaved sinusoids of Section 3.5. An odd `d_model` ends with a sine."""
    frequencies = jnp.exp(-math.log(base) / d_model * jnp.arange(0, d_model, 2))
    angles = positions_BT[..., None] * frequencies
    interleaved = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return interleaved.reshape(*angles.shape[:-1], -1)[..., :d_model]


class Learned(NoPositions):
    """A learned vector for each of the first `max_length` positions (Table 3, row E), N(0, 1 / d_model)."""

    max_length: int = 512

    def check(self, config: Config) -> None:
        longest = config.model.longest(config.data.max_length, config.decode.max_extra_length)
        if self.max_length < longest:
            raise UserError(
                f"model.positions = {_spec(config)} has vectors for {self.max_length} positions, but with "
                f"{config.model.lengths} as they are {longest} are needed: write learned(max_length={longest})."
            )

    @nn.compact
    def add(self, x_BTD: jax.Array, positions_BT: jax.Array) -> jax.Array:
        d_model = x_BTD.shape[-1]
        table = self.param("embedding", nn.initializers.normal(d_model**-0.5), (self.max_length, d_model))
        return x_BTD + jnp.take(table, positions_BT, axis=0, mode="clip").astype(x_BTD.dtype)


class Index(NoPositions):
    """The last coordinate is overwritten by p / `divisor`: divisor=1.0 is the index itself."""

    divisor: float = 100.0

    def add(self, x_BTD: jax.Array, positions_BT: jax.Array) -> jax.Array:
        return _overwrite_last(x_BTD, positions_BT / self.divisor)


class LogIndex(NoPositions):
    """The last coordinate is overwritten by log(1 + p)."""

    def add(self, x_BTD: jax.Array, positions_BT: jax.Array) -> jax.Array:
        return _overwrite_last(x_BTD, jnp.log1p(positions_BT.astype(jnp.float32)))


def _overwrite_last(x_BTD: jax.Array, value_BT: jax.Array) -> jax.Array:
    return x_BTD.at[..., -1].set(jnp.broadcast_to(value_BT, x_BTD.shape[:-1]).astype(x_BTD.dtype))


class Rotary(NoPositions):
    """RoPE (Su et al. 2021): coordinates 2i, 2i+1 of queries and keys turn by p / base^(2i/d_k); d_k is even."""

    base: float = 10000.0

    def check_place(self, config: Config, place: AttentionPlace) -> None:
        super().check_place(config, place)
        d_k, score = place.model.d_k, place.slots.score
        if place.model.head_widths[0] % 2:
            raise UserError(f"model.positions = 'rotary' turns pairs of coordinates, but model.d_k = {d_k} is odd.")
        if score not in ("dot", "cosine"):
            raise UserError(
                f"model.positions = 'rotary' needs the score 'dot' or 'cosine', but {place.field}.score is {score!r}."
            )

    def rotate(self, x_BTHK: jax.Array, positions_BT: jax.Array) -> jax.Array:
        d_k = x_BTHK.shape[-1]
        frequencies = jnp.exp(-math.log(self.base) / d_k * jnp.arange(0, d_k, 2))
        angles = (positions_BT[..., None] * frequencies)[:, :, None]
        cos, sin = jnp.cos(angles), jnp.sin(angles)
        even, odd = x_BTHK[..., 0::2], x_BTHK[..., 1::2]
        turned = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
        return turned.reshape(x_BTHK.shape).astype(x_BTHK.dtype)


class T5Bias(NoPositions):
    """A learned scalar a head for each bucket of k - q (Raffel et al. 2020), one table for all layers of a stack.

    Half of the buckets hold one distance each, the others grow with its logarithm up to `max_distance`. The encoder
    has half of all buckets for each direction, the decoder all of them for the keys behind.
    """

    buckets: int = 32
    max_distance: int = 128

    def check(self, config: Config) -> None:
        if not 2 <= self.buckets // 2 < self.max_distance:
            raise UserError(
                f"model.positions = {_spec(config)}: needs at least 4 buckets, and a max_distance above buckets / 2."
            )

    @nn.compact
    def bias(self, num_heads: int, q_positions_BT: jax.Array, k_positions_BS: jax.Array, *, causal: bool) -> jax.Array:
        table_NH = self.param("bias", nn.initializers.normal(1.0), (self.buckets, num_heads))
        bucket_BTS = self.bucket(k_positions_BS[:, None, :] - q_positions_BT[:, :, None], causal)
        return jnp.moveaxis(table_NH[bucket_BTS], -1, 1)

    def bucket(self, offset: jax.Array, causal: bool) -> jax.Array:
        """int32: the bucket of each signed distance key - query."""
        buckets = self.buckets if causal else self.buckets // 2
        distance = jnp.maximum(-offset, 0) if causal else jnp.abs(offset)
        exact = buckets // 2
        growth = (buckets - exact) / math.log(self.max_distance / exact)
        far = exact + (jnp.log(jnp.maximum(distance, exact) / exact) * growth).astype(jnp.int32)
        ahead = 0 if causal else buckets * (offset > 0)
        return jnp.where(distance < exact, distance, jnp.minimum(far, buckets - 1)) + ahead


class ShawRelative(NoPositions):
    """q . (k + a_clip(s - t)), a learned for each distance up to `max_distance` (Shaw et al. 2018, keys only)."""

    max_distance: int = 16

    @nn.compact
    def score(
        self, q_BTHK: jax.Array, k_BSHK: jax.Array, q_positions_BT: jax.Array, k_positions_BS: jax.Array
    ) -> jax.Array:
        d_k = q_BTHK.shape[-1]
        table = self.param("keys", nn.initializers.xavier_uniform(), (2 * self.max_distance + 1, d_k))
        q_a_BTHN = jnp.einsum("BTHK,NK->BTHN", q_BTHK, table.astype(q_BTHK.dtype), preferred_element_type=jnp.float32)
        return _at_offsets(q_a_BTHN, q_positions_BT, k_positions_BS)


def _at_offsets(x_BTHN: jax.Array, q_positions_BT: jax.Array, k_positions_BS: jax.Array) -> jax.Array:
    """[B, H, T, S]: of values for the offsets -n, ..., n of key from query, that of each query and key, clipped."""
    n = x_BTHN.shape[-1] // 2
    offset_BTS = k_positions_BS[:, None, :] - q_positions_BT[:, :, None]
    index_BTS = jnp.clip(offset_BTS, -n, n) + n
    index_BT1S = jnp.broadcast_to(index_BTS, (x_BTHN.shape[0], *index_BTS.shape[1:]))[:, :, None]
    return jnp.moveaxis(jnp.take_along_axis(x_BTHN, index_BT1S, axis=-1), 2, 1)


class TransformerXL(NoPositions):
    """(q + u) . k + (q + v) . r_{t-s} W_R, r the sinusoids of the distance (Dai et al. 2019, Section 3.3).

    u and v, a vector a head each, start at 0. The sinusoids are as wide as all queries together, H d_k.
    """

    base: float = 10000.0

    @nn.compact
    def score(
        self, q_BTHK: jax.Array, k_BSHK: jax.Array, q_positions_BT: jax.Array, k_positions_BS: jax.Array
    ) -> jax.Array:
        num_heads, d_k = q_BTHK.shape[-2:]
        u_HK, v_HK = (self.param(name, nn.initializers.zeros, (num_heads, d_k), jnp.float32) for name in ("u", "v"))
        farthest = k_BSHK.shape[1]  # no two tokens of a sentence that is kept in so many places are further apart
        distance_1N = -jnp.arange(-farthest, farthest + 1)[None]
        r_1NHK = nn.DenseGeneral(
            (num_heads, d_k), use_bias=False, dtype=q_BTHK.dtype, kernel_init=nn.initializers.xavier_uniform(), name="r"
        )(sinusoids(distance_1N, num_heads * d_k, self.base))
        u_k_BHS = jnp.einsum("HK,BSHK->BHS", u_HK.astype(k_BSHK.dtype), k_BSHK, preferred_element_type=jnp.float32)
        q_r_BTHN = jnp.einsum(
            "BTHK,NHK->BTHN", q_BTHK + v_HK.astype(q_BTHK.dtype), r_1NHK[0], preferred_element_type=jnp.float32
        )
        return u_k_BHS[:, :, None] + _at_offsets(q_r_BTHN, q_positions_BT, k_positions_BS)


class ALiBi(NoPositions):
    """-m_h |k - q| with m_h = 2^(-8h/H), h = 1..H (Press et al. 2022), symmetric in the encoder."""

    def bias(self, num_heads: int, q_positions_BT: jax.Array, k_positions_BS: jax.Array, *, causal: bool) -> jax.Array:
        slopes_H = 2.0 ** (-8.0 * jnp.arange(1, num_heads + 1) / num_heads)
        distance_BTS = jnp.abs(k_positions_BS[:, None, :] - q_positions_BT[:, :, None])
        return -slopes_H[:, None, None] * distance_BTS[:, None]


def acts_on_scores(scheme: NoPositions) -> bool:
    """Whether the scheme's place is the scores of the self-attentions."""
    return any(getattr(type(scheme), hook) is not getattr(NoPositions, hook) for hook in ("bias", "rotate", "score"))


POSITIONS: dict[str, type[NoPositions]] = {
    "sinusoidal": Sinusoidal,
    "learned": Learned,
    "none": NoPositions,
    "index": Index,
    "log_index": LogIndex,
    "rotary": Rotary,
    "t5": T5Bias,
    "shaw": ShawRelative,
    "transformer_xl": TransformerXL,
    "alibi": ALiBi,
}
POSITIONS_IN_A_GRID: dict[str, type[NoPositions]] = {**POSITIONS, "sinusoidal_2d": Sinusoidal2D}
"""Those of an image: the parts of it stand in rows and columns, or are read as one row."""


def positions_of(model: LayersConfig) -> dict[str, type[NoPositions]]:
    """The table that `model.positions` of that model is an entry of."""
    return POSITIONS_IN_A_GRID if model.axes == 2 else POSITIONS
