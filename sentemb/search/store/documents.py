"""Documents of one segment: ids, texts and metadata in a SQLite file that never changes once the segment exists.

Why SQLite: it is in Python's standard library, answers id look-ups and metadata filters from B-trees without
loading the texts, has a stable documented format, and holds no code (unlike pickles). Why one immutable file a
segment: it gets a checksum like every other file, readers need no locks, and the manifest stays the only commit
point. Metadata is one JSON object a row; filters read it with ``json_extract``.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import DataError, SearchError
from sentemb.search.store.disk import Disk
from sentemb.search.store.manifest import Document, damaged
from sentemb.search.store.words import WordRule, Words, words_of_texts, write_words

Id = int | str
MANY = 500  # values in one IN (…) list
_TABLE = "CREATE TABLE documents (row INTEGER PRIMARY KEY, id, text TEXT, metadata TEXT)"
_LOOKUP = "CREATE INDEX IF NOT EXISTS by_id ON documents(id)"


@dataclass(frozen=True)
class Condition:
    """An SQL condition over the table ``documents`` with its bound values; made by ``query.expression`` alone."""

    sql: str
    values: tuple[Any, ...]


class DocumentWriter:
    """Fills a segment's file in batches; what ``commit`` acknowledged survives a kill."""

    def __init__(self, path: Path, disk: Disk, *, is_durable: bool) -> None:
        self.path = path
        try:
            self._database = disk.connect(path)
            # a resumable build commits often and must survive; a single change is flushed once, at the end
            mode, flush = ("DELETE", "NORMAL") if is_durable else ("OFF", "OFF")
            self._database.execute(f"PRAGMA journal_mode={mode}")
            self._database.execute(f"PRAGMA synchronous={flush}")
            if not self._database.execute("SELECT 1 FROM sqlite_master WHERE name='documents'").fetchone():
                self._database.execute(_TABLE)
            self.rows = int(self._database.execute("SELECT count(*) FROM documents").fetchone()[0])
        except sqlite3.Error as error:
            raise _failed(path, error) from error

    def append(self, documents: Iterable[Document], ids: Sequence[Id]) -> None:
        """Add rows, in one transaction.

        Raises:
            DataError: metadata that JSON cannot hold, text that is not valid Unicode.
            SearchError: the disk refused.
        """
        first = self.rows
        rows = (
            (first + i, name, document.text, _json(document.metadata, name))
            for i, (document, name) in enumerate(zip(documents, ids, strict=True))
        )
        try:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT INTO documents VALUES (?, ?, ?, ?)", rows)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise _failed(self.path, error) from error
        except UnicodeEncodeError as error:
            raise DataError(f"a text or id is not valid Unicode: {error.reason}") from error
        self.rows = first + len(ids)

    def truncate(self, rows: int) -> None:
        """Forget rows from ``rows`` on."""
        try:
            self._database.execute("DELETE FROM documents WHERE row >= ?", (rows,))
        except sqlite3.Error as error:
            raise _failed(self.path, error) from error
        self.rows = rows

    def rows_of_repeated_ids(self) -> list[tuple[Id, list[int]]]:
        """Ids that occur more than once, with their rows in order (after ``make_lookup``)."""
        repeated = self._database.execute(
            "SELECT id, row FROM documents WHERE id IN (SELECT id FROM documents GROUP BY id HAVING count(*) > 1) "
            "ORDER BY id, row"
        )
        found: dict[Id, list[int]] = {}
        for name, row in repeated:
            found.setdefault(name, []).append(row)
        return list(found.items())

    def make_lookup(self, indexed_fields: Sequence[str] = (), words: WordRule | None = None) -> None:
        """Index ids, words, and the metadata fields that filters use most; a build that is resumed does so again."""
        made = "SELECT name FROM sqlite_master WHERE type = 'index' AND name GLOB 'field_*'"
        try:
            for (name,) in self._database.execute(made).fetchall():
                self._database.execute(f"DROP INDEX {name}")
            self._database.execute(_LOOKUP)
            for number, name in enumerate(indexed_fields):
                self._database.execute(f"CREATE INDEX field_{number} ON documents({extract(name)})")
            write_words(self._database, self._texts(), words or WordRule())
        except sqlite3.Error as error:
            raise _failed(self.path, error) from error

    def _texts(self) -> Iterator[str | None]:
        for start in range(0, self.rows, MANY):
            sql = "SELECT text FROM documents WHERE row >= ? AND row < ? ORDER BY row"
            yield from (text for (text,) in self._database.execute(sql, (start, start + MANY)).fetchall())

    def rows_of(self, ids: Sequence[Id]) -> dict[Id, list[int]]:
        """Rows that carry any of the ids; fast after ``make_lookup``."""
        return _rows_of(lambda sql, values: self._database.execute(sql, values).fetchall(), ids)

    def is_row(self, row: int, document: Document, name: Id) -> bool:
        """Whether that is what a row holds."""
        sql = "SELECT id, text, metadata FROM documents WHERE row = ?"
        kept = self._database.execute(sql, (row,)).fetchone()
        return bool(kept == (name, document.text, _json(document.metadata, name)))

    def ids(self, start: int, stop: int) -> list[Id]:
        """Ids of rows start … stop - 1."""
        sql = "SELECT id FROM documents WHERE row >= ? AND row < ? ORDER BY row"
        return [name for (name,) in self._database.execute(sql, (start, stop))]

    def close(self) -> None:
        """Close the database; the file is complete then."""
        self._database.close()


