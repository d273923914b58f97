"""JSON that is read, and the one check of it: a file may be damaged, or have been written by anybody."""

import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from transformer_jax.errors import UserError, shown
from transformer_jax.files import read_bytes

LARGEST = 2**53
"""Whole numbers up to it are the same to every program that reads JSON; nothing that a run counts comes near it."""


def read_json(path: Path) -> Any:
    """The content of a JSON file; UserError if it cannot be read."""
    try:
        return json.loads(read_bytes(path).decode())
    except OSError as error:
        raise UserError(f"{path}: cannot be read as JSON ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({type(error).__name__}).") from error


def checked(content: Any, fields: Mapping[str, Any], where: object) -> dict[str, Any]:
    """`content` if it is an object in which each of the fields is of its type; what stands beside them may be anything.

    Args:
      fields: name -> bool, int, float (finite), str, None, `Literal[...]`, a union of those, `list[T]`, `dict[str, T]`,
        or `tuple[T, T]`, a list of that length.
      where: the file, for the sentence.

    Raises:
      UserError: naming the file, the field and what was found.
    """
    if not isinstance(content, dict):
        raise UserError(f"{where}: holds {type(content).__name__} where an object belongs.")
    for name, kind in fields.items():
        if name not in content:
            raise UserError(f"{where}: does not say {name!r}.")
        if not _fits(content[name], kind):
            raise UserError(f"{where}: {name} is {shown(content[name])}, but must be {_words(kind)}.")
    return content


def _fits(value: Any, kind: Any) -> bool:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if origin is types.UnionType:
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin is list:
        return isinstance(value, list) and all(_fits(item, parts[0]) for item in value)
    if origin is tuple:
        return isinstance(value, list) and len(value) == len(parts) and all(map(_fits, value, parts))
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, parts[1]) for item in value.values())
    if kind is int:
        return type(value) is int and abs(value) < LARGEST
    if kind is float:
        return type(value) in (int, float) and abs(value) < LARGEST  # which NaN is not
    return isinstance(value, kind)


def _words(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind).replace("typing.", "")
