"""How states and batches lie on devices. The only room that knows devices.

A layout compiles pure functions of one lane, so that the devices share the examples of a batch, or the lanes. Outside
of it the axis of lanes is always there, in front of every array of a state and of a training batch, of size 1 for a run
alone; behind it stands the axis of steps of a batch and of what is measured, and then that of examples.
"""

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
Function = Callable[..., Tree]
DETERMINISTIC = {"xla_gpu_deterministic_ops": True}
"""Compiler options under which an operation gives the same bits every time; without effect on CPUs, where all do."""


class Layout(Protocol):
    """What the loop and the evaluation need of a strategy."""

    devices: int
    lanes: int

    def init(self, make_state: Function, lanes: Tree) -> Tree:
        """The state that `make_state(lane)` makes of each lane, born where it will lie."""

    def compile_steps(self, build_steps: Function) -> Function:
        """`build_steps()`, compiled: (state, batches, lanes, count) -> (state, measured). The state is donated.

        Where each device sees a part of a batch alone, the builder is told the name of the `axis` of devices.
        """

    def compile_rows(self, function: Function, shared: bool = True) -> Callable[[Tree, Tree], Tree]:
        """`function(trained, batch) -> arrays with an entry for each example`, compiled; [lanes, examples, ...] on the
        host. A batch that all lanes share has no axis of lanes; one that is not `shared` has it in front."""

    def put(self, state: Tree) -> Tree:
        """A state or parameters from the host, where they lie."""

    def get(self, state: Tree) -> Tree:
        """A copy of the state on the host."""


def over_lanes(function: Function, lanes: int, in_axes: tuple[int | None, ...]) -> Function:
    """`function` of one lane for all of them; `in_axes`: 0 for arguments that have an axis of lanes, else None.

    A lane alone is compiled without `vmap`, which is faster.
    """
    if lanes > 1:
        return jax.vmap(function, in_axes)

    def alone(*arguments: Tree) -> Tree:
        first = (
            argument if axis is None else jax.tree.map(lambda a: a[0], argument)
            for argument, axis in zip(arguments, in_axes, strict=True)
        )
        return jax.tree.map(lambda a: a[None], function(*first))

    return alone


class JitLayout:
    """One program over a mesh: examples of batches, or lanes where they divide, are split over its one axis."""

    def __init__(self, devices: int, lanes: int = 1, deterministic: bool = False):
        self.devices, self.lanes = devices, lanes
        self._options = DETERMINISTIC if deterministic else {}
        self._mesh = Mesh(np.asarray(jax.devices()[:devices]), (AXIS,), axis_types=(AxisType.Auto,))
        split_lanes = lanes > 1 and lanes % devices == 0
        self._of_lanes = self._sharding(AXIS) if split_lanes else self._sharding()
        self._batches = self._of_lanes if split_lanes else self._sharding(None, None, AXIS)
        self._examples = self._sharding() if split_lanes else self._sharding(AXIS)
        self._examples_of_lanes = self._of_lanes if split_lanes else self._sharding(None, AXIS)

    def _sharding(self, *axes: str | None) -> NamedSharding:
        return NamedSharding(self._mesh, PartitionSpec(*axes))

    def init(self, make_state: Function, lanes: Tree) -> Tree:
        made = over_lanes(make_state, self.lanes, (0,))
        return jax.jit(made, out_shardings=self._of_lanes)(lanes)

    def compile_steps(self, build_steps: Function) -> Function:
        return jax.jit(
            over_lanes(build_steps(), self.lanes, (0, 0, 0, None)),
            in_shardings=(self._of_lanes, self._batches, self._of_lanes, self._sharding()),
            out_shardings=(self._of_lanes, None),
            donate_argnums=0,
            compiler_options=self._options,
        )

    def compile_rows(self, function: Function, shared: bool = True) -> Callable[[Tree, Tree], Tree]:
        compiled = jax.jit(
            over_lanes(function, self.lanes, (0, None if shared else 0)),
            in_shardings=(self._of_lanes, self._examples if shared else self._examples_of_lanes),
            compiler_options=self._options,
        )
        return lambda trained, batch: jax.device_get(compiled(trained, batch))

    def put(self, state: Tree) -> Tree:
        return jax.device_put(state, self._of_lanes)

    def get(self, state: Tree) -> Tree:
        return jax.device_get(state)


