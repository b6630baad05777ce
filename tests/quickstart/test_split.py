from __future__ import annotations

import json

import pytest

from sentemb.data import iter_records
from sentemb.errors import DataError
from sentemb.evaluate.reading import read_retrieval
from sentemb.quickstart.corpus import Docstring
from sentemb.quickstart.journey import split, write_files

DOCS = [Docstring(f"m{i // 3}.f{i}", f"m{i // 3}", f"f {i}", f"text of number {i}") for i in range(90)]


def test_no_module_is_on_both_sides():
    parts = split(DOCS, pairs=40, seed=1, documents=20, queries=10)
    assert (len(parts.train), len(parts.documents), len(parts.queries)) == (40, 20, 10)
    assert not {doc.module for doc in parts.train} & {doc.module for doc in parts.documents}
    assert set(parts.queries) < set(parts.documents)
    assert len(set(parts.train)) == 40


def test_the_seed_decides():
    first, again, other = (split(DOCS, pairs=40, seed=seed, documents=20, queries=10) for seed in (1, 1, 2))
    assert first == again
    assert set(first.documents) != set(other.documents)


def test_fewer_docstrings_than_wanted():
    assert len(split(DOCS, pairs=10_000, seed=0, documents=21, queries=500).train) == 69
    with pytest.raises(DataError, match="only 90 docstrings found"):
        split(DOCS, pairs=10, seed=0, documents=90, queries=10)


def test_the_files_are_what_training_and_evaluation_read(tmp_path):
    parts = split(DOCS, pairs=40, seed=1, documents=20, queries=10)
    write_files(parts, tmp_path)
    rows = [record.fields for record in iter_records(str(tmp_path / "train.jsonl"))]
    assert [row["anchor"] for row in rows] == [doc.query for doc in parts.train]
    assert [row["positive"] for row in rows] == [doc.text for doc in parts.train]
    task = read_retrieval(tmp_path / "task")
    assert list(task.documents.values()) == [doc.text for doc in parts.documents]
    assert list(task.queries.values()) == [doc.query for doc in parts.queries]
    assert {query: list(found) for query, found in task.qrels.items()} == {
        f"q:{doc.name}": [doc.name] for doc in parts.queries
    }
    first = json.loads((tmp_path / "task" / "corpus.jsonl").read_text().splitlines()[0])
    assert first == {"_id": parts.documents[0].name, "text": parts.documents[0].text}
