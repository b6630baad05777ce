"""Training rows that are Python objects."""

from __future__ import annotations

from collections import namedtuple

import pytest

from sentemb.data import InMemory
from sentemb.errors import DataError, PartError
from sentemb.parts import room, to_table

ROWS = [{"anchor": "a man", "positive": "a boy", "label": 1}, {"anchor": "a dog", "positive": "a cat", "label": 0}]


def kinds():
    pair = namedtuple("Pair", ["anchor", "positive", "label"])
    datasets, pandas, pyarrow = (pytest.importorskip(name) for name in ("datasets", "pandas", "pyarrow"))
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    return {
        "dicts": ROWS,
        "generator": (row for row in ROWS),
        "named tuples": [pair(**row) for row in ROWS],
        "columns": columns,
        "datasets": datasets.Dataset.from_list(ROWS),
        "pandas": pandas.DataFrame(ROWS),
        "pyarrow": pyarrow.table(columns),
    }


@pytest.mark.parametrize("kind", ["dicts", "generator", "named tuples", "columns", "datasets", "pandas", "pyarrow"])
def test_every_kind_of_rows_is_read_twice_and_is_the_same_value(kind):
    source = InMemory(data=kinds()[kind])
    for _ in range(2):
        table = source.load()
        assert table.columns == {"anchor": ["a man", "a dog"], "positive": ["a boy", "a cat"]}
        assert table.label.tolist() == [1, 0]
    assert source == InMemory(data=ROWS)
    assert source != InMemory(data=ROWS[:1])


def test_polars_frames_are_read():
    polars = pytest.importorskip("polars")
    assert InMemory(data=polars.DataFrame(ROWS)) == InMemory(data=ROWS)


def test_tuples_go_by_order_and_texts_are_anchors():
    table = InMemory(data=[("a", "b", "c"), ("d", "e", "f")]).load()
    assert table.columns == {"anchor": ["a", "d"], "positive": ["b", "e"], "negative_1": ["c", "f"]}
    assert InMemory(data=["one", "two"]).load().columns == {"anchor": ["one", "two"]}
    mapped = InMemory(data=[{"q": "x", "d": "y"}], columns={"anchor": "d"})
    assert mapped.load().columns == {"anchor": ["y"]}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([1, 2], "row 1 is int; a row is a dict, a tuple or a text"),
        (3, "int holds no rows"),
        ({"anchor": ["a"], "positive": ["b", "c"]}, "different lengths: 1, 2"),
        ([{"anchor": "a"}, {"anchor": None}], r"data in memory: row 2: column \"anchor\" is empty"),
        ([], "data in memory: no rows"),
    ],
)
def test_wrong_rows_are_told_by_their_number(data, words):
    with pytest.raises(DataError, match=words):
        InMemory(data=data).load()


def test_a_recipe_file_remembers_rows_but_does_not_hold_them():
    source = InMemory(data=ROWS, max_tokens=16)
    table = to_table(source)
    assert table["data"].startswith("2 rows in memory, fingerprint ")
    remembered = room("sources").make(table)
    assert remembered == source
    assert to_table(remembered) == table
    with pytest.raises(DataError, match=r"give them again: train\(recipe, data=rows\)"):
        remembered.load()
    with pytest.raises(PartError, match="must be rows"):
        InMemory(data="rows.txt")


def test_splits_are_not_rows():
    datasets = pytest.importorskip("datasets")
    splits = datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS))
    with pytest.raises(DataError, match="choose one of the splits: train"):
        InMemory(data=splits).load()
