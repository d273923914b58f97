"""A model of any family so small that its forward pass runs without being compiled, and batches for it.

Compiling is what costs time here. Under `jax.disable_jit()` a forward pass takes a quarter of a second for any variant,
because the operations, once compiled, are shared by all of them.
"""

import functools
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import inside
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.config import FAMILIES, FIELDS, Config, Field, fields_of, freeze, schema
from transformer_jax.errors import UserError
from transformer_jax.models import build
from transformer_jax.models.build import build_model
from transformer_jax.models.feed_forward import FEED_FORWARDS
from transformer_jax.models.positions import POSITIONS, positions_of
from transformer_jax.models.projections import PROJECTIONS
from transformer_jax.models.scales import SCALES
from transformer_jax.models.scores import SCORES
from transformer_jax.models.vision import MIXINGS
from transformer_jax.models.weights import WEIGHTS
from transformer_jax.parallel.rules import rule_of
from transformer_jax.tasks import TASKS, task_of
from transformer_jax.tasks.made_up import made_up_sentences
from transformer_jax.training.state import by_path

SIZES = {
    "model.vocab_size": 11,
    "model.d_model": 8,
    "model.num_heads": 2,
    "model.d_ff": 12,
    "model.num_classes": 11,
    "model.image_height": 8,
    "model.image_width": 4,
    "model.image_channels": 2,
    "model.patch_size": 2,
    "model.pooling": "mean",
    "data.max_length": 16,
}
"""Of each the fields that it has."""
TABLES: dict[str, Mapping[str, Any]] = {
    "model.positions": POSITIONS,
    "model.attention.score": SCORES,
    "model.attention.scale": SCALES,
    "model.attention.weights": WEIGHTS,
    "model.attention.projections": PROJECTIONS,
    "model.feed_forward": FEED_FORWARDS,
    "model.mixing": MIXINGS,
}
ALONE = ("uniform", "proportional", "convolution", "fixed")
"""Entries that make those of other slots idle."""
WRITING = [family for family, module in build.MODELS.items() if hasattr(module, "step")]
"""Families that read and write tokens."""

LONG = ("recurrent",)
"""Families of which `./launch.sh test -m long` alone asks what is the same for every member."""


def every_family(names: Sequence[str] = tuple(FAMILIES)) -> list[Any]:
    """For a parametrised test that is long where it says nothing new."""
    return [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in names]


def of_family(family: str) -> dict[str, str]:
    """What makes a config one of that family; nothing for the paper's."""
    task = next(name for name, task in TASKS.items() if family in task.families)
    chosen = {"model.family": family, "task.name": task}
    return {path: name for path, name in chosen.items() if name != FIELDS[path].default}


def config(overrides: Mapping[str, Any] | None = None) -> Config:
    """Of the family that the overrides name, else the paper's."""
    family = of_family((overrides or {}).get("model.family", FIELDS["model.family"].default))
    fields = fields_of(freeze(family))
    sizes = {path: size for path, size in SIZES.items() if path in fields}
    layers = {path: 1 + ("encoder" not in path) for path in fields if path.endswith("_layers")}
    return freeze({**sizes, **family, **layers, **(overrides or {})})


def model_fields(family: str) -> Mapping[str, Field]:
    """Path -> field of `model.*` of a family."""
    fields = schema(family, of_family(family).get("task.name", FIELDS["task.name"].default))
    return {path: field for path, field in fields.items() if path.startswith("model.")}


