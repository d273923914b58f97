"""How states and batches lie on devices. The only room that knows devices.

A layout compiles pure functions of (state, batch, ...) so that the devices share a batch's rows, or a population's
lanes, and puts arrays where those functions expect them.
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np
from flax import jax_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from transformer_jax.config import Config
from transformer_jax.errors import UserError

AXIS = "data"
Tree = Any
Builder = Callable[..., Callable[..., Any]]
Steps = Callable[[Tree, Tree, Tree, int], tuple[Tree, Tree]]
"""(state, batches, lane, count) -> (state, sums)."""
DETERMINISTIC = {"xla_gpu_deterministic_ops": True}
"""Compiler options under which an operation gives the same bits every time; without effect on CPUs, where all do."""


class Layout(Protocol):
    """What the loop and the evaluation need of a strategy."""

    devices: int

    def compile_steps(self, build_steps: Builder, most: int) -> Steps:
        """Compiles `build_steps(reduce, key_of_part)`; batches have an axis of steps if `most` is above 1.

        The state is donated.
        """

    def compile_rows(self, function: Callable[[Tree, Tree], Tree]) -> Callable[[Tree, Tree], Tree]:
        """`function(params, batch) -> arrays with one entry a row`, compiled; the result is on the host."""

    def put(self, state: Tree) -> Tree:
        """A state or parameters from the host, on every device."""

    def get(self, state: Tree) -> Tree:
        """A copy of the state on the host."""


class JitLayout:
    """One program over a mesh: rows of batches, or lanes of populations, are split over its one axis."""

    def __init__(self, devices: int, lanes: int | None = None, deterministic: bool = False):
        """`lanes`: of a population, None for a solo run, whose arrays have no lane axis."""
        self.devices = devices
        self._options = DETERMINISTIC if deterministic else {}
        self._lanes = lanes
        self._mesh = Mesh(np.asarray(jax.devices()[:devices]), (AXIS,), axis_types=(AxisType.Auto,))
        self._split_lanes = lanes is not None and lanes % devices == 0
        self._state = self._sharding(AXIS) if self._split_lanes else self._sharding()

    def _sharding(self, *axes: str | None) -> NamedSharding:
        return NamedSharding(self._mesh, PartitionSpec(*axes))

    def compile_steps(self, build_steps: Builder, most: int) -> Steps:
        steps = build_steps()
        if self._lanes is not None:
            steps = jax.vmap(steps, in_axes=(0, 0, 0, None))
        before_rows = (self._lanes is not None) + (most > 1)
        batches = self._state if self._split_lanes else self._sharding(*[None] * before_rows, AXIS)
        lane = self._state if self._split_lanes else self._sharding()
        return jax.jit(
            steps,
            in_shardings=(self._state, batches, lane, self._sharding()),
            out_shardings=(self._state, None),
            donate_argnums=0,
            compiler_options=self._options,
        )

    def compile_rows(self, function: Callable[[Tree, Tree], Tree]) -> Callable[[Tree, Tree], Tree]:
        if self._lanes is not None:
            function = jax.vmap(function, in_axes=(0, None))
        batch = self._sharding() if self._split_lanes else self._sharding(AXIS)
        compiled = jax.jit(function, in_shardings=(self._state, batch), compiler_options=self._options)
        return lambda params, rows: jax.device_get(compiled(params, rows))

    def put(self, state: Tree) -> Tree:
        return jax.device_put(state, self._state)

    def get(self, state: Tree) -> Tree:
        return jax.device_get(state)


class PmapLayout:
    """One program a device, each with its own copy of the state; sums travel by `psum`."""

    def __init__(self, devices: int):
        self.devices = devices
        self._local = jax.local_devices()[:devices]

    def compile_steps(self, build_steps: Builder, most: int) -> Steps:
        steps = build_steps(
            functools.partial(jax.lax.psum, axis_name=AXIS),
            lambda key: jax.random.fold_in(key, jax.lax.axis_index(AXIS)),
        )
        axes = (0, 0, None, None)
        compiled = jax.pmap(steps, AXIS, in_axes=axes, out_axes=(0, None), donate_argnums=0, devices=self._local)
        return lambda state, batches, lane, count: compiled(state, self._split(batches, int(most > 1)), lane, count)

    def compile_rows(self, function: Callable[[Tree, Tree], Tree]) -> Callable[[Tree, Tree], Tree]:
        compiled = jax.pmap(function, AXIS, devices=self._local)

        def rows(params: Tree, batch: Tree) -> Tree:
            parts = jax.device_get(compiled(params, self._split(batch)))
            return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), parts)

        return rows

    def _split(self, batch: Tree, rows: int = 0) -> Tree:
        """A leading axis of devices, which share the axis `rows`."""

        def split(a: Tree) -> Tree:
            return np.moveaxis(a.reshape(*a.shape[:rows], self.devices, -1, *a.shape[rows + 1 :]), rows, 0)

        return jax.tree.map(split, batch)

    def put(self, state: Tree) -> Tree:
        return jax_utils.replicate(state, self._local)

    def get(self, state: Tree) -> Tree:
        return jax.device_get(jax_utils.unreplicate(state))


def make_layout(config: Config, lanes: int | None = None) -> Layout:
    """The layout that `config.parallel` describes, on the devices there are; `lanes`: of a population.

    Raises:
      UserError: more devices asked for than there are, or a count that does not divide `data.batch_multiple`.
    """
    devices = _device_count(config)
    if config.parallel.strategy == "pmap":
        if config.train.deterministic:
            raise UserError("train.deterministic = True needs parallel.strategy = 'jit', not 'pmap'.")
        return PmapLayout(devices)
    return JitLayout(devices, lanes, config.train.deterministic)


def _device_count(config: Config) -> int:
    available, multiple = jax.local_device_count(), config.data.batch_multiple
    if config.parallel.data is None:
        return max(n for n in range(1, available + 1) if multiple % n == 0)
    if config.parallel.data > available:
        raise UserError(f"parallel.data = {config.parallel.data}, but there are {available} devices.")
    if multiple % config.parallel.data:
        raise UserError(
            f"parallel.data = {config.parallel.data} does not divide data.batch_multiple = {multiple}: "
            "rows could not be shared evenly."
        )
    return config.parallel.data
