"""Ctrl-C and SIGTERM: one error, wherever they come."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from sentemb.errors import Interrupted
from sentemb.stopping import stoppable

NUMBERS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_inner_one_speaks_and_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="stopped; inner"), stoppable("outer"), stoppable(lambda: "inner"):
        signal.raise_signal(number)

    @stoppable("outer")
    def after_the_inner_one() -> None:
        with stoppable("inner"):
            pass
        signal.raise_signal(number)

    with pytest.raises(Interrupted, match="stopped; outer"):
        after_the_inner_one()
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", NUMBERS)
def test_work_does_not_begin_where_a_library_kept_the_exception(number: signal.Signals) -> None:
    begun: list[int] = []

    @stoppable("outer")
    def verb(work: Callable[[int], None]) -> None:
        with suppress(BaseException):
            signal.raise_signal(number)
        with stoppable("inner"):
            work(1)

    with pytest.raises(Interrupted, match="stopped; outer"):
        verb(begun.append)
    assert begun == []


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable("outer"):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_work_without_signals() -> None:
    def work() -> None:
        with stoppable("other thread"):
            done.append(1)

    done: list[int] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [1]
