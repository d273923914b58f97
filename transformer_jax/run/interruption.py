"""Asking a program to stop: it saves its state first, and the same command resumes it."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

STOPPED, ABORTED = 75, 130
"""Exit status of a process that was asked to stop and saved its state (EX_TEMPFAIL), and of one stopped at once."""

_listening: list[list[int]] = []  # what `stop_requested` has given out


class Interruption(Exception):  # noqa: N818 - nothing went wrong
    """The run was asked to stop; its state is saved."""

    def __init__(self, step: int | None):
        super().__init__("stopped" if step is None else f"stopped and saved at step {step}")
        self.step = step


@contextlib.contextmanager
def stop_requested(signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM)) -> Iterator[list[int]]:
    """A list that fills when one of the signals asks to stop; the second SIGINT does what it did before."""
    received: list[int] = []
    _listening.append(received)

    def handle(number: int, frame: Any) -> None:
        if received and number == signal.SIGINT:
            before = previous[number]
            if callable(before):
                before(number, frame)
            raise KeyboardInterrupt
        received.append(number)

    previous: dict[int, Any] = {}
    with contextlib.suppress(ValueError):  # not the main thread: whoever started it handles signals
        for asked in signals:
            previous[asked] = signal.signal(asked, handle)
    try:
        yield received
    finally:
        _listening[:] = [listener for listener in _listening if listener is not received]
        for number, handler in previous.items():
            signal.signal(number, handler)


def request_stop() -> bool:
    """Asks to stop as SIGTERM does, from any thread; whether anybody listens."""
    for received in _listening:
        received.append(signal.SIGTERM)
    return bool(_listening)


def abort_on_interrupt() -> bool:
    """From now on SIGINT ends the process at once, with a sentence; whether it did something else before.

    Python would raise KeyboardInterrupt instead, wherever it happens to be: in the middle of an import, which may take
    it for a module that is not there, or in a callback, from which no exception escapes.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False  # ignored, as under nohup, or ours already
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, lambda number, frame: abort())
        return True
    return False


def take_interrupts() -> None:
    """Ends that SIGINT is held back, as launch.sh does while Python starts; one that came meanwhile is dealt with."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextlib.contextmanager
def abort_on_interrupts() -> Iterator[None]:
    """What `abort_on_interrupt` does, as long as this lasts."""
    changed = abort_on_interrupt()
    try:
        yield
    finally:
        if changed:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def abort() -> NoReturn:
    """Ends the process, with a sentence.

    It does not wait for a save that is under way: what that leaves is cleared away later.
    """
    with contextlib.suppress(Exception):  # a stream that is closed, or that this interrupts in the middle of a word
        sys.stdout.flush()
        sentence = "stopped at once. What was saved before is intact; the same command resumes from there."
        print(f"\n{sentence}", file=sys.stderr, flush=True)
    os._exit(ABORTED)
