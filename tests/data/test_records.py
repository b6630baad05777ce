from __future__ import annotations

import json

import pytest

from sentemb.data.faults import Faults
from sentemb.data.sources import iter_records, iter_texts
from sentemb.errors import DataError


def test_records_keep_every_field_as_it_is(tmp_path):
    path = tmp_path / "docs.jsonl"
    lines = [{"id": 7, "text": " a ", "tags": ["x", None]}, {"text": "b", "extra": {"deep": 1.5}}]
    path.write_text("\n".join(map(json.dumps, lines)))
    records = list(iter_records(path))
    assert [record.fields for record in records] == lines
    assert [record.where for record in records] == [f"{path}:1", f"{path}:2"]


def test_records_are_streamed(tmp_path):
    path = tmp_path / "docs.txt"
    path.write_text("fine\n" * 20_000 + "\nafter the empty line\n")
    stream = iter_records(path)
    assert next(stream).fields == {"text": "fine"}  # long before the fault
    with pytest.raises(DataError, match=r"docs\.txt:20001: the line is empty"):
        list(stream)
    assert len(list(iter_records(path, skipped=Faults()))) == 20_001


@pytest.mark.parametrize(
    ("name", "content", "column", "expected"),
    [
        ("a.txt", "one\ntwo\n", None, ["one", "two"]),
        ("a.csv", "id,text\n1, one \n2,two\n", None, ["one", "two"]),
        ("a.csv", "id,body\n1,one\n2,two\n", "body", ["one", "two"]),
        ("a.csv", "body\none\ntwo\n", None, ["one", "two"]),
        ("a.jsonl", '{"sentence": "one", "n": 1}\n{"sentence": "two"}\n', None, ["one", "two"]),
    ],
)
def test_texts(tmp_path, name, content, column, expected):
    (tmp_path / name).write_text(content)
    assert list(iter_texts(tmp_path / name, column)) == expected


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        ({"title": "a", "body": "b"}, None, "which column holds the text. Columns: title, body"),
        ({"text": "b"}, "txt", 'no column "txt"; known: text; did you mean text'),
        ({"text": " "}, None, 'column "text" is \' \'; every row needs a text'),
        ({"text": None}, None, 'column "text" is None; every row'),
        ({"text": 3}, None, 'column "text" is 3; every row needs a text'),
    ],
)
def test_rows_without_a_text(tmp_path, row, column, message):
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=rf"a\.jsonl:1: {message}"):
        list(iter_texts(tmp_path / "a.jsonl", column))
