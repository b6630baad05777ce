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
def stoppable(left: str | Callable[[], str]) -> Iterator[None]:
    """Turn either signal into ``Interrupted("stopped; " + left)``, after everything inside has cleaned up.

    Also decorates a verb. Where one is inside another, the inner one speaks; it does not begin where the outer one was
    asked to stop, but the exception went down in a library's callback, as can happen while modules are imported.

    Args:
        left: what is left and how to go on; a function is asked then.

    Raises:
        Interrupted: the user stopped the work.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if any(isinstance(outer, _Stop) and outer.is_asked for outer in before.values()):
        raise _Stopped
    stop = _Stop()
    try:
        for number, outer in before.items():
            if outer not in (None, signal.SIG_IGN):  # what nohup ignores stays ignored
                signal.signal(number, stop)
        yield
    except (KeyboardInterrupt, _Stopped):
        raise Interrupted(f"stopped; {left if isinstance(left, str) else left()}") from None
    finally:
        for number, outer in before.items():
            if outer not in (None, signal.SIG_IGN):
                signal.signal(number, outer)


class _Stopped(BaseException):
    """Not ``KeyboardInterrupt``: where that passes through an ``exec``, Python ends by the signal, not by our code."""


class _Stop:
    """Handles a signal, and remembers it."""

    is_asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.is_asked = True
        raise _Stopped


class StopRequest:
    """Whether the user asked to stop, for work that ends in its own time."""

    signal: str | None = None  # SIGINT or SIGTERM

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def noted() -> Iterator[StopRequest]:
    """Note Ctrl-C and SIGTERM without stopping; a second Ctrl-C raises ``KeyboardInterrupt``. Main thread only."""
    request = StopRequest()
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in before:
            signal.signal(number, request)
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
