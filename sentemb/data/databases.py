"""Rows of a query to an SQLite or DuckDB file, block by block."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentemb.data.formats import BLOCK, RecordBlock
from sentemb.errors import DataError, first_line, needs_extra

_NAMED = re.compile(r"(.*?):\s*((?:select|with|from|values|table)\b.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Query:
    """A query and the file that it is put to."""

    database: str
    query: str

    @classmethod
    def read(cls, source: str | Path) -> Query | None:
        """``notes.db: SELECT …`` as a query; None for any other source."""
        match = _NAMED.fullmatch(str(source))
        return match and cls(database=match[1], query=match[2])

    def __str__(self) -> str:
        shown = " ".join(self.query.split())
        return f"{self.database}: {shown[:77] + '…' if len(shown) > 78 else shown}"

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.database).expanduser()

    def require_file(self) -> None:
        """Raises ``DataError`` where there is no such file."""
        if not self.path.is_file():
            raise DataError(f"{self}: no such file; name an SQLite or DuckDB file in front of the query")

    def blocks(self) -> Iterator[RecordBlock]:
        """All rows in the query's order. The database is opened for reading alone.

        Raises: DataError that names database and query: no such file or no database, a query that fails or gives no
            rows, columns of one name.
        """
        self.require_file()
        connection, fault = _opened(self.path)
        with closing(connection):
            try:
                cursor = connection.execute(self.query)
                if cursor.description is None:
                    raise DataError(f"{self}: gives no rows; a query that reads is needed (SELECT …)")
                names = tuple(str(column[0]) for column in cursor.description)
                if len(set(names)) < len(names):
                    raise DataError(f"{self}: several columns have one name ({', '.join(names)}); tell them apart with "
                                    "AS")
                first = 1
                while rows := cursor.fetchmany(BLOCK):
                    columns = tuple(map(list, zip(*rows, strict=True)))
                    yield RecordBlock(file=str(self), names=names, columns=columns, has_lines=False,
                                      lines=range(first, first + len(rows)))
                    first += len(rows)
            except fault as error:
                raise DataError(f"{self}: {first_line(error)}; its tables are {_tables(connection, fault)}") from None


def database_kind(path: Path) -> str | None:
    """``sqlite`` or ``duckdb`` by a file's first bytes; None of any other file."""
    with path.open("rb") as file:
        head = file.read(16)
    if head == b"SQLite format 3\0":
        return "sqlite"
    return "duckdb" if head[8:12] == b"DUCK" else None


def how_to_query(path: Path) -> str | None:
    """What to give in place of ``path``, where that is a database."""
    if not path.is_file() or database_kind(path) is None:
        return None
    connection, fault = _opened(path)
    with closing(connection):
        tables = _tables(connection, fault)
    return f"a database; give it with a query, as in '{path}: SELECT …'; its tables are {tables}"


def _opened(path: Path) -> tuple[Any, type[Exception]]:
    """A connection that reads alone, and what its library raises."""
    kind = database_kind(path)
    if kind == "sqlite":
        # rows may be read by another thread than the one that asked, never by two at once
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False)
        connection.execute("PRAGMA query_only = ON")  # holds for a database that the query attaches, too
        return connection, sqlite3.Error
    if kind is None:
        raise DataError(f"{path}: neither an SQLite nor a DuckDB file, so that there is nothing to query")
    needs_extra("duckdb", "sql")
    import duckdb

    try:
        return duckdb.connect(str(path), read_only=True), duckdb.Error
    except duckdb.Error as error:
        raise DataError(f"{path}: DuckDB cannot open it ({first_line(error)})") from None


def _tables(connection: Any, fault: type[Exception]) -> str:
    try:  # DuckDB has this table under SQLite's name
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
    except fault:  # a damaged file
        return "unknown"
    return ", ".join(sorted(str(name) for (name,) in rows)) or "none"
