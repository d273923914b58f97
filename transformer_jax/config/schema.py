"""What is known of a field of the config: type, default, bounds, meaning, and when it is read."""

import dataclasses
import functools
import math
import typing
from collections.abc import Callable
from typing import Any, Literal

from transformer_jax.errors import UserError, shown
from transformer_jax.registry import did_you_mean

# Bounds of what the paper leaves open: far beyond all that was ever trained, and so small that shapes and steps made of
# them can be counted, by JAX too, which counts in int32 and float32.
MOST_STEPS = 10**9
WIDEST = 2**16
LARGEST = 1e30
MOST_TOKENS = 2**24
MOST_CLASSES = 2**20


@dataclasses.dataclass(frozen=True)
class Knob:
    """What is known of a field beside its type and default.

    `read_if` is asked of the Config; of a slot of attention, of the AttentionSlots of a place.
    """

    doc: str
    low: float | None = None
    high: float | None = None
    read_if: Callable[[Any], bool] | None = None
    traced: bool = False


def knob(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    read_if: Callable[[Any], bool] | None = None,
    traced: bool = False,
) -> Any:
    """A dataclass field. `traced`: may differ from lane to lane. `read_if`: false where it changes nothing."""
    return dataclasses.field(default=default, metadata={"knob": Knob(doc, low, high, read_if, traced)})


def with_default(cls: type, name: str, default: Any) -> Any:
    """The field of that name of a dataclass, for a class derived from it, with another default."""
    inherited = next(field for field in dataclasses.fields(cls) if field.name == name)
    return dataclasses.field(default=default, metadata=inherited.metadata)


@dataclasses.dataclass(frozen=True)
class Field:
    """One leaf of the config tree."""

    path: str
    type: Any
    default: Any
    knob: Knob

    @property
    def optional(self) -> bool:
        return type(None) in typing.get_args(self.type)

    @property
    def base_type(self) -> Any:
        """The type without `None`."""
        if not self.optional:
            return self.type
        kept = [t for t in typing.get_args(self.type) if t is not type(None)]
        return functools.reduce(lambda a, b: a | b, kept)


def check_value(field: Field, value: Any) -> Any:
    """`value` as the type of `field`; UserError if it is of another type, out of bounds or not one of the choices."""
    if value is None and field.optional:
        return None
    expected = field.base_type
    where = f"{field.path} = {shown(value)}"
    if typing.get_origin(expected) is Literal:
        choices = typing.get_args(expected)
        if value not in choices:
            near = did_you_mean(value, choices)
            raise UserError(f"{where} is not allowed{near}. Allowed: {', '.join(map(str, choices))}.")
        return value
    if typing.get_origin(expected) is tuple:
        if not isinstance(value, (tuple, list)) or not all(isinstance(v, str) for v in value):
            raise UserError(f"{where} must be a list of names.")
        return tuple(value)
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1023 else math.inf
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise UserError(f"{where} must be of type {expected.__name__}, but is {type(value).__name__}.")
    low, high = field.knob.low, field.knob.high
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where} is not a finite number.")
    if isinstance(value, str) and (not value.strip() or "\0" in value):
        raise UserError(f"{where} says nothing.")
    if low is not None and high is not None and not low <= value <= high:
        raise UserError(f"{where} is out of range: it must be from {low} to {high}.")
    return value
