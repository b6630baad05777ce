"""Records of any source as documents: which field is the text, which the id, and what metadata keeps."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sentemb.data.records import Record
from sentemb.errors import DataError
from sentemb.search.store.manifest import Document

ID_FIELDS = ("id", "_id")
TEXT_FIELDS = ("text", "_text", "sentence", "document", "passage")
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
    rest = dict(record)
    text_name = text_field or next((name for name in TEXT_FIELDS if name in rest), None)
    if text_name is None or text_name not in rest:
        has = ", ".join(map(str, rest)) or "nothing"
        raise DataError(f"a record has no text field {text_field or ''}; it has {has}; name it with text_field")
    text = rest.pop(text_name)
    if not isinstance(text, str):
        raise DataError(f"field {text_name} holds {type(text).__name__}, not text")
    title = rest.get("title")
    if text_field is None and isinstance(title, str) and title:
        text = f"{title} {text}".strip()
    id_name = id_field or next((name for name in ID_FIELDS if name in rest), None)
    if id_field is not None and id_field not in rest:
        raise DataError(f"a record has no id field {id_field}; it has {', '.join(map(str, record))}")
    found = rest.pop(id_name) if id_name is not None else None
    return Document(found, text, rest)


def _check_id(found: Any) -> None:
    if found is None or isinstance(found, str):
        return
    if isinstance(found, bool) or not isinstance(found, int) or not -(2**63) <= found < 2**63:
        raise DataError(f"document id {found!r}: an id is a text or a 64-bit integer")


def _number_or_text(value: Any) -> Any:
    if not isinstance(value, str) or len(value) > MAX_DIGITS or _NUMBER.fullmatch(value) is None:
        return value
    found = json.loads(value)
    is_kept = math.isfinite(found) if isinstance(found, float) else -(2**63) <= found < 2**63
    return found if is_kept else value