class Documents:
    """Reads a segment's file. Safe to share between threads."""

    def __init__(self, path: Path, rows: int) -> None:
        self.path = path
        self._lock = threading.Lock()
        uri = f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1"
        try:
            self._database = sqlite3.connect(uri, uri=True, check_same_thread=False)
            found = self._database.execute("SELECT count(*) FROM documents").fetchone()[0]
        except sqlite3.Error as error:
            raise damaged(path, f"not a readable document store ({error})") from error
        if found != rows:
            raise damaged(path, f"holds {found} documents, the manifest says {rows}")
        self.rows = rows

    @property
    def has_texts(self) -> bool:
        """Whether any document has a text."""
        return bool(self.query("SELECT 1 FROM documents WHERE text IS NOT NULL LIMIT 1"))

    @cached_property
    def words(self) -> Words:
        """The words of the texts; those of a segment that was written without them are indexed in memory."""
        if self.query("SELECT 1 FROM sqlite_master WHERE name = 'words'"):
            return Words(self.query, self.rows)
        return words_of_texts([text for (text,) in self.query("SELECT text FROM documents ORDER BY row")])

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of one SELECT.

        Raises:
            SearchError: SQLite refused it.
        """
        with self._lock:
            try:
                return self._database.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise SearchError(f"{self.path}: {error}") from error

    def fetch(self, rows: Sequence[int]) -> dict[int, Document]:
        """Documents by row."""
        found: dict[int, Document] = {}
        for start in range(0, len(rows), MANY):
            some = rows[start : start + MANY]
            marks = ",".join("?" * len(some))
            for row, name, text, metadata in self.query(
                f"SELECT row, id, text, metadata FROM documents WHERE row IN ({marks})", some  # noqa: S608 - values are bound
            ):
                found[row] = Document(name, text, json.loads(metadata) if metadata else {})
        return found

    def rows_of(self, ids: Sequence[Id]) -> dict[Id, list[int]]:
        """Rows (live or deleted) that carry any of the ids."""
        return _rows_of(self.query, ids)

    def rows_where(self, condition: Condition) -> NDArray[np.int64]:
        """Rows that satisfy a condition."""
        rows = self.query(f"SELECT row FROM documents WHERE {condition.sql}", condition.values)  # noqa: S608 - values are bound
        return np.fromiter((row for (row,) in rows), dtype=np.int64, count=len(rows))

    def has_field(self, name: str) -> bool:
        """Whether any document has the metadata field."""
        kind = extract(name, "json_type")
        return bool(self.query(f"SELECT 1 FROM documents WHERE {kind} IS NOT NULL LIMIT 1"))  # noqa: S608 - quotes are barred

    def fields(self) -> list[str]:
        """The metadata fields that there are."""
        return [name for (name,) in self.query("SELECT DISTINCT key FROM documents, json_each(metadata) ORDER BY key")]

    def scan(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Document]]:
        """Row and document, in row order, a few thousand in memory at a time."""
        step = 4096
        while True:
            last = start + step if stop is None else min(start + step, stop)
            rows = self.query(
                "SELECT row, id, text, metadata FROM documents WHERE row >= ? AND row < ? ORDER BY row", (start, last)
            )
            for row, name, text, metadata in rows:
                yield row, Document(name, text, json.loads(metadata) if metadata else {})
            if not rows or (stop is not None and last >= stop):
                return
            start = last

    def check(self) -> None:
        """Walk the whole database.

        Raises:
            SearchError: SQLite finds a fault.
        """
        answer = self.query("PRAGMA integrity_check(1)")[0][0]
        if answer != "ok":
            raise damaged(self.path, f"{answer}")

    def close(self) -> None:
        """Close the database."""
        self._database.close()


def _rows_of(query: Callable[[str, Sequence[Any]], list[tuple[Any, ...]]], ids: Sequence[Id]) -> dict[Id, list[int]]:
    found: dict[Id, list[int]] = {}
    for start in range(0, len(ids), MANY):
        some = ids[start : start + MANY]
        marks = ",".join("?" * len(some))
        for name, row in query(f"SELECT id, row FROM documents WHERE id IN ({marks}) ORDER BY row", some):  # noqa: S608 - values are bound
            found.setdefault(name, []).append(row)
    return found


def extract(name: str, function: str = "json_extract") -> str:
    """SQL expression of a metadata field; ``author.name`` is also the field ``name`` of the field ``author``.

    Args:
        function: ``json_type`` for the field's type instead of its value.

    Raises:
        SearchError: a name that JSON paths cannot hold.
    """
    if '"' in name or "\x00" in name or not name:
        raise SearchError(f"metadata field {name!r}: a name cannot be empty or hold double quotes")
    steps = name.split(".")
    paths = [[name], steps] if len(steps) > 1 and all(steps) else [[name]]
    # keys are kept as JSON writes them: a backslash or a line break within is an escape there
    labels = ["".join("." + json.dumps(step, ensure_ascii=False) for step in path).replace("'", "''") for path in paths]
    calls = [f"{function}(metadata, '${label}')" for label in labels]
    return calls[0] if len(calls) == 1 else f"coalesce({', '.join(calls)})"


def _json(metadata: Mapping[str, Any], name: Id) -> str | None:
    if not metadata:
        return None
    try:
        return json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError) as error:
        raise DataError(f"metadata of document {name!r} cannot be stored as JSON: {error}") from error


def _plain(value: Any) -> Any:
    """What JSON keeps of a value that it does not know: dates as ISO 8601, which sorts; numpy's and decimal numbers."""
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no text, number, truth value, date, list or mapping")


def _failed(path: Path, error: sqlite3.Error) -> SearchError:
    return SearchError(f"{path}: could not be written ({error}); the index is as it was before")
