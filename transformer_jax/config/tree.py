"""The tree of all knobs: from a config file to the frozen Config, strictly.

A config file returns the locked ConfigDict of `default_config()`, changed. Rows and command-line overrides act on that;
`freeze` then makes the frozen dataclass `Config` out of it.
"""

import dataclasses
import functools
import hashlib
import json
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ml_collections import ConfigDict, config_dict

from transformer_jax.config.families import FAMILIES
from transformer_jax.config.model import ModelConfig, TransformerConfig, attention_at
from transformer_jax.config.rooms import (
    DataConfig,
    DecodeConfig,
    EvaluateConfig,
    OptimizerConfig,
    ParallelConfig,
    TrainConfig,
)
from transformer_jax.config.schema import Field, check_value, knob
from transformer_jax.config.tasks import TASK_CONFIGS, TaskConfig, TranslationConfig
from transformer_jax.errors import UserError
from transformer_jax.registry import did_you_mean
from transformer_jax.strict_json import to_json


@dataclasses.dataclass(frozen=True)
class Config:
    """One run."""

    seed: int = knob(0, "of initial values, dropout and the order of the data", low=0, high=2**31 - 1)
    model: ModelConfig = dataclasses.field(default_factory=TransformerConfig)
    task: TaskConfig = dataclasses.field(default_factory=TranslationConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    parallel: ParallelConfig = dataclasses.field(default_factory=ParallelConfig)
    decode: DecodeConfig = dataclasses.field(default_factory=DecodeConfig)
    evaluate: EvaluateConfig = dataclasses.field(default_factory=EvaluateConfig)


Resolved = typing.NewType("Resolved", Config)
"""A config that is validated, and completed with what the data say: sizes of vocabularies, numbers of classes."""


# --- The schema as a table ---


@functools.cache
def schema(family: str = "transformer", task: str = "translation") -> Mapping[str, Field]:
    """Path -> field of every leaf of the tree: `model.*` depends on the family, `task.*` on the task."""
    chosen = {"model": FAMILIES[family], "task": TASK_CONFIGS[task]}
    return types.MappingProxyType({field.path: field for field in _fields_of(Config, "", chosen)})


def _fields_of(cls: type, prefix: str, chosen: Mapping[str, type] = types.MappingProxyType({})) -> Iterator[Field]:
    for field in dataclasses.fields(cls):
        path, kind = prefix + field.name, chosen.get(field.name, field.type)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from _fields_of(kind, path + ".")
        else:
            yield Field(path, field.type, field.default, field.metadata["knob"])


FIELDS = schema()
"""The fields of the paper's model."""


@functools.cache
def every_field() -> Mapping[str, Field]:
    """The fields of all families and tasks; where several have one of a path, that of the first."""
    schemas = [schema(family, task) for family in FAMILIES for task in TASK_CONFIGS]
    return types.MappingProxyType({path: field for fields in reversed(schemas) for path, field in fields.items()})


def fields_of(config: "Config") -> Mapping[str, Field]:
    """The fields of a config."""
    return schema(config.model.family, config.task.name)


def chosen_schema(values: Mapping[str, Any]) -> Mapping[str, Field]:
    """The fields of a config with these values (dotted path -> value), which may name its family and task.

    Raises:
      UserError: there is no such family or task.
    """
    names = {}
    for path, table in (("model.family", FAMILIES), ("task.name", TASK_CONFIGS)):
        name = values.get(path, next(iter(table)))
        if not isinstance(name, str) or name not in table:
            near = did_you_mean(str(name), table)
            raise UserError(f"{path} = {name!r} is not allowed{near}. Allowed: {', '.join(table)}.")
        names[path] = name
    return schema(names["model.family"], names["task.name"])


# --- From the file's ConfigDict to the frozen Config ---


def default_config(family: str = "transformer", task: str = "translation") -> ConfigDict:
    """The defaults, for the paper's base model its own, as a locked ConfigDict.

    It refuses unknown keys and wrong types at once.
    """
    config = ConfigDict()
    for field in schema(family, task).values():
        *parents, name = field.path.split(".")
        node = config
        for parent in parents:
            if parent not in node:
                node[parent] = ConfigDict()
            node = node[parent]
        node[name] = config_dict.placeholder(_plain_type(field)) if field.default is None else field.default
    return config.lock()


def _plain_type(field: Field) -> type:
    choices = typing.get_args(field.base_type) if typing.get_origin(field.base_type) is Literal else ()
    return type(choices[0]) if choices else field.base_type


def flatten(tree: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted path -> leaf."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, (Mapping, ConfigDict)):
            flat.update(flatten(value, path + "."))
        else:
            flat[path] = value
    return flat


def freeze(tree: Mapping[str, Any] | ConfigDict) -> Config:
    """The frozen Config of a complete or partial tree (what is missing is the default); d_k and d_v are derived.

    Raises:
      UserError: unknown path, wrong type, out of range, or a width that the heads do not divide.
    """
    values = flatten(tree)
    fields = chosen_schema(values)
    base = _base(fields["model.family"].default, fields["task.name"].default)
    return derive(replace(base, values))


def _base(family: str, task: str) -> Config:
    """The defaults of a family and a task."""
    return Config(model=FAMILIES[family](), task=TASK_CONFIGS[task]())


def derive(config: Config) -> Config:
    """Fills d_k and d_v where they are unset (Section 3.2.2: d_k = d_v = d_model / h)."""
    model = config.model
    if model.d_k is not None and model.d_v is not None:
        return config
    if model.d_model % model.num_heads:
        raise UserError(
            f"model.num_heads = {model.num_heads} does not divide model.d_model = {model.d_model}: "
            "choose another number of heads or set model.d_k and model.d_v."
        )
    width = model.d_model // model.num_heads
    return with_values(config, {"model.d_k": model.d_k or width, "model.d_v": model.d_v or width})


def field_at(path: str, fields: Mapping[str, Field] = FIELDS) -> Field:
    """The field of that dotted path; UserError with a suggestion if there is none."""
    if path not in fields:
        raise UserError(f"config.{path} does not exist{did_you_mean(path, fields)}.")
    return fields[path]


def replace(config: Config, overrides: Mapping[str, Any]) -> Config:
    """`config` with the dotted paths of `overrides` set, each checked against the schema."""
    fields = fields_of(config)
    return with_values(config, {path: check_value(field_at(path, fields), value) for path, value in overrides.items()})


def with_values(node: Any, values: Mapping[str, Any]) -> Any:
    """Like `replace`, unchecked: the values may be tracers, so that a number can differ from lane to lane."""
    here: dict[str, Any] = {}
    below: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        head, _, rest = path.partition(".")
        if rest:
            below.setdefault(head, {})[rest] = value
        else:
            here[head] = value
    here.update({head: with_values(getattr(node, head), rest) for head, rest in below.items()})
    return dataclasses.replace(node, **here)


def value_at(config: Any, path: str) -> Any:
    """The leaf at a dotted path."""
    return functools.reduce(getattr, path.split("."), config)


def to_dict(config: Config) -> dict[str, Any]:
    """The nested dict that `config.json` holds."""
    return json.loads(to_json(dataclasses.asdict(config)))


@functools.cache
def _defaults(family: str, task: str) -> dict[str, Any]:
    return flatten(to_dict(_base(family, task)))


def config_hash(config: Config) -> str:
    """SHA-256 of what differs from the defaults, as canonical JSON: a field that is new here changes no older hash."""
    defaults = _defaults(config.model.family, config.task.name)
    values = flatten(to_dict(config))
    chosen = {path: value for path, value in values.items() if value != defaults[path]}
    chosen |= {path: values[path] for path in ("model.family", "task.name") if values[path] != FIELDS[path].default}
    return hashlib.sha256(to_json(chosen, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def not_read(config: Config) -> list[str]:
    """Paths of the fields that this config does not read: changing them changes nothing."""
    return [path for path, field in fields_of(config).items() if not is_read(field, config)]


def is_read(field: Field, config: Config) -> bool:
    """Whether a change of `field` in this config can change anything."""
    ask = field.knob.read_if or (lambda _: True)
    parent, _, name = field.path.rpartition(".")
    if parent == "model.attention":
        return any(ask(attention_at(config.model, place)) for place in _heirs(config.model, name))
    if parent.startswith("model.attention."):
        return ask(attention_at(config.model, parent.removeprefix("model.attention.")))
    return ask(config)


def _heirs(model: ModelConfig, name: str) -> list[str]:
    """The places of attention that take a slot from `model.attention`."""
    own = [getattr(model.attention, place, None) for place in model.places]
    return [
        place for place, slots in zip(model.places, own, strict=True) if slots is None or getattr(slots, name) is None
    ]
