"""Ctrl-C and SIGTERM end a command with one message that says what is left and how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sentemb.errors import Interrupted

NOT_BEGUN = "nothing was done yet: the same command starts again"  # while imports and models load


@contextmanager
def stoppable(left: str | Callable[[], str] = "") -> Iterator[None]:
    """Turn Ctrl-C or SIGTERM inside the block into ``Interrupted("stopped; " + left)``, after the block has cleaned up.

    Also decorates a function. ``left`` says what is left and how to go on; the innermost block's is used. A block that
    is entered after the signal came (a library swallowed the exception, as can happen in imports) raises at once.
    """
    with _handling(_Stop()):
        try:
            yield
        except (KeyboardInterrupt, _Stopped):
            message = left if isinstance(left, str) else left()
            raise Interrupted(f"stopped; {message}" if message else "stopped") from None


@contextmanager
def noted() -> Iterator[StopRequest]:
    """Note Ctrl-C and SIGTERM without stopping; a second Ctrl-C raises ``KeyboardInterrupt``."""
    request = StopRequest()
    with _handling(request):
        yield request


class StopRequest:
    """Whether the user asked to stop, for work that ends in its own time."""

    signal: str | None = None  # SIGINT or SIGTERM

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        signal.signal(signal.SIGINT, signal.default_int_handler)


class _Stopped(BaseException):
    """Not ``KeyboardInterrupt``: if that passes through an ``exec``, Python ends by the signal and not by our code."""


class _Stop:
    """Handles a signal by raising, and remembers that it came."""

    is_asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.is_asked = True
        raise _Stopped


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Both signals go to the handler. What nohup ignores stays ignored; only the main thread hears of signals."""
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    handlers = {number: signal.getsignal(number) for number in numbers}
    before = {number: outer for number, outer in handlers.items() if outer not in (None, signal.SIG_IGN)}
    if any(isinstance(outer, _Stop) and outer.is_asked for outer in before.values()):
        raise _Stopped
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, outer in before.items():
            signal.signal(number, outer)