def choices(path: str, fields: Mapping[str, Field] = FIELDS) -> list[Any]:
    """All values of a slot or of a field with named choices, the paper's first; [] for other fields."""
    field = fields[path]
    name = path.rpartition(".")[2]
    if path == "model.positions":
        return list(positions_of(FAMILIES[fields["model.family"].default]()))
    for slot, table in TABLES.items():
        if path == slot or (path.startswith("model.attention.") and slot == f"model.attention.{name}"):
            return list(table)
    if typing.get_origin(field.base_type) is typing.Literal:
        return list(typing.get_args(field.base_type))
    return [False, True] if field.base_type is bool else []


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every parameter, without making any."""
    return {
        jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(_abstract(config))
    }


@functools.cache
def _abstract(config: Config) -> Any:
    """Whatever variant a test makes: one rule of `parallel` says of each parameter how its dimensions are split."""
    made = jax.eval_shape(functools.partial(inside.init, config), jax.random.key(0))
    for path, leaf in by_path(made).items():
        axes = rule_of(path)[1]
        assert leaf.ndim - len(axes) == ("layers" in path.split(".")), f"{path} {leaf.shape} is split as {axes}"
    return made


def params(config: Config, seed: int = 0) -> Any:
    """Random values for every parameter, biases and scales too: nothing is hidden behind a zero."""
    rng = np.random.default_rng(seed)

    def values(path: Any, leaf: Any) -> jax.Array:
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(centre + 0.4 * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(values, _abstract(config))


def sentences(lengths: list[int], width: int, seed: int = 0, vocab_size: int = 11) -> np.ndarray:
    """int32[B, width]: random words, EOS, padding."""
    return made_up_sentences(lengths, width, vocab_size, seed)


def batch_of(config: Config, seed: int = 0, rows: int = 4) -> dict[str, np.ndarray]:
    """Examples of the config's task: every row has another number of tokens than its neighbours."""
    with jax.ensure_compile_time_eval():
        return jax.tree.map(np.asarray, task_of(config).example_batch(config, rows, seed))


def batch(seed: int = 0, rows: int = 4) -> dict[str, np.ndarray]:
    """Sources of 1 to 6 tokens and targets of 1 to 5."""
    return batch_of(config(), seed, rows)


def logits(config: Config, params: Any, batch: Mapping[str, Any], key: jax.Array | None = None) -> np.ndarray:
    """Teacher-forced logits, not compiled."""
    with jax.disable_jit():
        return np.asarray(build_model(config.model).apply(params, jax.tree.map(jnp.asarray, dict(batch)), key))


def totals(config: Config, params: Any, batch: Mapping[str, Any], key: jax.Array | None = None) -> dict[str, Any]:
    """Name -> sum and count over the batch of all that the task measures; for jit and grad."""
    measured = task_of(config).measure(config, build_model(config.model, config.train.remat), params, batch, key)
    return {name: (jnp.sum(sums), jnp.sum(counts)) for name, (sums, counts) in measured.items()}


def accepted(config: Config) -> bool:
    try:
        build.check(config)
    except UserError:
        return False
    return True


def covering(families: Sequence[str] = tuple(FAMILIES)) -> list[dict[str, Any]]:
    """A few overrides of each family that together hold every entry of every slot, each where it acts."""
    return [row for family in families for row in _covering(family)]


def _covering(family: str) -> list[dict[str, Any]]:
    fields = model_fields(family)
    paths = [path for path in fields if choices(path, fields) and not _left_out(path)]
    left = {path: [c for c in choices(path, fields) if c != fields[path].default] for path in paths}
    rows = []
    for path in paths:
        for entry in [c for c in left[path] if c in ALONE]:
            rows.append({**of_family(family), path: entry})
            left[path].remove(entry)
    while any(left.values()):
        row: dict[str, Any] = {**of_family(family), **_companion(family, left)}
        for path, entries in left.items():
            entry = next((e for e in entries if accepted(config({**row, path: e}))), None)
            if entry is not None:
                row[path] = entry
                entries.remove(entry)
        assert len(row) > len(of_family(family)), f"no config accepts {left}"
        rows.append(row)
    return rows


def _companion(family: str, left: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """A choice without which none that is left is accepted; mostly nothing."""
    base = of_family(family)
    tried = [{path: entry} for path, entries in left.items() for entry in entries]
    if any(accepted(config({**base, **one})) for one in tried):
        return {}
    fields = model_fields(family)
    others = ({path: choice} for path in left for choice in choices(path, fields))
    return next((o for o in others if any(accepted(config({**base, **o, **one})) for one in tried)), {})


def _left_out(path: str) -> bool:
    one_place = path.startswith("model.attention.") and path.count(".") == 3
    return one_place or path in ("model.dtype", "model.decoder_mask")


def name(overrides: Mapping[str, Any]) -> str:
    """For the names of tests."""
    return ",".join(f"{path.rpartition('.')[2]}={value}" for path, value in overrides.items())
