"""Dropout (Section 5.4), with a rate that may be a traced value."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Dropout(nn.Module):
    """Sets entries to 0 with probability `rate` and divides the others by 1 - `rate`; the identity without a key.

    Unlike `flax.linen.Dropout`, the rate may be a tracer, so that it can differ from lane to lane.
    """

    rate: float | jax.Array

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if not self.has_rng("dropout") or (isinstance(self.rate, float) and self.rate == 0.0):
            return x
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - self.rate, x.shape)
        return jnp.where(keep, x / (1.0 - self.rate), 0.0).astype(x.dtype)
