"""Rows and lines of evaluation files, read by ``sentemb.data``; checked cells with an error that names the place."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sentemb.data import Record, iter_records
from sentemb.data.faults import damage_named
from sentemb.data.sources import COMPRESSIONS, open_bytes
from sentemb.errors import DataError

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def stem_of(path: Path) -> str:
    """``pairs`` of ``pairs.jsonl.zst``; the whole name of a folder."""
    plain = path.name.removesuffix(path.suffix) if path.suffix in COMPRESSIONS else path.name
    return next((plain.removesuffix(ending) for ending in (*FORMATS, ".txt") if plain.endswith(ending)), plain)


def table_file(folder: Path, stem: str) -> Path | None:
    """``folder/stem`` or ``folder/stem/stem`` with any known ending; None where there is no such file."""
    for path in (folder / stem, folder / stem / Path(stem).name):
        for ending in FORMATS:
            for packing in ("", *COMPRESSIONS):
                if (file := path.with_name(path.name + ending + packing)).is_file():
                    return file
    return None


def read_rows(path: Path) -> Iterator[Record]:
    """Rows of a table file (a txt file has the one column ``text``); ``where`` is ``file:line``.

    Raises: DataError: no such file, an unknown ending, or rows that cannot be read; names file and lines.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    plain = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    if plain.suffix not in (*FORMATS, ".txt"):
        known = ", ".join(FORMATS)
        raise DataError(f"{path}: unknown ending; known: {known}, each but parquet also with .gz or .zst")
    yield from iter_records(path, advice="correct these rows")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a plain, gzip or zstandard UTF-8 file with their numbers, from 1, without their ends.

    Raises: DataError: no such file, damaged, or not UTF-8; names file and line.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with damage_named(str(path)), open_bytes(path) as stream:
        for number, raw in enumerate(stream, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}:{number}: not UTF-8 ({error.reason}); convert the file to UTF-8") from None
            yield number, line.rstrip("\r\n")


def cell_of(row: Record, column: str) -> Any:
    """What stands in ``column``.

    Raises: DataError: there is no such column; names file and line.
    """
    if column not in row.fields:
        raise DataError(f'{row.where}: no column "{column}"; found: {", ".join(map(str, row.fields))}')
    return row.fields[column]


def text_of(row: Record, column: str) -> str:
    """The text in ``column``.

    Raises: DataError: it is absent or no text; names file and line.
    """
    value = cell_of(row, column)
    if not isinstance(value, str):
        raise DataError(f'{row.where}: column "{column}" holds {value!r}; text is needed')
    return value


def number_of(row: Record, column: str) -> float:
    """The finite number in ``column``.

    Raises: DataError: it is absent or no number; names file and line.
    """
    cell = cell_of(row, column)
    try:
        value = float(cell)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f'{row.where}: column "{column}" holds {cell!r}; a finite number is needed')
    return value
