"""Ctrl-C and SIGTERM end a command with one message that says what is left and how to go on."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sentemb.errors import Interrupted

NOT_BEGUN = "nothing was done yet: the same command starts again"  # while imports and models load


@contextmanager
def stoppable(left: str | Callable[[], str]) -> Iterator[None]:
    """Turn either signal into ``Interrupted("stopped; " + left)``, after everything inside has cleaned up.

    Also decorates a verb. Where one is inside another, the inner one speaks.

    Args:
        left: what is left and how to go on; a function is asked then.

    Raises:
        Interrupted: the user stopped the work.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; {left if isinstance(left, str) else left()}") from None
    finally:
        signal.signal(signal.SIGTERM, before)
