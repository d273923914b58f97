"""One training step: a pure function, the same under jit, vmap and pmap."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from transformer_jax.config import Config, with_values
from transformer_jax.training.objective import OBJECTIVES, Batch, Sums
from transformer_jax.training.optimizer import build_optimizer, build_schedule
from transformer_jax.training.state import Lane, TrainState

Step = Callable[[TrainState, Batch, Lane], tuple[TrainState, Sums]]


def build_step(
    config: Config,
    reduce: Callable[[Any], Any] = lambda sums: sums,
    key_of_part: Callable[[jax.Array], jax.Array] = lambda key: key,
) -> Step:
    """The step that `config` describes, for any lane of it.

    Where each device sees a part of the batch alone, `reduce` adds sums over the devices and `key_of_part` makes their
    dropout differ. Under jit, which sees whole batches, both are the identity.
    """

    def step(state: TrainState, batch: Batch, lane: Lane) -> tuple[TrainState, Sums]:
        lane_config = with_values(config, lane.numbers)
        objective = OBJECTIVES[config.model.family](lane_config)
        optimizer = build_optimizer(lane_config)
        key = key_of_part(jax.random.fold_in(jax.random.key(lane.seed), state.step))

        def loss_sum(params: Any) -> tuple[jax.Array, tuple[jax.Array, Sums]]:
            loss, count, sums = objective(params, batch, key)
            return loss, (count, sums)

        (loss, (count, sums)), gradient = jax.value_and_grad(loss_sum, has_aux=True)(state.params)
        loss, count, sums, gradient = reduce((loss, count, sums, gradient))
        gradient = jax.tree.map(lambda g: g / jnp.maximum(count, 1), gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        one = jnp.ones(())
        measured: Sums = {
            "loss": (loss, count),
            **sums,
            "gradient_norm": (optax.tree.norm(gradient), one),
            "update_norm": (optax.tree.norm(updates), one),
            "learning_rate": (build_schedule(lane_config)(state.step - state.skipped + 1), one),
        }
        finite = jnp.isfinite(loss) & jnp.isfinite(measured["gradient_norm"][0])
        updated = dataclasses.replace(
            state, params=params, opt_state=opt_state, average=_average(config, state.average, params)
        )
        return _advance(config, state, updated, finite), measured

    return step


def _average(config: Config, average: Any, params: Any) -> Any:
    decay = config.optimizer.ema_decay
    return None if decay is None else jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)


def _advance(config: Config, state: TrainState, updated: TrainState, finite: jax.Array) -> TrainState:
    """The updated state where the step was finite; a lane that has stopped keeps its last good state for good."""
    alive = state.alive & (finite | (config.train.on_nonfinite == "skip"))
    kept = jax.tree.map(lambda new, old: jnp.where(alive & finite, new, old), updated, state)
    return dataclasses.replace(kept, step=state.step + alive, skipped=state.skipped + (alive & ~finite), alive=alive)
