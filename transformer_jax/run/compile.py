"""What is compiled for a config, on its data. Seeds, and numbers of lanes, are arguments of it."""

import dataclasses
import functools
import math
import os
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np

from transformer_jax.config import Config, Resolved, with_values
from transformer_jax.data import Dataset, Plan, make_dataset, make_plan
from transformer_jax.errors import UserError
from transformer_jax.evaluation.evaluator import Evaluator
from transformer_jax.parallel.layout import Layout, check_takes_lanes, make_layout
from transformer_jax.run.resolve import resolve_config, validate
from transformer_jax.training.optimizer import check_trained
from transformer_jax.training.state import Lane, init_state, lanes_of
from transformer_jax.training.step import build_steps


class TakesSteps(Protocol):
    """What trains, of a program: `Steps`, or what stands around them."""

    def init(self, lanes: Lane) -> Any:
        """See `Steps.init`."""

    def take(self, state: Any, step: int, limit: int, lanes: Lane) -> tuple[Any, Any, int]:
        """See `Steps.take`."""

    def batch(self, step: int, lanes: Lane) -> dict[str, np.ndarray]:
        """See `Steps.batch`."""


class Steps:
    """The compiled training steps of a plan."""

    def __init__(self, config: Resolved, plan: Plan, layout: Layout):
        self._plan, self._layout = plan, layout
        self._init = functools.partial(init_state, config)
        self._limit = min(config.train.steps_per_dispatch, *config.train.intervals)
        self._compiled = layout.compile_steps(functools.partial(build_steps, config, self._limit))

    def init(self, lanes: Lane) -> Any:
        """The state before the first step."""
        return self._layout.init(self._init, lanes)

    def take(self, state: Any, step: int, limit: int, lanes: Lane) -> tuple[Any, Any, int]:
        """Takes steps from `step` (counted from 0) on, `limit` at most, in one call.

        Returns:
          The state, which is donated; what each step measured, [lanes, steps] each; how many steps they were.
        """
        end = min(limit, self._limit)
        classes = (self._plan.class_at(step + k) == self._plan.class_at(step) for k in range(end))
        count = next((k for k, same in enumerate(classes) if not same), end)
        batches = [self.batch(step + k, lanes) for k in range(count)]
        batches += batches[-1:] * (self._limit - count)
        stacked = {name: np.stack([batch[name] for batch in batches], axis=1) for name in batches[0]}
        state, totals = self._compiled(state, stacked, lanes, count)
        return state, totals, count

    def batch(self, step: int, lanes: Lane) -> dict[str, np.ndarray]:
        """The batch of a step of every lane, [lanes, examples, ...]: the seed of a lane orders its data."""
        batches = [self._plan.batch_at(step, int(seed)) for seed in np.asarray(lanes.seed)]
        return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


@dataclasses.dataclass(frozen=True)
class Program:
    """A config ready to run.

    Attributes:
      traced: fields that are arguments of what is compiled, as the seed always is; all others are constants of it.
    """

    config: Resolved
    traced: tuple[str, ...]
    dataset: Dataset
    plan: Plan
    layout: Layout
    steps: TakesSteps
    evaluator: Evaluator

    def lanes(self, configs: Sequence[Config]) -> Lane:
        """What makes the lanes of the program the runs of these configs."""
        return lanes_of(configs, self.traced)


def compile_program(config: Config, lanes: int = 1, assets: Any = None, traced: Sequence[str] = ()) -> Program:
    """Reads the data of a validated config and builds what runs `lanes` runs of it together; compiled at first use.

    Args:
      assets: those of an earlier run, which are used instead of new ones.
    """
    layout = make_layout(config, lanes)
    dataset = make_dataset(config.data, assets)
    resolved = resolve_for_machine(config, dataset.assets, lanes)
    plan = make_plan(dataset.splits["train"], config.data)
    steps = Steps(resolved, plan, layout)
    return Program(resolved, tuple(traced), dataset, plan, layout, steps, Evaluator(resolved, dataset.assets, layout))


def resolve_for_machine(config: Config, assets: Any, lanes: int = 1) -> Resolved:
    """The config with what the assets say, if this machine can run it.

    Raises:
      UserError: a size that does not fit, devices that there are not, or a state that the machine cannot hold.
    """
    resolved = resolve_config(config, assets)
    validate(resolved)
    template = state_template(resolved)
    check_trained(resolved, template.params)
    in_lanes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((lanes, *leaf.shape), leaf.dtype), template)
    make_layout(resolved, lanes).check(in_lanes)
    sizes = [leaf.dtype.itemsize * math.prod(leaf.shape) for leaf in jax.tree.leaves(template)]
    needed, memory = lanes * sum(sizes), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise UserError(
            f"{count_parameters(resolved):,} parameters{f' of each of {lanes} lanes' if lanes > 1 else ''}, with what "
            f"the optimizer keeps of each, are {needed / 2**30:,.1f} GiB, but this machine has {memory / 2**30:,.1f}: "
            "make the model smaller."
        )
    return resolved


def unstack(tree: Any, lanes: int) -> list[Any]:
    """One tree for each lane of a tree of host arrays."""
    return [jax.tree.map(lambda leaf, k=k: np.asarray(leaf[k]), tree) for k in range(lanes)]


def stack(trees: Sequence[Any]) -> Any:
    """The inverse of `unstack`."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def check_lanes(config: Config) -> None:
    """Refuses to train runs of `config` together, as lanes.

    Raises:
      UserError: saying why.
    """
    check_takes_lanes(config)


def state_template(config: Resolved) -> Any:
    """Shapes and dtypes of a run's TrainState."""
    return _state_template(with_values(config, {"seed": 0}))


@functools.cache
def _state_template(config: Resolved) -> Any:
    return jax.eval_shape(functools.partial(init_state, config), Lane(np.int32(0), {}))


def count_parameters(config: Resolved) -> int:
    """Entries of all parameters."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state_template(config).params))
