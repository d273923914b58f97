"""One training step: a pure function of one lane, the same under jit, vmap and pmap."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from transformer_jax.config import Config, Resolved
from transformer_jax.models.build import build_model
from transformer_jax.models.tokens import Batch
from transformer_jax.tasks import task_of
from transformer_jax.training.optimizer import build_optimizer, build_schedule, held
from transformer_jax.training.state import Lane, TrainState

Totals = dict[str, tuple[jax.Array, jax.Array]]
"""Name -> sum and count over the batch, float32[] both."""
Step = Callable[[TrainState, Batch, Lane], tuple[TrainState, Totals]]
Steps = Callable[[TrainState, Batch, Lane, jax.typing.ArrayLike], tuple[TrainState, Totals]]
GUARDED = ("loss", "gradient_norm", "update_norm")
"""What a step measures that must be finite, or its update is left out: then every state is finite, as a norm of which
the square overflows counts as not finite too."""


def build_step(config: Resolved, axis: str | None = None) -> Step:
    """The step that `config` describes, for any lane of it.

    Args:
      axis: name of the axis of devices, where each sees a part of the batch alone: sums are added over it, and dropout
        differs along it. Under jit, which sees whole batches, there is none.
    """

    def step(state: TrainState, batch: Batch, lane: Lane) -> tuple[TrainState, Totals]:
        lane_config = lane.on(config)
        totals, gradient = _mean_gradient(lane_config, state, batch, lane, axis)
        updates, opt_state = build_optimizer(lane_config).update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        one = jnp.ones(())
        totals |= {
            "gradient_norm": (optax.tree.norm(gradient), one),
            "update_norm": (optax.tree.norm(updates), one),
            "learning_rate": (build_schedule(lane_config)(state.step - state.skipped + 1), one),
        }
        finite = functools.reduce(jnp.logical_and, [jnp.isfinite(totals[name][0]) for name in GUARDED])
        updated = dataclasses.replace(
            state, params=params, opt_state=opt_state, average=_average(config, state.average, params)
        )
        return _advance(config, state, updated, finite), totals

    return step


def build_steps(config: Resolved, limit: int, axis: str | None = None) -> Steps:
    """The first `count` of `limit` steps, in one call; batches and what is measured have an axis of steps in front.

    The body of the loop is compiled once for any count, so how steps are shared out to calls changes no bit. A single
    step needs no loop.
    """
    step = build_step(config, axis)

    def single(state: TrainState, batches: Batch, lane: Lane, count: jax.typing.ArrayLike) -> tuple[TrainState, Totals]:
        state, totals = step(state, jax.tree.map(lambda a: a[0], batches), lane)
        return state, jax.tree.map(lambda total: total[None], totals)

    def steps(state: TrainState, batches: Batch, lane: Lane, count: jax.typing.ArrayLike) -> tuple[TrainState, Totals]:
        def batch_at(index: Any) -> Batch:
            return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, index, keepdims=False), batches)

        def take(index: jax.Array, carry: tuple[TrainState, Totals]) -> tuple[TrainState, Totals]:
            state, measured = carry
            state, totals = step(state, batch_at(index), lane)
            return state, jax.tree.map(lambda all_, one: all_.at[index].set(one), measured, totals)

        _, shapes = jax.eval_shape(step, state, batch_at(0), lane)
        empty = jax.tree.map(lambda one: jnp.zeros((limit, *one.shape), one.dtype), shapes)
        return jax.lax.fori_loop(0, count, take, (state, empty))

    return single if limit == 1 else steps


def gradient_and_update(config: Resolved, state: TrainState, batch: Batch, lane: Lane) -> tuple[Any, Any]:
    """The gradient of the mean loss that the next step sees, and the update made of it, on one device."""
    lane_config = lane.on(config)
    _, gradient = _mean_gradient(lane_config, state, batch, lane)
    return gradient, build_optimizer(lane_config).update(gradient, state.opt_state, state.params)[0]


def _mean_gradient(
    config: Resolved, state: TrainState, batch: Batch, lane: Lane, axis: str | None = None
) -> tuple[Totals, Any]:
    """What the task measures, added up over the batch, and the gradient of the mean loss."""
    task, model = task_of(config), build_model(config.model, config.train.remat)
    key = _key(lane, state.step)
    if axis is not None:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis))

    def sums(part: Batch, key: jax.Array) -> tuple[Totals, Any]:
        def loss_sum(params: Any) -> tuple[jax.Array, Totals]:
            measured = task.measure(config, model, held(config, params), part, key)
            totals = {name: (jnp.sum(sums_B), jnp.sum(counts_B)) for name, (sums_B, counts_B) in measured.items()}
            return totals["loss"][0], totals

        (_, totals), gradient = jax.value_and_grad(loss_sum, has_aux=True)(state.params)
        return totals, gradient

    parts = config.train.accumulate
    totals, gradient = sums(batch, key) if parts == 1 else _one_after_the_other(sums, batch, key, parts)
    if axis is not None:
        totals, gradient = jax.lax.psum((totals, gradient), axis)
    return totals, jax.tree.map(lambda g: g / jnp.maximum(totals["loss"][1], 1), gradient)


def _one_after_the_other(
    sums: Callable[[Batch, jax.Array], tuple[Totals, Any]], batch: Batch, key: jax.Array, parts: int
) -> tuple[Totals, Any]:
    """The sums over the parts of a batch, added up: only what one part needs for its gradient is kept at a time.

    A part takes every row of which the number leaves the same rest, so that rows stay on the device they are on.
    """
    cut = jax.tree.map(lambda a: jnp.moveaxis(a.reshape(-1, parts, *a.shape[1:]), 1, 0), batch)

    def add(total: tuple[Totals, Any], part: tuple[jax.Array, Batch]) -> tuple[tuple[Totals, Any], None]:
        number, rows = part
        return jax.tree.map(jnp.add, total, sums(rows, jax.random.fold_in(key, number))), None

    shapes = jax.eval_shape(sums, jax.tree.map(lambda a: a[0], cut), key)
    nothing = jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), shapes)
    return jax.lax.scan(add, nothing, (jnp.arange(parts), cut))[0]


def _key(lane: Lane, step: jax.typing.ArrayLike) -> jax.Array:
    """The dropout key of step `step`, counted from 0."""
    return jax.random.fold_in(jax.random.key(lane.seed), step)


def _average(config: Config, average: Any, params: Any) -> Any:
    decay = config.optimizer.ema_decay
    return None if decay is None else optax.incremental_update(params, average, 1 - decay)


def _advance(config: Config, state: TrainState, updated: TrainState, finite: jax.Array) -> TrainState:
    """The updated state where the step was finite; a lane that has stopped keeps its last good state for good."""
    alive = state.alive & (finite | (config.train.on_nonfinite == "skip"))
    kept = jax.tree.map(lambda new, old: jnp.where(alive & finite, new, old), updated, state)
    return dataclasses.replace(kept, step=state.step + alive, skipped=state.skipped + (alive & ~finite), alive=alive)
