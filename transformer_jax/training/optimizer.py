"""The update rule (Section 5.3), made by optax. Its numbers may be tracers, so it is built inside the step."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from transformer_jax.config import Config
from transformer_jax.errors import UserError
from transformer_jax.registry import parse_spec, resolve
from transformer_jax.training.schedule import SCHEDULES, Schedule


def build_schedule(config: Config) -> Schedule:
    """The learning rate at a step, counted from 1: float32[]."""
    shape = resolve(SCHEDULES, config.optimizer.schedule, "optimizer.schedule")(
        d_model=config.model.d_model, warmup_steps=config.optimizer.warmup_steps, steps=config.train.steps
    )
    return lambda step: config.optimizer.learning_rate * shape(jnp.asarray(step, jnp.float32))


def build_optimizer(config: Config) -> optax.GradientTransformation:
    """Clipping, the rule that `config.optimizer.name` names, decoupled weight decay on matrices, the learning rate."""
    optimizer = config.optimizer
    learning_rate = build_schedule(config)
    moments = {"b1": optimizer.beta_1, "b2": optimizer.beta_2}
    decay = optax.add_decayed_weights(optimizer.weight_decay, mask=functools.partial(_decayed, config))
    rules = {
        "adam": [optax.scale_by_adam(**moments, eps=optimizer.epsilon)],
        "adamw": [optax.scale_by_adam(**moments, eps=optimizer.epsilon), decay],
        "lion": [optax.scale_by_lion(**moments), decay],
        "sgd": [],
    }
    clip = [] if optimizer.clip_norm is None else [optax.clip_by_global_norm(optimizer.clip_norm)]
    # optax counts updates from 0, the paper's step_num from 1.
    return optax.chain(
        *clip, *rules[optimizer.name], optax.scale_by_learning_rate(lambda count: learning_rate(count + 1))
    )


def _decayed(config: Config, params: optax.Params) -> optax.Params:
    """True for embeddings and kernels that are trained, False for biases, norms and scales."""
    names, trained = ("kernel", "embedding"), config.optimizer.trained
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key in names and (not trained or path[0].key in trained), params
    )


def held(config: Config, params: Any) -> Any:
    """The parameters, of which those of modules that `optimizer.trained` leaves out have no gradient."""
    trained = config.optimizer.trained
    if not trained:
        return params
    return {name: part if name in trained else jax.lax.stop_gradient(part) for name, part in params.items()}


def check_trained(config: Config, params: Any) -> None:
    """Refuses names of modules that the parameters do not have."""
    if unknown := [name for name in config.optimizer.trained if name not in params]:
        raise UserError(f"optimizer.trained: there is no module {unknown[0]!r}. Allowed: {', '.join(sorted(params))}.")


def check(config: Config) -> None:
    """Refuses schedules that do not exist.

    Raises:
      UserError: naming the field, what was found and what is allowed.
    """
    resolve(SCHEDULES, config.optimizer.schedule, "optimizer.schedule")
    name, _ = parse_spec(config.optimizer.schedule, "optimizer.schedule")
    if name in ("cosine", "linear") and config.optimizer.warmup_steps >= config.train.steps:
        raise UserError(
            f"optimizer.warmup_steps = {config.optimizer.warmup_steps} leaves nothing of train.steps = "
            f"{config.train.steps} for the schedule {name!r} to fall in."
        )
