"""Records of any source as documents: which field is the text, which the id, what metadata keeps, what is refused."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from sentemb.data.faults import Faults
from sentemb.data.sources import Record
from sentemb.errors import DataError, SearchError
from sentemb.search.store.documents import Document, Id, Row, integer_of, is_id, json_of
from sentemb.search.store.segment import BLOCK

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
    if isinstance(record, Record):
        try:
            document = as_document(record.fields, text_field=text_field, id_field=id_field)
        except DataError as error:
            raise DataError(f"{record.where}: {error}") from None
        if record.is_typed:
            return document
        return replace(document, metadata={name: _number_or_text(value) for name, value in document.metadata.items()})
    if isinstance(record, str):
        record = Document(None, record)
    elif isinstance(record, Mapping):
        record = _from_mapping(record, text_field, id_field)
    if not isinstance(record, Document):
        raise DataError(f"a document is a text, a mapping or a Document; found {type(record).__name__}")
    if record.text is not None and not isinstance(record.text, str):
        raise DataError(f"document {record.id!r}: its text is {type(record.text).__name__}, not text")
    if record.id is not None and not is_id(record.id):
        raise DataError(f"document id {record.id!r}: an id is a text or a whole number of 64 bits")
    return record


def _from_mapping(record: Mapping[str, Any], text_field: str | None, id_field: str | None) -> Document:
    fields = dict(record)
    has = ", ".join(map(str, fields)) or "nothing"
    text_name = text_field or next((name for name in TEXT_FIELDS if name in fields), None)
    if text_name is None or text_name not in fields:
        raise DataError(f"a record has no text field {text_field or ''}; it has {has}; name it with text_field")
    if id_field is not None and id_field not in fields:
        raise DataError(f"a record has no id field {id_field}; it has {has}")
    text = fields.pop(text_name)
    if not isinstance(text, str):
        raise DataError(f"field {text_name} holds {type(text).__name__}, not text")
    title = fields.get("title")
    if text_field is None and isinstance(title, str):
        text = f"{title} {text}".strip()
    id_name = id_field or next((name for name in ID_FIELDS if name in fields), None)
    return Document(fields.pop(id_name) if id_name is not None else None, text, fields)


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
        is_unique: refuse every id that occurred before; else a given id only where it was given out as a number.
    """

    def __init__(self, next_id: int, *, is_unique: bool) -> None:
        self.next_id, self.rows, self._is_unique = next_id, 0, is_unique
        self._ids = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # a file that nobody sees
        self._ids.execute("CREATE TABLE ids (id TEXT PRIMARY KEY, row INTEGER) WITHOUT ROWID")

    def ids(self, documents: Sequence[Document]) -> list[Id]:
        """Ids of the next documents.

        Raises:
            DataError: one of them occurred before.
        """
        names: list[Id] = []
        for document in documents:
            name = self.next_id if document.id is None else document.id
            self.next_id = max(self.next_id, min(integer_of(name) + 1, 2**63 - 1))
            names.append(name)
        texts = [(str(name), row) for row, name in enumerate(names, start=self.rows)]
        claimed = [
            text for text, document in zip(texts, documents, strict=True) if self._is_unique or document.id is None
        ]
        self.rows += len(names)
        try:
            self._ids.execute("BEGIN")
            added = self._ids.executemany("INSERT OR IGNORE INTO ids VALUES (?, ?)", claimed).rowcount
            self._ids.execute("COMMIT")
        except sqlite3.Error as error:
            raise SearchError(f"no room for ids in SQLite's temporary folder ({error}); see SQLITE_TMPDIR") from None
        may_repeat = added < len(claimed) if self._is_unique else self._ids.total_changes > 0
        for name, row in texts if may_repeat else ():
            first = self._ids.execute("SELECT row FROM ids WHERE id = ?", (name,)).fetchone()
            if first is not None and first[0] != row:
                raise DataError(
                    f"id {names[row - self.rows]!r} occurs twice (documents {first[0] + 1} and {row + 1}); ids are "
                    "unique; upsert keeps the last"
                )
        return names


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
    records: Iterable[Any], numbering: Numbering, *, with_text: bool, skipped: Faults | None = None
) -> Iterator[Row]:
    """Records as rows; every fault of a block is found before the first of its rows is given.

    Args:
        with_text: refuse documents without a text.
        skipped: counts faulty documents, which are left out; None: they are refused.

    Raises:
        DataError: names the document and what is wrong with it.
    """
    numbered = enumerate(records, start=1)
    while block := list(islice(numbered, BLOCK)):
        documents: list[Document] = []
        metadata: list[str | None] = []
        for number, record in block:
            try:
                document = as_document(record)
                _check_text(document, number, with_text=with_text)
                metadata.append(json_of(document.metadata, number if document.id is None else document.id))
                documents.append(document)
            except DataError as error:
                if skipped is None:
                    raise
                skipped.add("documents", number, str(error), has_lines=False)
        names = numbering.ids(documents)
        yield from zip(names, (document.text for document in documents), metadata, strict=True)


def _check_text(document: Document, number: int, *, with_text: bool) -> None:
    text = document.text or ""
    fault = None
    try:
        f"{document.id}{text}".encode()
    except UnicodeEncodeError as error:
        fault = f"not valid Unicode: {error.reason}"
    if with_text and not text.strip():
        fault = "no text to encode"
    if len(text) > MAX_CHARACTERS:
        fault = f"{len(text):,} characters; at most {MAX_CHARACTERS:,}: split it into passages"
    if fault is not None:
        raise DataError(f"document {number}, id {document.id!r}: {fault}")
