"""Columns of texts that lie in a file when they are many."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sentemb.data import InMemory, texts
from sentemb.data.texts import Texts
from sentemb.errors import DataError


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(texts, "HELD", 5)
    monkeypatch.setattr(texts, "_CHUNK", 4)
    monkeypatch.setenv("SENTEMB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def filled(count: int) -> tuple[Texts, list[str]]:
    draw, column, expected = random.Random(count), Texts(), list[str]()
    while len(expected) < count:
        block = [f"text {len(expected) + i} {'ü' * draw.randrange(3)}" for i in range(draw.randrange(1, 9))]
        column.extend(block)
        expected += block
    column.truncate(count)
    return column, expected[:count]


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 13, 40])
def test_is_the_list_of_what_was_added(count):
    column, expected = filled(count)
    assert len(column) == count
    assert list(column) == expected
    for start in range(-2, count + 2):
        for stop in range(start, count + 2):
            assert column[start:stop] == expected[start:stop]
    assert column[::3] == expected[::3]
    assert [column[i] for i in range(-count, count)] == [expected[i] for i in range(-count, count)]
    with pytest.raises(IndexError):
        column[count]


def test_texts_may_follow_a_cut():
    column, expected = filled(40)
    column.truncate(17)
    column.extend(["a", "b", "c", "d", "e", "f"])
    assert list(column) == [*expected[:17], "a", "b", "c", "d", "e", "f"]


def test_half_a_surrogate_pair_survives():
    column = Texts()
    column.extend(["\ud800", "a", "b", "c", "d", "e"])
    assert list(column) == ["\ud800", "a", "b", "c", "d", "e"]


def test_few_texts_are_a_list_and_many_leave_no_file(small):
    assert filled(4)[0].plain() == filled(4)[1]
    column, _ = filled(30)
    assert column.plain() is column
    assert not list((small / "cache").iterdir())  # it has no name


def test_a_table_of_many_rows_is_the_same_table():
    data = [{"anchor": f"a{i}", "positive": f"p{i}", "score": i} for i in range(23)]
    table = InMemory(data=data, max_rows=20).load()
    assert list(table.columns["anchor"]) == [f"a{i}" for i in range(20)]
    assert list(table.columns["positive"]) == [f"p{i}" for i in range(20)]
    assert table.score.tolist() == list(range(20))


def test_a_full_disk_is_told(monkeypatch):
    def full(dir: object = None) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(DataError, match=r"do not fit into the temporary file .* set SENTEMB_CACHE"):
        filled(9)
