"""Config files, rows and command-line overrides: from `FILE[:ROW]` and `--config.a.b=value` to a Config."""

import ast
import contextlib
import importlib.util
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from transformer_jax.config import FIELDS, Config, Field, check_value, field_at, flatten, freeze
from transformer_jax.errors import UserError
from transformer_jax.registry import did_you_mean

Overrides = Mapping[str, Any]


def load_config(spec: str, overrides: Overrides | None = None) -> Config:
    """The Config of ``FILE`` or ``FILE:ROW`` with `overrides` (dotted path -> value) on top.

    Rows that depend on the base see the base with the overrides in it; the overrides win over the row.

    Raises:
      UserError: no such file or row, a file that is no config, or a value that is not allowed.
    """
    path, _, row = spec.partition(":")
    module = load_module(Path(path), "get_config")
    base = {**base_values(module, Path(path)), **(overrides or {})}
    rows = getattr(module, "ROWS", {})
    if not isinstance(rows, Mapping):
        raise UserError(f"{path}: ROWS is {type(rows).__name__}, not a dict of rows.")
    if row and row not in rows:
        raise UserError(f"{path} has no row {row!r}{did_you_mean(row, rows)}. Rows: {', '.join(rows) or 'none'}.")
    changes = row_overrides(row, rows[row], freeze(base)) if row else {}
    return freeze({**base, **changes, **(overrides or {})})


def base_values(module: types.ModuleType, path: Path) -> dict[str, Any]:
    """Dotted path -> value of what the file's `get_config()` returns.

    Raises:
      UserError: it fails, or returns no ConfigDict.
    """
    try:
        config = module.get_config()
    except Exception as error:
        raise UserError(f"{path}: get_config() failed ({_describe(error)}).") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config() returned {type(config).__name__}, not a ConfigDict.")
    return flatten(config)


def row_overrides(name: str, row: Any, base: Config) -> dict[str, Any]:
    """A row as dotted path -> value; rows that depend on the base are functions of its Config.

    Raises:
      UserError: the function fails, or the row is no mapping.
    """
    try:
        changes = row(base) if callable(row) else row
    except Exception as error:
        raise UserError(f"row {name!r}: its function failed ({_describe(error)}).") from error
    if not isinstance(changes, Mapping):
        raise UserError(f"row {name!r} is {type(changes).__name__}, not a dict of config paths and values.")
    return flatten(changes)


def _describe(error: BaseException) -> str:
    """What went wrong, shortened."""
    message = " ".join(str(error).split())
    if unknown := re.search('Key "(.*?)" does not exist', message):  # ConfigDict adds all of its content
        message = unknown[0] + did_you_mean(unknown[1], {path.rpartition(".")[2] for path in FIELDS})
    message = message if len(message) < 400 else f"{message[:400]} ..."
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def load_module(path: Path, attribute: str) -> types.ModuleType:
    """The Python file as a module; its folder's parent can be imported from, so that it finds `configs.rows`.

    Raises:
      UserError: it does not exist, does not run, or has no `attribute`.
    """
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"{path}: no such Python file.")
    spec = importlib.util.spec_from_file_location(f"_loaded_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _importable(path.absolute().parent.parent):
        try:
            spec.loader.exec_module(module)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise UserError(f"{path}: could not be loaded ({_describe(error)}).") from error
    if not hasattr(module, attribute):
        raise UserError(f"{path}: has no {attribute}.")
    return module


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def parse_override(argument: str) -> tuple[str, Any]:
    """``--config.a.b=value`` as path and value of the field's type; ``null`` unsets.

    Raises:
      UserError: there is no such field, or the value is not of its type.
    """
    path, equals, text = argument.removeprefix("--config.").partition("=")
    field = field_at(path)
    if not equals:
        raise UserError(f"{argument}: give it a value: {argument}=VALUE.")
    return path, check_value(field, _parse(field, text))


def _parse(field: Field, text: str) -> Any:
    if text == "null" and field.optional:
        return None
    choices = typing.get_args(field.base_type) if typing.get_origin(field.base_type) is typing.Literal else ()
    if field.base_type is str or (choices and isinstance(choices[0], str)):
        return text
    if typing.get_origin(field.base_type) is tuple:
        return tuple(split_specs(text))
    if field.base_type is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text  # of the wrong type, which `check_value` says


def split_specs(text: str) -> list[str]:
    """The specs of a list such as ``bleu(tokenize='char'),chrf``."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]
