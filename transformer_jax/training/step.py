"""One training step: a pure function, the same under jit, vmap and pmap."""

import dataclasses
import functools
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
Steps = Callable[[TrainState, Batch, Lane, jax.typing.ArrayLike], tuple[TrainState, Sums]]
GUARDED = ("loss", "gradient_norm", "update_norm")
"""What a step measures that must be finite, or its update is left out: then every state is finite, as a norm of which
the square overflows counts as not finite too."""


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
        optimizer = build_optimizer(lane_config)
        key = key_of_part(_key(lane, state.step))
        loss, count, sums, gradient = reduce(_loss_and_gradient(lane_config, state.params, batch, key))
        gradient = _mean(gradient, count)
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
        finite = functools.reduce(jnp.logical_and, [jnp.isfinite(measured[name][0]) for name in GUARDED])
        updated = dataclasses.replace(
            state, params=params, opt_state=opt_state, average=_average(config, state.average, params)
        )
        return _advance(config, state, updated, finite), measured

    return step


def build_steps(config: Config, most: int, *how: Callable[[Any], Any]) -> Steps:
    """The first `count` of `most` steps, whose batches are stacked, in one call.

    The body of the loop is compiled once for any count, so how steps are shared out to calls changes no bit. At 1 there
    is no loop, and no axis of steps, neither in the batches nor in the sums.
    """
    step = build_step(config, *how)
    if most == 1:
        return lambda state, batch, lane, count: step(state, batch, lane)

    def steps(state: TrainState, batches: Batch, lane: Lane, count: jax.typing.ArrayLike) -> tuple[TrainState, Sums]:
        def batch_at(index: Any) -> Batch:
            return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, index, keepdims=False), batches)

        def take(index: jax.Array, carry: tuple[TrainState, Sums]) -> tuple[TrainState, Sums]:
            state, measured = carry
            state, sums = step(state, batch_at(index), lane)
            return state, jax.tree.map(lambda all_, one: all_.at[index].set(one), measured, sums)

        _, shapes = jax.eval_shape(step, state, batch_at(0), lane)
        empty = jax.tree.map(lambda one: jnp.zeros((most, *one.shape), one.dtype), shapes)
        return jax.lax.fori_loop(0, count, take, (state, empty))

    return steps


def gradient_and_update(config: Config, state: TrainState, batch: Batch, lane: Lane) -> tuple[Any, Any]:
    """The gradient of the mean loss a token that the next step sees, and the update made of it, on one device."""
    lane_config = with_values(config, lane.numbers)
    _, count, _, gradient = _loss_and_gradient(lane_config, state.params, batch, _key(lane, state.step))
    gradient = _mean(gradient, count)
    return gradient, build_optimizer(lane_config).update(gradient, state.opt_state, state.params)[0]


def _loss_and_gradient(
    config: Config, params: Any, batch: Batch, key: jax.Array
) -> tuple[jax.Array, jax.Array, Sums, Any]:
    """The loss summed over the target tokens, their number, what else is measured, and the gradient of that sum."""
    objective = OBJECTIVES[config.model.family](config)

    def loss_sum(params: Any) -> tuple[jax.Array, tuple[jax.Array, Sums]]:
        loss, count, sums = objective(params, batch, key)
        return loss, (count, sums)

    (loss, (count, sums)), gradient = jax.value_and_grad(loss_sum, has_aux=True)(params)
    return loss, count, sums, gradient


def _mean(gradient: Any, count: jax.Array) -> Any:
    return jax.tree.map(lambda g: g / jnp.maximum(count, 1), gradient)


def _key(lane: Lane, step: jax.typing.ArrayLike) -> jax.Array:
    """Of the dropout of the step after `step` steps."""
    return jax.random.fold_in(jax.random.key(lane.seed), step)


def _average(config: Config, average: Any, params: Any) -> Any:
    decay = config.optimizer.ema_decay
    return None if decay is None else jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)


def _advance(config: Config, state: TrainState, updated: TrainState, finite: jax.Array) -> TrainState:
    """The updated state where the step was finite; a lane that has stopped keeps its last good state for good."""
    alive = state.alive & (finite | (config.train.on_nonfinite == "skip"))
    kept = jax.tree.map(lambda new, old: jnp.where(alive & finite, new, old), updated, state)
    return dataclasses.replace(kept, step=state.step + alive, skipped=state.skipped + (alive & ~finite), alive=alive)
