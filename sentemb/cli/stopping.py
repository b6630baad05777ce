"""Ctrl-C and SIGTERM end a command with one message that says what is left and how to go on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sentemb.errors import Interrupted


@contextmanager
def stoppable(left: str) -> Iterator[None]:
    """Turn either signal into ``Interrupted("stopped; " + left)``, after everything inside has cleaned up.

    Raises:
        Interrupted: the user stopped the work.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; {left}") from None
    finally:
        signal.signal(signal.SIGTERM, before)
