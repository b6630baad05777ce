"""Training texts from a database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sentemb.data.data_source import DataSource
from sentemb.data.databases import Query
from sentemb.data.faults import Faults
from sentemb.data.formats import RecordBlock


@dataclass(frozen=True, kw_only=True)
class Sql(DataSource):
    """The rows of a query to an SQLite or DuckDB file, which is opened for reading alone and read block by block.

        [data]
        use = "sql"
        database = "shop.db"
        query = "SELECT question AS anchor, answer AS positive FROM tickets ORDER BY id"

    Columns are roles as those of a file. Without ORDER BY a database may give its rows in another order,
    and so another run. Elsewhere (``sentemb encode``, ``index build``, ``classify`` …) the same is given as data:
    ``"shop.db: SELECT …"``.

    Args:
        database: the file; DuckDB's need the extra ``sql``.
        query: one statement that gives rows.
    """

    database: str
    query: str

    def __str__(self) -> str:
        return str(self._query)

    @property
    def _query(self) -> Query:
        return Query(database=self.database, query=self.query)

    def blocks(self, faults: Faults) -> Iterator[RecordBlock]:
        """The rows in blocks of columns."""
        return self._query.blocks()

    def absence(self) -> str | None:
        """None, or DataError where there is no such file."""
        self._query.require_file()
        return None
