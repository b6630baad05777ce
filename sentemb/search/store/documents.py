"""Documents of one segment: ids, texts and metadata in a SQLite file that never changes once the segment exists.

Why SQLite: it is in Python's standard library, answers id look-ups and metadata filters from B-trees without loading
the texts, and holds no code (unlike pickles). Metadata is one JSON object a row; filters read it with ``json_extract``.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import DataError, SearchError
from sentemb.search.store import disk
from sentemb.search.store.manifest import StoredFile, damaged
from sentemb.search.store.words import WordRule, Words, words_of_texts, write_words

Id = int | str
Row = tuple[Id, str | None, str | None]  # id, text, metadata as JSON
PASSAGE = "passage"  # the metadata field of a row that is a passage, see ``store.passages``
NAME_OF_PASSAGE = f"{PASSAGE}.of"
MANY = 500  # values in one IN (…) list
_TABLE = "CREATE TABLE documents (row INTEGER PRIMARY KEY, id, text TEXT, metadata TEXT)"
_TEXTS = "SELECT text FROM documents ORDER BY row"
_INTEGER = re.compile(r"-?[1-9][0-9]{0,18}|0")


@dataclass(frozen=True)
class Document:
    """What is kept beside a vector."""

    id: int | str | None  # None: the index numbers it
    text: str | None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Condition:
    """An SQL condition over the table ``documents`` with its bound values; made by ``query.expression`` alone."""

    sql: str
    values: tuple[Any, ...]


def write_documents(
    path: Path, blocks: Iterable[Sequence[Row]], indexed_fields: Sequence[str], words: WordRule | None
) -> tuple[StoredFile, int]:
    """Write a segment's file, with indexes of ids, of the metadata fields that filters use most, and of words.

    Raises:
        SearchError: the disk refused.
    """
    numbers = count()
    try:
        with closing(disk.connect(path)) as database:
            for statement in ("PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF", _TABLE):
                database.execute(statement)
            for rows in blocks:
                numbered = ((next(numbers), *row) for row in rows)
                database.execute("BEGIN")
                database.executemany("INSERT INTO documents VALUES (?, ?, ?, ?)", numbered)
                database.execute("COMMIT")
            database.execute("CREATE INDEX by_id ON documents(id)")
            for number, name in enumerate(indexed_fields):
                database.execute(f"CREATE INDEX field_{number} ON documents({extract(name)})")
            if words is not None:
                texts = (text for sql in (_TEXTS,) for (text,) in database.execute(sql))  # runs when it is asked
                write_words(database, texts, words)
    except sqlite3.Error as error:
        raise SearchError(f"{path}: could not be written ({error}); the index is as it was before") from error
    return disk.adopt(path), next(numbers)


class Documents:
    """Reads a segment's file. Safe to share between threads.

    Args:
        is_split: rows are passages; documents are known by the ids in their metadata.
    """

    def __init__(self, path: Path, rows: int, *, is_split: bool = False) -> None:
        self.path, self.rows = path, rows
        self._name = extract(NAME_OF_PASSAGE) if is_split else "id"
        self._lock = threading.Lock()
        uri = f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1"
        try:
            self._database = sqlite3.connect(uri, uri=True, check_same_thread=False)
            found = self._database.execute("SELECT count(*) FROM documents").fetchone()[0]
        except sqlite3.Error as error:
            raise damaged(path, f"not a readable document store ({error})") from error
        if found != rows:
            raise damaged(path, f"holds {found} documents, the manifest says {rows}")

    @property
    def has_texts(self) -> bool:
        """Whether any document has a text."""
        return bool(self.query("SELECT 1 FROM documents WHERE text IS NOT NULL LIMIT 1"))

    @cached_property
    def words(self) -> Words:
        """The words of the texts; those of a segment that was written without them are indexed in memory."""
        if self.query("SELECT 1 FROM sqlite_master WHERE name = 'words'"):
            return Words(self.query, self.rows)
        return words_of_texts([text for (text,) in self.query(_TEXTS)])

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of one SELECT."""
        with self._lock:
            try:
                return self._database.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise SearchError(f"{self.path}: {error}") from error

    def fetch(self, rows: Sequence[int]) -> dict[int, Document]:
        """Documents by row."""
        return {
            row: Document(name, text, json.loads(metadata) if metadata else {})
            for row, (name, text, metadata) in zip(rows, self.raw(rows), strict=True)
        }

    def raw(self, rows: Sequence[int]) -> list[Row]:
        """Rows as they are kept, in the given order."""
        sql = "SELECT row, id, text, metadata FROM documents WHERE row IN (SELECT value FROM json_each(?))"
        entries = self.query(sql, (json.dumps([*rows]),))
        by_number = {row: (name, text, metadata) for row, name, text, metadata in entries}
        return [by_number[row] for row in rows]

    def rows_of(self, ids: Iterable[Id]) -> list[tuple[Id, int]]:
        """The rows (live or deleted) of documents with any of the ids, each with the id as it was asked for."""
        by_spelling = {spelling: name for name in ids for spelling in spellings(name)}
        every, rows = list(by_spelling), []
        for start in range(0, len(every), MANY):
            part = every[start : start + MANY]
            marks = ",".join("?" * len(part))
            sql = f"SELECT {self._name}, row FROM documents WHERE {self._name} IN ({marks}) ORDER BY row"  # noqa: S608 - values are bound
            rows += self.query(sql, part)
        return [(by_spelling[name], row) for name, row in rows]

    def ids(self, start: int, stop: int) -> list[Id]:
        """Ids of rows start … stop - 1."""
        sql = "SELECT id FROM documents WHERE row >= ? AND row < ? ORDER BY row"
        return [name for (name,) in self.query(sql, (start, stop))]

    def names_of_rows(self, start: int, stop: int) -> list[tuple[int, Id]]:
        """Rows start … stop - 1, each with the id of its document."""
        sql = f"SELECT row, {self._name} FROM documents WHERE row >= ? AND row < ? ORDER BY row"  # noqa: S608 - no user's text
        return [(row, name) for row, name in self.query(sql, (start, stop))]

    def names(self, start: int, stop: int) -> list[Id]:
        """Ids of the documents of rows start … stop - 1, each once."""
        return list(dict.fromkeys(name for _, name in self.names_of_rows(start, stop)))

    def superseded(self) -> list[int]:
        """Rows whose id a later row has too."""
        last = "SELECT max(row) FROM documents GROUP BY CAST(id AS TEXT)"
        return [row for (row,) in self.query(f"SELECT row FROM documents WHERE row NOT IN ({last})")]  # noqa: S608

    def largest_integer(self) -> int:
        """The largest id that is an integer, also one that was given as a text; -1 where there is none."""
        number = "CAST(id AS INTEGER)"
        sql = f"SELECT max({number}) FROM documents WHERE CAST({number} AS TEXT) = CAST(id AS TEXT)"  # noqa: S608
        largest = self.query(sql)[0][0]
        return -1 if largest is None else int(largest)

    def rows_where(self, condition: Condition) -> NDArray[np.int64]:
        """Rows that satisfy a condition."""
        rows = self.query(f"SELECT row FROM documents WHERE {condition.sql}", condition.values)  # noqa: S608 - values are bound
        return np.fromiter((row for (row,) in rows), dtype=np.int64, count=len(rows))

    def kinds_of(self, name: str) -> list[str]:
        """The types, in the words of JSON, that a metadata field has; none where no document has it."""
        kind = extract(name, "json_type")
        sql = f"SELECT DISTINCT {kind} FROM documents WHERE {kind} IS NOT NULL"  # noqa: S608 - double quotes are barred
        return [found for (found,) in self.query(sql)]

    def fields(self) -> list[str]:
        """The metadata fields that there are."""
        return [name for (name,) in self.query("SELECT DISTINCT key FROM documents, json_each(metadata) ORDER BY key")]

    def close(self) -> None:
        """Close the database."""
        self._database.close()


def is_id(name: object) -> bool:
    """Whether it is a text or a whole number of 64 bits."""
    return isinstance(name, str) or (type(name) is int and -(2**63) <= name < 2**63)


def spellings(name: Id) -> tuple[Id, ...]:
    """The ids that are one with this one: 3 and "3", but not "03"."""
    if isinstance(name, int):
        return name, str(name)
    return (name, int(name)) if _INTEGER.fullmatch(name) and is_id(int(name)) else (name,)


def integer_of(name: Id) -> int:
    """The integer that an id is, also as a text; -1 for any other."""
    return next((spelling for spelling in spellings(name) if isinstance(spelling, int)), -1)


def json_of(metadata: dict[str, Any], name: Id) -> str | None:
    """Metadata of a document as it is kept; raises DataError where JSON cannot hold it."""
    if not metadata:
        return None
    try:
        return json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError) as error:
        raise DataError(f"metadata of document {name!r} cannot be stored as JSON: {error}") from error


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


def _plain(value: Any) -> Any:
    """What JSON keeps of a value that it does not know: dates as ISO 8601, which sorts; numpy's and decimal numbers."""
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no text, number, truth value, date, list or mapping")
