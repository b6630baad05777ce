"""Progress on a terminal, in a notebook, in a log; and what the library logs."""

from __future__ import annotations

import io
import logging
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from sentemb import progress
from sentemb.progress import Progress, show_log


@pytest.fixture(autouse=True)
def not_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SENTEMB_QUIET", raising=False)  # a test of the command may have set it in this process
    monkeypatch.delenv("RANK", raising=False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress("encoding", total=10, unit="texts") as bar:
        bar.advance(10, loss="0.25")
        bar.say("half way")
    shown = stream.getvalue()
    assert "encoding" in shown
    assert "10/10 texts" in shown
    assert "loss 0.25" in shown
    assert "half way" in shown


def test_plain_lines_elsewhere_and_none_for_short_work(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress("encoding", total=10, unit="texts") as bar:
        bar.advance(10)
    assert stream.getvalue() == ""
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", 0.0)
    with Progress("encoding", total=10, unit="texts") as bar:
        bar.advance(5, loss="0.25")
    assert stream.getvalue().startswith("encoding: 5/10 texts (")
    assert "s left)  loss 0.25\n" in stream.getvalue()


def test_one_changing_line_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    class Handle:
        def update(self, data: dict[str, str], *, raw: bool) -> None:
            lines.append(data["text/plain"])

    def display(data: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        return Handle()

    ipython: Any = types.ModuleType("IPython")
    ipython.display = types.SimpleNamespace(display=display)
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=None)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    monkeypatch.setattr(progress, "NOTEBOOK_EVERY_S", 0.0)
    for _ in range(2):
        with Progress("encoding", total=10, unit="texts") as bar:
            for _ in range(10):
                bar.advance(1)
        assert len(lines) == 11  # the second time nothing is added
        assert lines[0].startswith("encoding: 1/10 texts")
        assert lines[-1].startswith("encoding: 10/10 texts")
        ipython.get_ipython = lambda: types.SimpleNamespace()  # IPython in a terminal has no kernel


def test_nothing_when_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTEMB_QUIET", "1")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress("encoding", total=10, unit="texts") as bar:
        bar.advance(10)
        bar.say("half way")
    assert stream.getvalue() == ""


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.getLogger("sentemb")
    before = logger.handlers[:], logger.level
    logger.handlers[:], logger.level = [], logging.NOTSET
    yield logger.getChild("tests")
    logger.handlers[:], logger.level = before
    logger.setLevel(logger.level)  # forgets what was cached


def test_the_log_is_plain_lines_on_standard_error(
    log: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SENTEMB_QUIET", raising=False)
    log.info("nobody asked")
    show_log()
    show_log()
    log.info("resumed at step %d", 4)
    log.warning("100% slower")
    monkeypatch.setenv("SENTEMB_QUIET", "1")
    show_log()
    log.info("step 5")
    assert capsys.readouterr().err == "resumed at step 4\nsentemb: warning: 100% slower\n"


def test_one_of_several_processes_speaks(
    log: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    show_log()
    log.info("step 5")
    assert capsys.readouterr().err == ""
