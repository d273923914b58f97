"""From a config as it was written to one that is complete: checked by every room, with what the data say."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformer_jax import checkpoint, data, tasks
from transformer_jax.config import Config, Resolved, fields_of, value_at, with_values
from transformer_jax.data import make_source
from transformer_jax.evaluation import evaluator
from transformer_jax.models import build
from transformer_jax.run.directory import ASSETS, DATA
from transformer_jax.tasks import task_of
from transformer_jax.training import optimizer


def validate(config: Config) -> None:
    """Every room's check of the config, before anything exists on disk.

    Raises:
      UserError: naming the field, what was found and what to do.
    """
    data.check(config.data)
    for room in (build, optimizer, tasks, evaluator, checkpoint):
        room.check(config)


def resolve_config(config: Config, assets: Any) -> Resolved:
    """A validated config with what the assets of its data say: sizes of vocabularies, numbers of classes."""
    return task_of(config).complete(config, assets)


def load_assets(directory: Path, config: Config) -> Any:
    """The assets saved with a run; None if it has not got that far."""
    return make_source(config.data).load_assets(directory / ASSETS) if (directory / DATA).is_file() else None


def traceable(config: Config) -> tuple[str, ...]:
    """The fields that runs of one program may differ in, beside the seed."""
    return tuple(path for path, field in fields_of(config).items() if field.knob.traced)


def differing(configs: Sequence[Config]) -> tuple[str, ...]:
    """The traceable fields in which the configs differ."""
    return tuple(p for p in traceable(configs[0]) if len({value_at(config, p) for config in configs}) > 1)


def common_config(config: Config) -> Config:
    """Equal for two configs exactly where one program can run both: seed and traceable fields are left out."""
    return with_values(config, dict.fromkeys(traceable(config), 0.0) | {"seed": 0})
