"""Asking a program to stop: it saves its state first, and the same command goes on later."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any


class Interruption(Exception):  # noqa: N818 - nothing went wrong
    """The run was asked to stop; its state is saved."""

    def __init__(self, step: int | None):
        super().__init__("stopped" if step is None else f"stopped and saved at step {step}")
        self.step = step


@contextlib.contextmanager
def stop_requested() -> Iterator[list[int]]:
    """A list that fills when SIGINT or SIGTERM asks to stop; the second SIGINT stops at once."""
    received: list[int] = []

    def handle(number: int, _: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    try:
        previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever started it handles signals
        previous = {}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
