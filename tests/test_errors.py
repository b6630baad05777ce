"""Missing extras and other libraries' errors are told in one way."""

from __future__ import annotations

import pytest

from sentemb.errors import MissingExtra, first_line, needs_extra


def test_a_missing_extra_names_the_command() -> None:
    needs_extra("json", "search")
    with pytest.raises(MissingExtra, match=r'no_such_package is not installed; run: pip install "sentemb\[search\]"'):
        needs_extra("no_such_package", "search")
    assert issubclass(MissingExtra, ImportError)  # a caller that probes for an optional feature sees what Python raises


def test_a_package_that_was_blocked_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "json", None)
    with pytest.raises(MissingExtra):
        needs_extra("json", "search")


def test_the_first_line_of_an_error() -> None:
    assert first_line(ValueError("  \n one \n two")) == "one"
    assert first_line(ValueError()) == "ValueError"
    assert first_line("one\ntwo") == "one"
