"""Streams of records and texts, for what need not be held whole: encoding, indexing, mining."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentemb.data.faults import Faults
from sentemb.data.formats import MISSING
from sentemb.data.sources import Format, source_blocks
from sentemb.errors import DataError, did_you_mean

_TEXT_NAMES = ("text", "sentence", "anchor")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One row, as it is in the file."""

    where: str  # "file:line"
    fields: dict[str, Any]
    is_typed: bool = True  # false in csv and tsv, where every value is a text


def iter_records(
    path: str | Path,
    *,
    split: str | None = None,
    format: Format | None = None,
    skipped: Faults | None = None,
    advice: str = "correct these rows, or skip faulty ones",
) -> Iterator[Record]:
    """All rows with all their columns, in order; a txt file's column is ``text``. ``advice`` ends the error.

    Args:
        skipped: leave faulty rows out, and collect them here.

    Raises: DataError for rows that cannot be read (see ``read_table``), once the rows before them have been given.
    """
    faults = Faults() if skipped is None else skipped
    for block in source_blocks(path, faults, split=split, format=format):
        if skipped is None:
            faults.raise_if_any(advice)
        for i, values in enumerate(zip(*block.columns, strict=True)):
            fields = {name: value for name, value in zip(block.names, values, strict=True) if value is not MISSING}
            yield Record(where=block.where(i), fields=fields, is_typed=block.is_typed)
    if skipped is None:
        faults.raise_if_any(advice)


def iter_texts(
    path: str | Path,
    text_column: str | None = None,
    *,
    split: str | None = None,
    format: Format | None = None,
    skipped: Faults | None = None,
) -> Iterator[str]:
    """The texts of one column, without white space at both ends.

    Args:
        text_column: by default ``text``, ``sentence`` or ``anchor``, or the only column there is.
        skipped: leave out faulty rows and rows without a text, and collect them here.

    Raises: DataError for rows that cannot be read, and for empty texts.
    """
    for record in iter_records(path, split=split, format=format, skipped=skipped):
        text_column = text_column or _text_column(record)
        text = record.fields.get(text_column)
        if isinstance(text, str) and text.strip():
            yield text.strip()
        elif skipped is None:
            raise DataError(f"{record.where}: {_text_fault(record, text_column)}")
        else:
            skipped.count += 1


def _text_column(record: Record) -> str:
    names = list(record.fields)
    for name in _TEXT_NAMES:
        if name in names:
            return name
    if len(names) == 1:
        return names[0]
    raise DataError(f"{record.where}: which column holds the text? Columns: {', '.join(names) or 'none'}")


def _text_fault(record: Record, column: str) -> str:
    if column not in record.fields:
        return f'no column "{column}"{did_you_mean(column, record.fields)}'
    value = record.fields[column]
    if value is None or isinstance(value, str):
        return f'column "{column}" is empty; every row needs a text'
    return f'column "{column}" is {type(value).__name__}, no text'
