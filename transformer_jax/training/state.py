"""What a training step changes."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from transformer_jax.config import Config, with_values
from transformer_jax.models.build import init_params
from transformer_jax.training.optimizer import build_optimizer

INITIALISATION = 2**32 - 1  # folded into the seed's key where a step folds in its number


@flax.struct.dataclass
class Lane:
    """What tells runs of a compiled program apart: the seed, int32[], and values of traced fields, float32[]."""

    seed: jax.typing.ArrayLike
    numbers: Mapping[str, jax.typing.ArrayLike]


@flax.struct.dataclass
class TrainState:
    """All that a step reads and writes beside the batch.

    `step` counts the steps taken, int32[]; `skipped` those whose update was left out because it, the loss or the
    gradient was not finite, int32[]; `alive` turns false for good at such a step when `train.on_nonfinite` is "stop",
    bool[]. `average` is the exponential moving average of the parameters, or None.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    average: Any
    skipped: jax.Array
    alive: jax.Array

    @property
    def evaluated(self) -> Any:
        """The parameters that are evaluated."""
        return self.params if self.average is None else self.average


def init_state(config: Config, lane: Lane) -> TrainState:
    """The state before the first step: a pure function of config and lane."""
    config = with_values(config, lane.numbers)
    key = jax.random.fold_in(jax.random.key(lane.seed), INITIALISATION)
    params = init_params(config.model, key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=build_optimizer(config).init(params),
        average=None if config.optimizer.ema_decay is None else params,
        skipped=jnp.zeros((), jnp.int32),
        alive=jnp.ones((), bool),
    )
