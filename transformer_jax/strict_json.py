"""The one writer of JSON: what it writes is JSON to every program, not to Python's alone."""

import json
import math
from typing import Any


def to_json(
    content: Any, *, indent: int | None = None, sort_keys: bool = False, separators: tuple[str, str] | None = None
) -> str:
    """The content as JSON; a number that is not finite, for which JSON has no word, becomes null: not measured."""

    def write(tree: Any) -> str:
        return json.dumps(tree, allow_nan=False, indent=indent, sort_keys=sort_keys, separators=separators)

    try:
        return write(content)
    except ValueError:
        return write(only_finite(content))


def only_finite(content: Any) -> Any:
    """The content with None in place of every number that is not finite, and lists in place of tuples."""
    if isinstance(content, dict):
        return {name: only_finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [only_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
