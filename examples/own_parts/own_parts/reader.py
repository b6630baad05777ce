"""Training texts out of an SQLite database: in thirty lines what ``use = "sql"`` does for SQLite and DuckDB."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sentemb import DataSource
from sentemb.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Sqlite(DataSource):
    """The rows of a query; its column names say what they are.

        [data]
        use = "sqlite"
        path = "faq.db"
        query = "SELECT question AS anchor, answer AS positive FROM faq"

    Args:
        path: an SQLite file.
        query: a SELECT statement; the database is opened for reading only.
        columns, max_rows, max_tokens, prefixes, skip_faulty: see ``DataSource``.
    """

    path: str
    query: str

    def rows(self) -> Iterator[Mapping[str, object]]:
        """Every row: column name -> value.

        Raises:
            DataError: no such file, no database, or a query that SQLite refuses.
        """
        if not Path(self.path).is_file():
            raise DataError(f"{self.path}: no such file")
        try:
            with closing(sqlite3.connect(f"{Path(self.path).resolve().as_uri()}?mode=ro", uri=True)) as database:
                database.row_factory = sqlite3.Row
                yield from map(dict, database.execute(self.query))
        except sqlite3.Error as error:
            raise DataError(f"{self.path}: {error}; query: {self.query}") from error
