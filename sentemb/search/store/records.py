"""Records of any source as documents: which field is the text, which the id, what metadata keeps, what is refused."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from sentemb.data.faults import Faults
from sentemb.data.sources import Record
from sentemb.errors import DataError, SearchError
from sentemb.search.store.documents import Id, Row, integer_of, row_of
from sentemb.search.store.manifest import Document
from sentemb.search.store.writing import BLOCK

ID_FIELDS = ("id", "_id")
TEXT_FIELDS = ("text", "_text", "sentence", "document", "passage")
MAX_CHARACTERS = 1_000_000  # of a document; a model reads some thousands of them, and encoding needs 100 bytes each
MAX_DIGITS = 100  # what is longer is some code, not a number (and Python refuses to read integers beyond 4300)
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?", re.ASCII)


def as_document(record: Any, *, text_field: str | None = None, id_field: str | None = None) -> Document:
    """A string, a ``Document`` or a mapping as a ``Document``.

    In a mapping the text is ``text_field`` (or the first of text, _text, sentence, document, passage; a ``title``
    beside it is put in front, as BEIR's protocol does), the id is ``id_field`` (or id, _id) and the rest is metadata.
    Metadata of csv and tsv files that reads as a number is one, so that ``year >= 2020`` can find it (007 stays text).

    Raises:
        DataError: no text, or an id or metadata value that cannot be stored.
    """
    if isinstance(record, Document):
        document = record
    elif isinstance(record, str):
        document = Document(None, record)
    elif isinstance(record, Record):
        try:
            document = _from_mapping(record.fields, text_field, id_field)
            _check_id(document.id)
        except DataError as error:
            raise DataError(f"{record.where}: {error}") from None
        if not record.is_typed:
            metadata = {name: _number_or_text(value) for name, value in document.metadata.items()}
            document = replace(document, metadata=metadata)
    elif isinstance(record, Mapping):
        document = _from_mapping(record, text_field, id_field)
    else:
        raise DataError(f"a document is a text, a mapping or a Document; found {type(record).__name__}")
    _check_id(document.id)
    return document


def _from_mapping(record: Mapping[str, Any], text_field: str | None, id_field: str | None) -> Document:
    fields = dict(record)
    text_name = text_field or next((name for name in TEXT_FIELDS if name in fields), None)
    if text_name is None or text_name not in fields:
        has = ", ".join(map(str, fields)) or "nothing"
        raise DataError(f"a record has no text field {text_field or ''}; it has {has}; name it with text_field")
    text = fields.pop(text_name)
    if not isinstance(text, str):
        raise DataError(f"field {text_name} holds {type(text).__name__}, not text")
    title = fields.get("title")
    if text_field is None and isinstance(title, str) and title:
        text = f"{title} {text}".strip()
    id_name = id_field or next((name for name in ID_FIELDS if name in fields), None)
    if id_field is not None and id_field not in fields:
        raise DataError(f"a record has no id field {id_field}; it has {', '.join(map(str, record))}")
    given_id = fields.pop(id_name) if id_name is not None else None
    return Document(given_id, text, fields)


def _check_id(name: Any) -> None:
    if name is None or isinstance(name, str):
        return
    if isinstance(name, bool) or not isinstance(name, int) or not -(2**63) <= name < 2**63:
        raise DataError(f"document id {name!r}: an id is a text or a 64-bit integer")


def _number_or_text(value: Any) -> Any:
    if not isinstance(value, str) or len(value) > MAX_DIGITS or _NUMBER.fullmatch(value) is None:
        return value
    number = json.loads(value)
    is_kept = math.isfinite(number) if isinstance(number, float) else -(2**63) <= number < 2**63
    return number if is_kept else value


class Numbering:
    """Ids for documents that come without one, and a look at those that come with one.

    Numbers go on above every integer id there was, so that a document without an id never takes the id of another.

    Args:
        next_id: the first number.
        is_unique: refuse an id that occurred before; ids are kept in a database of SQLite's own, not in memory.
        refuse: raises where an id is taken already.
    """

    def __init__(
        self, next_id: int, *, is_unique: bool, refuse: Callable[[Sequence[Id]], None] | None = None
    ) -> None:
        self.next_id, self._refuse_taken = next_id, refuse
        self.rows = 0
        self._numbered: list[tuple[int, int, int]] = []  # runs of numbers: first number, its row, how many
        self._given: sqlite3.Connection | None = None
        if is_unique:
            self._given = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # a file that nobody sees
            self._given.execute("CREATE TABLE ids (id TEXT PRIMARY KEY, row INTEGER) WITHOUT ROWID")

    def ids(self, documents: Sequence[Document]) -> list[Id]:
        """Ids of the next documents.

        Raises:
            DataError: one of them occurred before.
        """
        names: list[Id] = []
        given: list[tuple[Id, int]] = []
        for row, document in enumerate(documents, start=self.rows):
            name = document.id
            if name is None:
                name, self.next_id = self.next_id, self.next_id + 1
                self._extend(name, row)
            else:
                number = integer_of(name)
                self._refuse(name, row, self._numbered_row(number))
                self.next_id = max(self.next_id, min(number + 1, 2**63 - 1))
                given.append((name, row))
            names.append(name)
        if self._given is not None and given:
            self._add(given)
        if self._refuse_taken is not None:
            self._refuse_taken(names)
        self.rows += len(names)
        return names

    def _extend(self, number: int, row: int) -> None:
        if self._numbered:
            first, first_row, count = self._numbered[-1]
            if first + count == number and first_row + count == row:
                self._numbered[-1] = first, first_row, count + 1
                return
        self._numbered.append((number, row, 1))

    def _numbered_row(self, number: int) -> int | None:
        """The row that got a number, if one did."""
        after = bisect_right(self._numbered, number, key=lambda run: run[0])
        if after == 0:
            return None
        first, row, count = self._numbered[after - 1]
        return row + number - first if number < first + count else None

    def _add(self, given: list[tuple[Id, int]]) -> None:
        assert self._given is not None
        self._given.execute("BEGIN")
        try:
            self._given.executemany("INSERT INTO ids VALUES (?, ?)", ((str(name), row) for name, row in given))
        except sqlite3.IntegrityError:
            self._given.execute("ROLLBACK")
            earlier: dict[str, int] = {}
            for name, row in given:
                known = self._given.execute("SELECT row FROM ids WHERE id = ?", (str(name),)).fetchone()
                self._refuse(name, row, known[0] if known else earlier.get(str(name)))
                earlier[str(name)] = row
        except sqlite3.Error as error:
            raise SearchError(f"no room for ids in SQLite's temporary folder ({error}); see SQLITE_TMPDIR") from None
        self._given.execute("COMMIT")

    def _refuse(self, name: Id, row: int, earlier: int | None) -> None:
        if earlier is not None:
            raise DataError(
                f"id {name!r} occurs twice (documents {earlier + 1} and {row + 1}); ids are unique; upsert keeps the "
                "last"
            )


def read_documents(
    records: Iterable[Any], *, text_field: str | None = None, id_field: str | None = None,
    skipped: Faults | None = None,
) -> Iterator[Document]:
    """Records as documents; faulty ones are counted and left out where there is a ``skipped``, else refused."""
    for number, record in enumerate(records, start=1):
        try:
            yield as_document(record, text_field=text_field, id_field=id_field)
        except DataError as error:
            if skipped is None:
                raise
            skipped.add("documents", number, str(error), has_lines=False)


def as_rows(
    records: Iterator[Any], numbering: Numbering, *, with_text: bool, skipped: Faults | None = None,
) -> Iterator[list[Row]]:
    """Records as rows, block by block; every fault of a block is found before anything is made of it.

    Args:
        with_text: refuse documents without a text.
        skipped: counts faulty documents, which are left out; None: they are refused.

    Raises:
        DataError: names the document and what is wrong with it.
    """
    number = 0
    while block := list(islice(records, BLOCK)):
        documents: list[Document] = []
        kept: list[tuple[str | None, str | None]] = []  # text, and metadata as JSON
        for record in block:
            number += 1
            try:
                document = as_document(record)
                _check_text(document, number, with_text=with_text)
                _, text, metadata = row_of(document, document.id if document.id is not None else number)
            except DataError as error:
                if skipped is None:
                    raise
                skipped.add("documents", number, str(error), has_lines=False)
                continue
            documents.append(document)
            kept.append((text, metadata))
        names = numbering.ids(documents)
        if documents:
            yield [(name, text, metadata) for name, (text, metadata) in zip(names, kept, strict=True)]


def _check_text(document: Document, number: int, *, with_text: bool) -> None:
    text = document.text or ""
    try:
        f"{document.id}{text}".encode()
    except UnicodeEncodeError as error:
        raise DataError(f"document {number}, id {document.id!r}: not valid Unicode: {error.reason}") from None
    if with_text and not text.strip():
        raise DataError(f"document {number}, id {document.id!r}: no text to encode")
    if len(text) > MAX_CHARACTERS:
        raise DataError(
            f"document {number}, id {document.id!r}: {len(text):,} characters; at most {MAX_CHARACTERS:,}: split it "
            "into passages"
        )
