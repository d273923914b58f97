"""What is looked at before TFDS reads a prepared set, which may come from somebody else.

TFDS imports whatever module features.json names, opens the files that dataset_info.json names wherever they lie, and
waits for ever for a pipe.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from transformer_jax.checked_json import read_json
from transformer_jax.errors import UserError
from transformer_jax.files import find_irregular

FEATURES, INFO = "features.json", "dataset_info.json"
CLASS_KEYS = ("type", "pythonClassName", "python_class_name")  # under which features.json names a class
MOST_SHARDS = 100_000


def check_prepared(tfds: ModuleType, directory: Path) -> None:
    """Looks at a prepared set, or at all prepared versions of a set.

    Raises:
      UserError: a feature in it is not one of TFDS's own, or there is something else than files in it.
    """
    paths = sorted(directory.rglob("*"))
    if found := find_irregular(paths):
        raise UserError(f"{found}; a prepared TFDS set holds files alone.")
    for path in paths:
        if path.name in (FEATURES, INFO):
            content = read_json(path)
        if path.name == FEATURES:
            _check_classes(tfds, path, content)


def _check_classes(tfds: ModuleType, path: Path, content: Any) -> None:
    own = _own_classes(tfds)
    try:
        for name in _class_names(content):
            if name not in own:
                raise UserError(
                    f"{path}: names the feature {name[:200]!r}, which TFDS would import; only features of TFDS itself "
                    "are read."
                )
    except RecursionError as error:
        raise UserError(f"{path}: holds no features (nested too deep).") from error


def _own_classes(tfds: ModuleType) -> set[str]:
    """The names by which features.json may mean a feature of TFDS; all are imported already."""
    base = tfds.features.FeatureConnector
    classes = [c for c in vars(tfds.features).values() if isinstance(c, type) and issubclass(c, base) and c is not base]
    aliases = {alias for c in classes for alias in vars(c).get("ALIASES", ())}
    return aliases | {f"{c.__module__}.{c.__name__}" for c in classes}


def _class_names(content: Any) -> Iterator[str]:
    """Every name of a class, at any depth, also in JSON that is the text of a field."""
    if isinstance(content, dict):
        yield from (content[key] for key in CLASS_KEYS if isinstance(content.get(key), str))
    if isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _class_names(value)
    if isinstance(content, str):
        try:
            inner = json.loads(content)
        except ValueError:
            return
        yield from _class_names(inner)


def check_shards(builder: Any) -> None:
    """UserError if the files of a split lie outside of the directory of the set."""
    directory = Path(builder.data_dir)
    for name, split in builder.info.splits.items():
        many = split.num_shards > MOST_SHARDS
        if many or any(Path(path).parent != directory or Path(path).name == ".." for path in split.filepaths):
            raise UserError(f"{directory / INFO}: the files of its split {name!r} do not lie beside it.")