class PmapLayout:
    """One program a device, each with its own copy of the state; sums travel by `psum`. For a lane alone."""

    lanes = 1

    def __init__(self, devices: int):
        self.devices = devices
        self._local = jax.local_devices()[:devices]

    def init(self, make_state: Function, lanes: Tree) -> Tree:
        return self.put(jax.jit(over_lanes(make_state, 1, (0,)))(lanes))

    def compile_steps(self, build_steps: Function) -> Function:
        compiled = jax.pmap(
            over_lanes(build_steps(axis=AXIS), 1, (0, 0, 0, None)),
            AXIS,
            in_axes=(0, 0, None, None),
            out_axes=(0, None),
            donate_argnums=0,
            devices=self._local,
        )
        return lambda state, batches, lanes, count: compiled(state, self._split(batches, axis=2), lanes, count)

    def compile_rows(self, function: Function, shared: bool = True) -> Callable[[Tree, Tree], Tree]:
        compiled = jax.pmap(over_lanes(function, 1, (0, None if shared else 0)), AXIS, devices=self._local)

        def rows(trained: Tree, batch: Tree) -> Tree:
            parts = jax.device_get(compiled(trained, self._split(batch, axis=0 if shared else 1)))
            return jax.tree.map(lambda a: a.reshape(1, -1, *a.shape[3:]), parts)

        return rows

    def _split(self, batch: Tree, axis: int) -> Tree:
        """A leading axis of devices, which share the examples, along `axis`."""

        def split(a: Tree) -> Tree:
            return np.moveaxis(a.reshape(*a.shape[:axis], self.devices, -1, *a.shape[axis + 1 :]), axis, 0)

        return jax.tree.map(split, batch)

    def put(self, state: Tree) -> Tree:
        return jax_utils.replicate(state, self._local)

    def get(self, state: Tree) -> Tree:
        return jax.device_get(jax_utils.unreplicate(state))


def make_layout(config: Config, lanes: int = 1) -> Layout:
    """The layout that `config.parallel` describes, on the devices there are.

    Raises:
      UserError: more devices asked for than there are, a count that does not divide `data.batch_multiple`, or
        lanes that cannot be.
    """
    if lanes > 1:
        _check_lanes(config)
    devices = _device_count(config)
    if config.parallel.strategy == "pmap":
        if config.train.deterministic:
            raise UserError("train.deterministic = True needs parallel.strategy = 'jit', not 'pmap'.")
        return PmapLayout(devices)
    return JitLayout(devices, lanes, config.train.deterministic)


def _check_lanes(config: Config) -> None:
    generator = jax.random.key_impl(jax.random.key(0))
    if generator != "threefry2x32":
        raise UserError(
            f"Lanes need JAX's random generator threefry2x32, but JAX_DEFAULT_PRNG_IMPL chose {generator}: "
            "with that a lane draws other numbers than the run alone."
        )
    if config.parallel.strategy == "pmap":
        raise UserError("parallel.strategy = 'pmap' trains one run at a time: lanes need 'jit'.")


def _device_count(config: Config) -> int:
    available, multiple = jax.local_device_count(), config.data.batch_multiple
    if config.parallel.data is None:
        return max(n for n in range(1, available + 1) if multiple % n == 0)
    if config.parallel.data > available:
        raise UserError(f"parallel.data = {config.parallel.data}, but there are {available} devices.")
    if multiple % config.parallel.data:
        raise UserError(
            f"parallel.data = {config.parallel.data} does not divide data.batch_multiple = {multiple}: "
            "examples could not be shared evenly."
        )
    return config.parallel.data
