"""How states and batches lie on devices. The only room that knows devices.

A layout compiles pure functions of one lane, so that the devices share the examples of a batch, or the lanes. Outside
of it the axis of lanes is always there, in front of every array of a state and of a training batch, of size 1 for a run
alone; behind it stands the axis of steps of a batch and of what is measured, and then that of examples.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np
from flax import jax_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from transformer_jax.config import Config
from transformer_jax.errors import UserError
from transformer_jax.parallel.mesh import mesh_sizes
from transformer_jax.parallel.rules import AXES, DATA, EXAMPLES, FSDP, POPULATION, TENSOR, specs, spread
from transformer_jax.parallel.transfer import devices_of_all, to_devices, to_host

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

    def check(self, state: Tree) -> None:
        """Refuses a state, of which the shapes are enough, that cannot lie so."""

    def put(self, state: Tree) -> Tree:
        """A state or parameters from the host, where they lie."""

    def get(self, state: Tree) -> Tree:
        """A copy of the state on the host."""


def over_lanes(
    function: Function, lanes: int, in_axes: tuple[int | None, ...], spmd_axis_name: str | None = None
) -> Function:
    """`function` of one lane for all of them; `in_axes`: 0 for arguments that have an axis of lanes, else None.

    A lane alone is compiled without `vmap`, which is faster.
    """
    if lanes > 1:
        return jax.vmap(function, in_axes, spmd_axis_name=spmd_axis_name)

    def alone(*arguments: Tree) -> Tree:
        first = (
            argument if axis is None else jax.tree.map(lambda a: a[0], argument)
            for argument, axis in zip(arguments, in_axes, strict=True)
        )
        return jax.tree.map(lambda a: a[None], function(*first))

    return alone


class JitLayout:
    """One program over a mesh: examples, parameters, the inside of layers and lanes are split over its axes."""

    def __init__(
        self,
        data: int = 1,
        fsdp: int = 1,
        tensor: int = 1,
        population: int = 1,
        *,
        lanes: int = 1,
        deterministic: bool = False,
    ):
        self.sizes = {POPULATION: population, DATA: data, FSDP: fsdp, TENSOR: tensor}
        self.devices, self.lanes = math.prod(self.sizes.values()), lanes
        self._options = DETERMINISTIC if deterministic else {}
        self._mesh = jax.make_mesh(
            tuple(self.sizes[axis] for axis in AXES),
            AXES,
            axis_types=(AxisType.Auto,) * len(AXES),
            devices=devices_of_all(self.devices),
        )
        self._of_lanes = self._sharding(POPULATION)
        self._batches = self._sharding(POPULATION, None, EXAMPLES)
        self._examples = self._sharding(EXAMPLES)
        self._examples_of_lanes = self._sharding(POPULATION, EXAMPLES)

    def _sharding(self, *axes: str | tuple[str, ...] | None) -> NamedSharding:
        return NamedSharding(self._mesh, PartitionSpec(*axes))

    def shardings(self, state: Tree) -> Tree:
        """Where every array of a state or of parameters lies, by the rules; arrays or their shapes.

        Raises:
          UserError: a parameter that no rule matches, or a dimension that an axis does not divide.
        """
        return jax.tree.map(lambda spec: NamedSharding(self._mesh, spec), specs(state, self.sizes))

    def check(self, state: Tree) -> None:
        self.shardings(state)

    def _over_lanes(self, function: Function, in_axes: tuple[int | None, ...]) -> Function:
        if self.sizes[FSDP] > 1 or self.sizes[TENSOR] > 1:
            function = spread(function, self._mesh)
        return over_lanes(function, self.lanes, in_axes, spmd_axis_name=POPULATION)

    def init(self, make_state: Function, lanes: Tree) -> Tree:
        made = self._over_lanes(make_state, (0,))
        shardings = self.shardings(jax.eval_shape(made, lanes))
        return jax.jit(made, out_shardings=shardings)(to_devices(lanes, self._of_lanes))

    def compile_steps(self, build_steps: Function) -> Function:
        of_lanes = self._over_lanes(build_steps(), (0, 0, 0, None))

        def steps(state: Tree, batches: Tree, lanes: Tree, count: jax.typing.ArrayLike) -> tuple[Tree, Tree]:
            state, measured = of_lanes(state, batches, lanes, count)
            return jax.lax.with_sharding_constraint(state, self.shardings(state)), measured

        compiled = jax.jit(
            steps,
            in_shardings=(None, self._batches, self._of_lanes, self._sharding()),
            donate_argnums=0,
            compiler_options=self._options,
        )
        if jax.process_count() == 1:
            return compiled

        def steps_of_all(state: Tree, batches: Tree, lanes: Tree, count: int) -> tuple[Tree, Tree]:
            shared = to_devices(batches, self._batches), to_devices(lanes, self._of_lanes)
            return compiled(state, *shared, to_devices(np.int32(count), self._sharding()))

        return steps_of_all

    def compile_rows(self, function: Function, shared: bool = True) -> Callable[[Tree, Tree], Tree]:
        examples = self._examples if shared else self._examples_of_lanes
        compiled = jax.jit(
            self._over_lanes(function, (0, None if shared else 0)),
            in_shardings=(None, examples),
            compiler_options=self._options,
        )
        if jax.process_count() == 1:
            return lambda trained, batch: jax.device_get(compiled(trained, batch))
        return lambda trained, batch: to_host(compiled(trained, to_devices(batch, examples)))

    def put(self, state: Tree) -> Tree:
        return to_devices(state, self.shardings(state))

    def get(self, state: Tree) -> Tree:
        return to_host(state)


class PmapLayout:
    """One program a device, each with its own copy of the state; sums travel by `psum`. For a lane alone."""

    lanes = 1

    def __init__(self, devices: int):
        self.devices = devices
        self._local = jax.local_devices()[:devices]

    def check(self, state: Tree) -> None:
        """Every device keeps a copy of whatever it is."""

    def init(self, make_state: Function, lanes: Tree) -> Tree:
        return self.put(jax.jit(over_lanes(make_state, 1, (0,)))(lanes))

    def compile_steps(self, build_steps: Function) -> Function:
        compiled = jax.pmap(
            over_lanes(build_steps(axis=DATA), 1, (0, 0, 0, None)),
            DATA,
            in_axes=(0, 0, None, None),
            out_axes=(0, None),
            donate_argnums=0,
            devices=self._local,
        )
        return lambda state, batches, lanes, count: compiled(state, self._split(batches, axis=2), lanes, count)

    def compile_rows(self, function: Function, shared: bool = True) -> Callable[[Tree, Tree], Tree]:
        compiled = jax.pmap(over_lanes(function, 1, (0, None if shared else 0)), DATA, devices=self._local)

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
        check_takes_lanes(config)
    sizes = mesh_sizes(config, lanes, jax.device_count())
    if config.parallel.strategy == "jit":
        return JitLayout(**sizes, lanes=lanes, deterministic=config.train.deterministic)
    if config.train.deterministic:
        raise UserError("train.deterministic = True needs parallel.strategy = 'jit', not 'pmap'.")
    for axis in (FSDP, TENSOR):
        if sizes[axis] > 1:
            raise UserError(
                f"parallel.{axis} = {sizes[axis]} needs parallel.strategy = 'jit': under 'pmap' every device keeps all "
                "parameters."
            )
    if jax.process_count() > 1:
        raise UserError("parallel.strategy = 'pmap' is of one process: several need 'jit'.")
    return PmapLayout(sizes[DATA])


def check_takes_lanes(config: Config) -> None:
    """Refuses to train runs of `config` together, as lanes.

    Raises:
      UserError: saying why.
    """
    generator = jax.random.key_impl(jax.random.key(0))
    if generator != "threefry2x32":
        raise UserError(
            f"Lanes need JAX's random generator threefry2x32, but JAX_DEFAULT_PRNG_IMPL chose {generator}: "
            "with that a lane draws other numbers than the run alone."
        )
    if config.parallel.strategy == "pmap":
        raise UserError("parallel.strategy = 'pmap' trains one run at a time: lanes need 'jit'.")
