"""The one exception that users are meant to see."""

from typing import Any

MOST_CHARACTERS, AT_THE_START, AT_THE_END = 1200, 600, 200


class UserError(ValueError):
    """Something the user can put right: one or two sentences that name the field or file, what was found, what to do.

    The command line prints the sentence and exits with status 2, without a traceback.
    """

    def __init__(self, sentence: str):
        super().__init__(shortened(sentence))


def shown(value: Any) -> str:
    """The value as Python writes it; of what it cannot write, such as a number of 5,000 digits, the type."""
    try:
        return repr(value)
    except (ValueError, RecursionError):
        return f"a huge {type(value).__name__}"


def shortened(text: str) -> str:
    """The text for a terminal: the middle of a long one is left out, and signs that would steer it are spelt out.

    An argument or a file that is quoted can be of any size, and from anybody.
    """
    if len(text) > MOST_CHARACTERS:
        left_out = len(text) - AT_THE_START - AT_THE_END
        text = f"{text[:AT_THE_START]} [... {left_out:,} characters ...] {text[-AT_THE_END:]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
