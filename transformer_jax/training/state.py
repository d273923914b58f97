"""What a training step reads and changes."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.config import Config, Resolved, value_at, with_values
from transformer_jax.models.build import build_model
from transformer_jax.tasks import task_of
from transformer_jax.training.optimizer import build_optimizer

INITIALISATION = 2**32 - 1  # folded into the seed's key where a step folds in its number


@flax.struct.dataclass
class Lane:
    """What tells runs of a compiled program apart: the seed, int32[], and values of traced fields, float32[].

    Outside of the compiled functions each has an axis of lanes in front.
    """

    seed: jax.typing.ArrayLike
    numbers: Mapping[str, jax.typing.ArrayLike]

    def on(self, config: Resolved) -> Resolved:
        """The config with the seed and the numbers of the lane."""
        return Resolved(with_values(config, {**self.numbers, "seed": self.seed}))


def lanes_of(configs: Sequence[Config], traced: Sequence[str] = ()) -> Lane:
    """The lanes of runs, [lanes] each: the seeds order the data and draw all that is random."""
    seeds = np.asarray([config.seed for config in configs], np.int32)
    numbers = {path: np.asarray([value_at(config, path) for config in configs], np.float32) for path in traced}
    return Lane(seeds, numbers)


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


def init_state(config: Resolved, lane: Lane) -> TrainState:
    """The state before the first step: a pure function of config and lane."""
    config = lane.on(config)
    key = jax.random.fold_in(jax.random.key(lane.seed), INITIALISATION)
    return state_before(config, build_model(config.model).init(key, task_of(config).example_batch(config)))


def state_before(config: Resolved, params: Any) -> TrainState:
    """The state before the first step, with these parameters."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=build_optimizer(config).init(params),
        average=None if config.optimizer.ema_decay is None else params,
        skipped=jnp.zeros((), jnp.int32),
        alive=jnp.ones((), bool),
    )


def by_path(tree: Any) -> dict[str, Any]:
    """Dotted path -> leaf of parameters, or of what has their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
