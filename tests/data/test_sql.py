"""Queries to SQLite and DuckDB files as data."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from sentemb import Encoder, SearchIndex
from sentemb.cli import main
from sentemb.data import Sql, TableData, iter_records, iter_texts
from sentemb.data.formats import BLOCK
from sentemb.errors import DataError
from sentemb.parts import room

ROWS = [(1, "the dog runs", "a dog is running", 0.5), (2, "a cat plays", "the cat plays music", 1.0)]


@pytest.fixture(params=["sqlite", "duckdb"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "pairs.db"  # of either kind: the first bytes tell
    if request.param == "duckdb":
        connection = pytest.importorskip("duckdb").connect(str(path))
    else:
        connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE pairs (id INTEGER, one TEXT, two TEXT, score DOUBLE)")
    connection.executemany("INSERT INTO pairs VALUES (?, ?, ?, ?)", ROWS)
    if request.param == "sqlite":
        connection.commit()
    connection.close()
    return path


def test_columns_are_roles(database: Path) -> None:
    source = room("sources").make({
        "use": "sql", "database": str(database), "query": "SELECT one AS anchor, two AS positive, score FROM pairs",
    })  # fmt: skip
    assert isinstance(source, Sql)
    assert source.absence() is None
    table = source.load()
    assert list(table.columns["positive"]) == [row[2] for row in ROWS]
    np.testing.assert_array_equal(table.score, [0.5, 1.0])
    assert "pairs.db: SELECT one" in table.source


def test_any_reader_takes_a_database_with_a_query(database: Path) -> None:
    named = f"{database}: select id, one as text\nfrom pairs where id > 1"
    assert list(iter_texts(named)) == ["a cat plays"]
    (record,) = iter_records(named)
    assert record.fields == {"id": 2, "text": "a cat plays"}
    assert record.where.endswith(": row 1")
    table = TableData(path=f"{database}: SELECT one, two FROM pairs")
    assert table.absence() is None
    assert list(table.load().columns) == ["anchor", "positive"]


def test_encode_and_index_take_it(database: Path, tiny_bert: Path, tmp_path: Path) -> None:
    query = f"{database}: SELECT id, one AS text, score FROM pairs ORDER BY id"
    for verb in (["encode", query, "-o", tmp_path / "v.npy"], ["index", "build", query, "-o", tmp_path / "index"]):
        with pytest.raises(SystemExit) as stop:
            main([*map(str, verb), "-m", str(tiny_bert)])
        assert not stop.value.code
    texts = [row[1] for row in ROWS]
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), Encoder.load(tiny_bert).encode(texts), atol=1e-2)
    index = SearchIndex.open(tmp_path / "index")
    (hit,) = index.search([ROWS[1][1]], k=1, where="score > 0.7")[0]
    assert (hit.id, hit.text) == (2, ROWS[1][1])
    assert index.sync(f"{database}: SELECT id, one AS text FROM pairs WHERE id = 1").deleted == 1


@pytest.mark.parametrize(("query", "said"), [
    ("SELECT x FROM pairs", "pairs.db: SELECT x FROM pairs: .*x.*; its tables are pairs"),
    ("SELECT one FROM nowhere", "nowhere.*its tables are pairs"),
    ("SELECT one, one FROM pairs", "several columns have one name"),
    ("WITH a AS (SELECT 1) DELETE FROM pairs", "pairs.db: WITH a"),
])
def test_faults_name_query_and_database(query: str, said: str, database: Path) -> None:
    with pytest.raises(DataError, match=said):
        list(iter_records(f"{database}: {query}"))
    assert len(list(iter_records(f"{database}: SELECT * FROM pairs"))) == 2


def test_nothing_is_ever_written(database: Path) -> None:
    before = database.read_bytes()
    for query in ("DELETE FROM pairs", "CREATE TABLE more (x INTEGER)", "INSERT INTO pairs SELECT * FROM pairs"):
        with pytest.raises(DataError, match=r"pairs\.db"):
            Sql(database=str(database), query=query).load()
    assert database.read_bytes() == before


def test_other_files_and_none(database: Path, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database")
    (tmp_path / "short.db").write_bytes(database.read_bytes()[:64])
    for name, said in (("text.db", "neither an SQLite nor a DuckDB file"), ("absent.db", "no such file"),
                       ("short.db", "short.db")):  # fmt: skip
        with pytest.raises(DataError, match=said):
            Sql(database=str(tmp_path / name), query="SELECT 1 AS anchor").load()
        with pytest.raises(DataError, match=said):
            list(iter_texts(f"{tmp_path / name}: SELECT 1"))
    with pytest.raises(DataError, match=r"give it with a query.*its tables are pairs"):
        list(iter_texts(database))
    with pytest.raises(DataError, match="no such file"):
        Sql(database="absent.db", query="SELECT 1 AS anchor").absence()


def test_an_attached_database_is_not_written_either(tmp_path: Path) -> None:
    for name in ("one.db", "two.db"):
        with sqlite3.connect(tmp_path / name) as connection:
            connection.execute("CREATE TABLE t (x TEXT)")
        connection.close()
    with pytest.raises(DataError):
        list(iter_texts(f"{tmp_path / 'one.db'}: WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a"))
    with pytest.raises(DataError, match="gives no rows"):
        Sql(database=str(tmp_path / "one.db"), query=f"ATTACH '{tmp_path / 'two.db'}' AS two").load()


def test_rows_come_in_blocks(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "many.db") as connection:
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9000)"
        connection.execute(f"CREATE TABLE t AS {numbers} SELECT i, 'text ' || i AS text FROM n")
    connection.close()
    reading = iter_records(f"{tmp_path / 'many.db'}: SELECT * FROM t ORDER BY i")
    first = next(reading)
    assert first.fields == {"i": 1, "text": "text 1"}
    last = list(reading)[-1]
    assert last.where.endswith("row 9000")
    assert BLOCK < 9000
