"""How many devices stand along each axis of the mesh, from the config and what there is."""

import math

from transformer_jax.config import Config
from transformer_jax.errors import UserError
from transformer_jax.parallel.rules import AXES, DATA, FSDP, POPULATION, TENSOR

REST = -1
"""The size of an axis that takes the devices which the others leave."""


def mesh_sizes(config: Config, lanes: int, available: int) -> dict[str, int]:
    """Devices along each of AXES.

    Unset, `data` and `population` take what is left, as far as it divides the examples of a batch; lanes that can be
    shared out evenly come first, since they need no messages.

    Raises:
      UserError: more devices asked for than there are, or examples or lanes that cannot be shared evenly.
    """
    parallel = config.parallel
    asked = {POPULATION: parallel.population, DATA: parallel.data, FSDP: parallel.fsdp, TENSOR: parallel.tensor}
    if lanes == 1:
        asked[POPULATION] = 1  # a run alone has no lanes to share
    for axis, size in asked.items():
        if size == 0:
            raise UserError(f"parallel.{axis} = 0: give the number of devices, or {REST} for all that are left.")
    multiple, parts = config.data.batch_multiple, config.train.accumulate
    if multiple % parts:
        raise UserError(f"train.accumulate = {parts} does not divide data.batch_multiple = {multiple}.")
    sizes = _fill(asked, lanes, available, multiple // parts)
    _check(sizes, config, lanes)
    return sizes


def _fill(asked: dict[str, int | None], lanes: int, available: int, multiple: int) -> dict[str, int]:
    """The sizes asked for, with those that were left open."""
    given = {axis: size for axis, size in asked.items() if size not in (None, REST)}
    taken = math.prod(size for size in given.values() if size is not None)
    if taken > available:
        spelled = " x ".join(f"parallel.{axis} = {size}" for axis, size in given.items() if size != 1)
        raise UserError(f"{spelled}, but there are {available} devices.")
    rest = [axis for axis, size in asked.items() if size == REST]
    if len(rest) > 1:
        raise UserError(f"parallel.{rest[0]} and parallel.{rest[1]} are both {REST}: one axis takes what is left.")
    if rest:
        if available % taken:
            raise UserError(
                f"parallel.{rest[0]} = {REST}: the other axes take {taken} devices, which do not divide the "
                f"{available} there are."
            )
        given |= {rest[0]: available // taken}
        return {axis: given.get(axis) or 1 for axis in AXES}
    left, shared = available // taken, asked[FSDP] or 1
    if asked[DATA] is None:
        left = max(n for n in range(1, left + 1) if multiple % (n * shared) == 0 or n == 1)
        by_lanes = asked[POPULATION] is None and lanes % left == 0 and lanes > 1
        given |= {POPULATION: left} if by_lanes else {DATA: left}
    return {axis: given.get(axis) or 1 for axis in AXES}


def _check(sizes: dict[str, int], config: Config, lanes: int) -> None:
    """That examples and lanes can be shared evenly."""
    multiple, parts = config.data.batch_multiple, config.train.accumulate
    if multiple % (sizes[DATA] * sizes[FSDP] * parts):
        axes = [axis for axis in (DATA, FSDP) if sizes[axis] > 1]
        spelled = " x ".join(f"parallel.{axis} = {sizes[axis]}" for axis in axes)
        spelled += f" x train.accumulate = {parts}" if parts > 1 else ""
        raise UserError(
            f"{spelled} does not divide data.batch_multiple = {multiple}: examples could not be shared evenly."
        )
    if lanes % sizes[POPULATION]:
        raise UserError(
            f"parallel.population = {sizes[POPULATION]} does not divide the {lanes} lanes: they could not be shared "
            "evenly."
        )
