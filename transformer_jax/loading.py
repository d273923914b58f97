"""Config files, rows and command-line overrides: from `FILE[:ROW]` and `--config.a.b=value` to a Config."""

import ast
import contextlib
import dataclasses
import importlib.util
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from transformer_jax.config import (
    Config,
    Field,
    chosen_schema,
    every_field,
    field_at,
    fields_of,
    flatten,
    freeze,
    is_read,
    to_dict,
    value_at,
)
from transformer_jax.errors import UserError
from transformer_jax.registry import did_you_mean
from transformer_jax.run.identity import read_config

Overrides = Mapping[str, Any]
ROWS = Path(__file__).parent.parent / "configs" / "rows.py"
"""The rows of a config that is that of a run."""


def load_config(spec: str, overrides: Overrides | None = None) -> Config:
    """The Config of ``FILE`` or ``FILE:ROW`` with `overrides` (dotted path -> value); see `put_on`.

    FILE may be the directory of a run: then it is the run's config, with the rows of `configs/rows.py`.

    Raises:
      UserError: no such file or row, a file that is no config, or a value that is not allowed.
    """
    path, _, row = spec.partition(":")
    base, rows = load_base(Path(path))
    if not isinstance(rows, Mapping):
        raise UserError(f"{path}: ROWS is {type(rows).__name__}, not a dict of rows.")
    if row and row not in rows:
        raise UserError(f"{path} has no row {row!r}{did_you_mean(row, rows)}. Rows: {', '.join(rows) or 'none'}.")
    if not row:
        return freeze({**base, **(overrides or {})})
    return put_on(base, overrides or {}, {row: rows[row]})[row].config


@dataclasses.dataclass(frozen=True)
class Variant:
    """A row on its base: the resolved overrides, and the config with seed 0."""

    name: str
    overrides: Overrides
    config: Config


def put_on(base: Overrides, overrides: Overrides, rows: Mapping[str, Any]) -> dict[str, Variant]:
    """The rows on `base`, all as dotted paths -> values. `overrides` change the base, and what a row sets stands.

    Raises:
      UserError: a row or value that is not allowed; an override of a field that every row sets, so that it would change
        nothing; overrides by which a field that a row sets is no longer read.
    """
    made = _put_on({**base, **overrides}, rows)
    for path, value in overrides.items():
        setting = [name for name, v in made.items() if path in v.overrides and value_at(v.config, path) != value]
        rest = {other: kept for other, kept in overrides.items() if other != path}
        if len(setting) == len(rows) and _put_on_if_allowed({**base, **rest}, rows) == made:
            stands = f"row {setting[0]!r} sets" if len(rows) == 1 else "every row sets"
            raise UserError(
                f"{path} = {value!r} would change nothing: {stands} {path}, and what a row sets stands. Leave the "
                "override out, or the row."
            )
    before = _put_on_if_allowed(base, rows) if overrides else made
    for name, variant in made.items():
        fields = fields_of(variant.config)
        for field in [fields[path] for path in variant.overrides]:
            if name in before and is_read(field, before[name].config) and not is_read(field, variant.config):
                raise UserError(
                    f"row {name!r} sets {field.path}, which is not read with {', '.join(overrides)} as given: the row "
                    "would be undone. Leave the override out, or the row."
                )
    return made


def _put_on(base: Overrides, rows: Mapping[str, Any]) -> dict[str, Variant]:
    config = freeze(base)
    made = {}
    for name, row in rows.items():
        changes = row_overrides(name, row, config)
        with of_row(name):
            made[name] = Variant(name, changes, freeze({**_in_family_of(base, changes), **changes}))
    return made


def _in_family_of(base: Overrides, changes: Overrides) -> Overrides:
    """The base; where a row chooses another family, what the base has chosen of the fields that both have.

    What it left as its family has it by default the other has as it is by its own.
    """
    ours, theirs = chosen_schema(base), chosen_schema({**base, **changes})
    if ours == theirs:
        return base
    own = {path for path in base if path.startswith("model.") and base[path] == ours[path].default}
    return {path: value for path, value in base.items() if path in theirs and path not in own}


@contextlib.contextmanager
def of_row(name: str) -> Iterator[None]:
    """Says of which row it is that something is refused."""
    try:
        yield
    except UserError as error:
        raise UserError(f"row {name!r}: {error}") from error


def _put_on_if_allowed(base: Overrides, rows: Mapping[str, Any]) -> dict[str, Variant]:
    """Nothing where the base is no config without some override."""
    try:
        return _put_on(base, rows)
    except UserError:
        return {}


def load_base(path: Path) -> tuple[dict[str, Any], Any]:
    """Dotted path -> value of a config file, or of the run in a directory; and the rows that belong to it.

    Raises:
      UserError: there is no such file or run, it fails, or it gives no config.
    """
    if path.is_dir():
        return _values_of_run(path), load_module(ROWS, "ROWS").ROWS
    module = load_module(path, "get_config")
    return _values_of_file(module, path), getattr(module, "ROWS", {})


def _values_of_run(directory: Path) -> dict[str, Any]:
    """What is derived from the number of heads is unset again, so that a row may change it."""
    config = read_config(directory)
    values = flatten(to_dict(config))
    model = config.model
    return values | {
        f"model.{name}": None for name in ("d_k", "d_v") if getattr(model, name) * model.num_heads == model.d_model
    }


def _values_of_file(module: types.ModuleType, path: Path) -> dict[str, Any]:
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
    except AttributeError as error:
        if error.obj is not base.model:
            raise UserError(f"row {name!r}: its function failed ({_describe(error)}).") from error
        raise UserError(
            f"row {name!r} asks for model.{error.name}, which model.family = {base.model.family!r} does not have."
        ) from error
    except Exception as error:
        raise UserError(f"row {name!r}: its function failed ({_describe(error)}).") from error
    if not isinstance(changes, Mapping):
        raise UserError(f"row {name!r} is {type(changes).__name__}, not a dict of config paths and values.")
    return flatten(changes)


def _describe(error: BaseException) -> str:
    """What went wrong, shortened."""
    message = " ".join(str(error).split())
    if unknown := re.search('Key "(.*?)" does not exist', message):  # ConfigDict adds all of its content
        message = unknown[0] + did_you_mean(unknown[1], {path.rpartition(".")[2] for path in every_field()})
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
    """``--config.a.b=value`` as path and value, read as the field's type; ``null`` unsets.

    Whether the config has that field, and allows the value, is seen where the value is put on it.

    Raises:
      UserError: no config has such a field.
    """
    path, equals, text = argument.removeprefix("--config.").partition("=")
    field = field_at(path, every_field())
    if not equals:
        raise UserError(f"{argument}: give it a value: {argument}=VALUE.")
    return path, _parse(field, text)


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
