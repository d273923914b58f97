"""Dropout (Section 5.4), with a rate that may be a traced value."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
"""Of Threefry-2x32 (Salmon et al. 2011, Table 2): bits by which a word is rotated in four rounds, and in the next."""


class Dropout(nn.Module):
    """Sets entries to 0 with probability `rate` and divides the others by 1 - `rate`; the identity without a key.

    Unlike `flax.linen.Dropout`, the rate may be a tracer, so that it can differ from lane to lane.
    """

    rate: float | jax.Array

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if not self.has_rng("dropout") or (isinstance(self.rate, float) and self.rate == 0.0):
            return x
        keep = bernoulli(self.make_rng("dropout"), 1.0 - self.rate, x.shape)
        return jnp.where(keep, x / (1.0 - self.rate), 0.0).astype(x.dtype)


def bernoulli(key: jax.Array, p: float | jax.Array, shape: Sequence[int]) -> jax.Array:
    """bool[shape], True with probability `p`: bit for bit what `jax.random.bernoulli` draws, in a fraction of the time.

    On a CPU, JAX loops over the rounds of its generator, each of which reads and writes the whole array, and compiles
    that loop anew at each place. Written out, the rounds are fused into one pass.
    """
    if jax.random.key_impl(key) != "threefry2x32" or math.prod(shape) >= 2**32:
        return jax.random.bernoulli(key, p, tuple(shape))
    index = jnp.zeros(shape, jnp.uint32)
    for axis, stride in enumerate(math.prod(shape[axis + 1 :]) for axis in range(len(shape))):
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(stride)
    first, second = threefry(jax.random.key_data(key), jnp.zeros_like(index), index)
    mantissa = (first ^ second) >> np.uint32(9)
    from_1_to_2 = jax.lax.bitcast_convert_type(mantissa | np.float32(1).view(np.uint32), jnp.float32)
    return from_1_to_2 - 1.0 < p


def threefry(key: jax.Array, first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Threefry-2x32 with 20 rounds: two words of a counter, uint32 each, hashed by the two words of a key."""
    keys = key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA)
    first, second = first + keys[0], second + keys[1]
    for block in range(5):
        for rotation in ROTATIONS[block % 2]:
            first += second
            second = first ^ (second << np.uint32(rotation) | second >> np.uint32(32 - rotation))
        first += keys[(block + 1) % 3]
        second += keys[(block + 2) % 3] + np.uint32(block + 1)
    return first, second
