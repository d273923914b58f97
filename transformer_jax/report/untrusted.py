"""JSON that somebody else wrote: read without trust, and only texts that can be printed are passed on."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer_jax.files import read_bytes

# Signs that steer a terminal, or that no HTML, XML or UTF-8 can hold.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class UnreadableError(Exception):
    """A file that is not what it should be; the message names it."""


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds; UnreadableError if there is none."""
    try:
        data = printable(json.loads(read_bytes(path).decode()))
    except OSError as error:
        raise UnreadableError(f"{path.name}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UnreadableError(f"{path.name}: cannot be read ({error})") from None
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{path.name}: no valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise UnreadableError(f"{path.name}: expected a JSON object, found {type(data).__name__}")
    return data


def printable(content: Any) -> Any:
    """The content with a replacement character for each sign in its texts that cannot be printed."""
    if isinstance(content, dict):
        return {printable(name): printable(value) for name, value in content.items()}
    if isinstance(content, list):
        return [printable(value) for value in content]
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", content) if isinstance(content, str) else content


def lines_left_out(file: str, damaged: Sequence[int]) -> str:
    """What could not be read of a file of lines; "" where all could."""
    return f"{file}: unreadable lines left out: {', '.join(map(str, damaged))}" if damaged else ""


def text_of(data: Mapping[str, Any], name: str) -> str:
    """A field as text; "" where there is none."""
    value = data.get(name)
    return "" if value is None else str(value)
