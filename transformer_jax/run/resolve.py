"""From a config as it was written to one that is complete: checked by every room, with what the data say."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformer_jax import checkpoint, data, tasks
from transformer_jax.checkpoint import MANIFEST
from transformer_jax.config import Config, Resolved, fields_of, value_at, with_values
from transformer_jax.data import make_source
from transformer_jax.errors import UserError
from transformer_jax.evaluation import evaluator
from transformer_jax.files import read_bytes
from transformer_jax.models import build
from transformer_jax.run.directory import ASSETS, CHECKPOINTS, DATA
from transformer_jax.tasks import task_of
from transformer_jax.training import optimizer

HASH = re.compile("@[0-9a-f]{16}$")
"""The end of a `train.start_from` that says which checkpoints it means."""


def validate(config: Config) -> None:
    """Every room's check of the config, before anything exists on disk.

    Raises:
      UserError: naming the field, what was found and what to do.
    """
    data.check(config.data)
    for room in (build, optimizer, tasks, evaluator, checkpoint):
        room.check(config)


def resolve_config(config: Config, assets: Any) -> Resolved:
    """A validated config with what the assets of its data say: sizes of vocabularies, numbers of classes.

    A run to start from is named with a hash of its checkpoints, so that the config says which parameters these were.
    """
    resolved = task_of(config).complete(config, assets)
    chosen = resolved.train.start_from
    if chosen is None or HASH.search(chosen):
        return resolved
    return Resolved(with_values(resolved, {"train.start_from": f"{chosen}@{_hash_of_checkpoints(Path(chosen))}"}))


def start_directory(chosen: str) -> Path:
    """The directory of a resolved `train.start_from`.

    Raises:
      UserError: its checkpoints are no longer those that the config means.
    """
    directory, _, expected = chosen.rpartition("@")
    if _hash_of_checkpoints(Path(directory)) != expected:
        raise UserError(f"train.start_from = {chosen!r}: the checkpoints of {directory} have changed since.")
    return Path(directory)


def _hash_of_checkpoints(directory: Path) -> str:
    """Of their manifests, which hold the hashes of all files."""
    manifests = sorted((directory / CHECKPOINTS).glob(f"[0-9]*/{MANIFEST}"))
    if not manifests:
        raise UserError(f"train.start_from = {str(directory)!r}: there is no run with checkpoints.")
    digest = hashlib.blake2b(digest_size=8)
    for manifest in manifests:
        digest.update(f"{manifest.parent.name} ".encode() + read_bytes(manifest))
    return digest.hexdigest()


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
