"""Learning-rate schedules (Section 5.3): from the step, counted from 1, to the factor of `optimizer.learning_rate`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Schedule = Callable[[jax.Array], jax.Array]


def noam(*, d_model: int, warmup_steps: int, steps: int) -> Schedule:
    """Eq. 3: d_model^-0.5 * min(step^-0.5, step * warmup_steps^-1.5)."""
    return lambda step: d_model**-0.5 * jnp.minimum(step**-0.5, step * max(warmup_steps, 1) ** -1.5)


def inverse_sqrt(*, d_model: int, warmup_steps: int, steps: int) -> Schedule:
    """Linear to 1 at `warmup_steps`, then sqrt(warmup_steps / step)."""
    warmup = max(warmup_steps, 1)
    return lambda step: jnp.minimum(step / warmup, jnp.sqrt(warmup / step))


def cosine(*, d_model: int, warmup_steps: int, steps: int, final: float = 0.0) -> Schedule:
    """Linear to 1 at `warmup_steps`, then half a cosine to `final` at the last step."""

    def schedule(step: jax.Array) -> jax.Array:
        progress = _progress(step, warmup_steps, steps)
        return _warmup(step, warmup_steps) * (final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * progress)))

    return schedule


def linear(*, d_model: int, warmup_steps: int, steps: int, final: float = 0.0) -> Schedule:
    """Linear to 1 at `warmup_steps`, then linear to `final` at the last step."""

    def schedule(step: jax.Array) -> jax.Array:
        return _warmup(step, warmup_steps) * (1 - (1 - final) * _progress(step, warmup_steps, steps))

    return schedule


def constant(*, d_model: int, warmup_steps: int, steps: int) -> Schedule:
    """1 throughout."""
    return lambda step: jnp.ones_like(step)


def _warmup(step: jax.Array, warmup_steps: int) -> jax.Array:
    return jnp.minimum(1.0, step / max(warmup_steps, 1))


def _progress(step: jax.Array, warmup_steps: int, steps: int) -> jax.Array:
    return jnp.clip((step - warmup_steps) / max(steps - warmup_steps, 1), 0.0, 1.0)


SCHEDULES: dict[str, Callable[..., Any]] = {
    "noam": noam,
    "inverse_sqrt": inverse_sqrt,
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
}
