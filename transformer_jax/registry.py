"""Slots: a place in the equations whose alternatives share one signature, chosen by a spec string.

A table maps names to functions or modules; a config field holds a spec such as ``"sinusoidal"`` or
``"rotary(base=10000)"``.
The signature of the entry is the schema: keyword arguments with literal values, nothing else.
"""

import ast
import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from transformer_jax.errors import UserError, shown

LARGEST = 2**31
"""Options are smaller: counts and lengths all, and JAX counts in int32."""


def resolve(table: Mapping[str, Callable[..., Any]], spec: str, field: str) -> functools.partial[Any]:
    """The entry of `table` that `spec` names, with the keywords of `spec` bound.

    Args:
      table: name -> function or class. Parameters that the caller supplies later stay free.
      spec: ``"name"`` or ``"name(keyword=literal, ...)"``.
      field: dotted path of the config field, for the error message.

    Raises:
      UserError: not of that form, an unknown name, an unknown keyword or a value of the wrong type.
    """
    name, keywords = parse_spec(spec, field)
    if name not in table:
        raise UserError(f"{field}: unknown {name!r}{did_you_mean(name, table)}. Allowed: {', '.join(table)}.")
    entry = table[name]
    parameters = options(entry)
    for keyword, value in keywords.items():
        if keyword not in parameters:
            allowed = ", ".join(parameters) or "none"
            raise UserError(
                f"{field}: {name!r} takes no {keyword!r}{did_you_mean(keyword, parameters)}. Allowed: {allowed}."
            )
        _check_type(parameters[keyword], value, f"{field}: {name}({keyword}=...)")
    return functools.partial(entry, **keywords)


def parse_spec(spec: str, field: str) -> tuple[str, dict[str, Any]]:
    """Splits ``"name(a=1)"`` into ``("name", {"a": 1})``; UserError if it is of another form.

    ``"name()"`` is refused: a choice without arguments has one spelling, so that it can be compared.
    """
    form = f'{field}: {spec!r} is not of the form "name" or "name(keyword=value)"'
    try:
        node = ast.parse(spec, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise UserError(f"{form}.") from error
    if isinstance(node, ast.Name) and node.id == spec:
        return node.id, {}
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and (node.args or node.keywords)):
        raise UserError(f"{form}.")
    if node.args or any(k.arg is None for k in node.keywords):
        raise UserError(f"{form}: arguments are given by keyword.")
    try:
        return node.func.id, {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
    except (ValueError, TypeError, MemoryError, RecursionError) as error:
        raise UserError(f"{form}: values are literals.") from error


def options(entry: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of `entry` that a spec may set: those with a default that is a number, a string or None."""
    return {
        name: parameter
        for name, parameter in inspect.signature(entry).parameters.items()
        if isinstance(parameter.default, (bool, int, float, str, type(None))) and name not in ("name", "parent")
    }


def _check_type(parameter: inspect.Parameter, value: Any, where: str) -> None:
    default = parameter.default
    if isinstance(value, int | float) and not abs(value) < LARGEST:
        raise UserError(f"{where} is {shown(value)}; it must be a number between -{LARGEST:,} and {LARGEST:,}.")
    if default is None:
        return
    same = isinstance(value, type(default)) and isinstance(value, bool) == isinstance(default, bool)
    int_for_float = isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool)
    if not (same or int_for_float):
        raise UserError(f"{where} is {shown(value)}; it must be of type {type(default).__name__}.")


def did_you_mean(name: Any, known: Any) -> str:
    """``" (did you mean 'x'?)"`` for the nearest of `known`, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1) if isinstance(name, str) else []
    return f" (did you mean {near[0]!r}?)" if near else ""
