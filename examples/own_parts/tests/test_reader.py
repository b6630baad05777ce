from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from own_parts.reader import Sqlite

from sentemb.errors import DataError
from sentemb.parts import PartError, room

QUERY = "SELECT question AS anchor, answer AS positive FROM faq"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "faq.db")) as connection, connection:
        connection.execute("CREATE TABLE faq (question TEXT, answer TEXT)")
        connection.executemany("INSERT INTO faq VALUES (?, ?)", [("who", "the man"), ("what", "a song"), ("how", None)])
    return tmp_path / "faq.db"


def test_it_reads_the_rows_of_a_query(database: Path) -> None:
    source = room("sources").make({"use": "sqlite", "path": str(database), "query": f"{QUERY} LIMIT 2"})
    assert source == Sqlite(path=str(database), query=f"{QUERY} LIMIT 2")
    assert dict(source.load().columns) == {"anchor": ["who", "what"], "positive": ["the man", "a song"]}


def test_faulty_rows_are_named_or_left_out(database: Path) -> None:
    with pytest.raises(DataError, match=r"faq.db: row 3.*positive"):
        Sqlite(path=str(database), query=QUERY).load()
    table = Sqlite(path=str(database), query=QUERY, skip_faulty=True).load()
    assert (len(table), table.skipped) == (2, 1)


def test_what_it_refuses(database: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        Sqlite(path=str(database.with_name("none.db")), query=QUERY).load()
    with pytest.raises(DataError, match="no such table: faqs"):
        Sqlite(path=str(database), query=f"{QUERY}s").load()
    with pytest.raises(DataError, match="readonly"):
        Sqlite(path=str(database), query="DELETE FROM faq RETURNING question AS anchor").load()
    with pytest.raises(PartError, match="needs query"):
        Sqlite(path=str(database))
