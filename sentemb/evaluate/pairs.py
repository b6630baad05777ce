"""Files of sentence pairs with a graded similarity: csv, tsv, jsonl, parquet; plain, .gz or .zst."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import DataError

Row = tuple[int, Mapping[str, Any]]  # line number in the file (from 1) and the row

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class PairSet:
    """Sentence pairs with gold scores. ``subset`` names each pair's part where the set has parts."""

    name: str
    sentence1: Sequence[str]
    sentence2: Sequence[str]
    score: NDArray[np.float64]  # (pairs,)
    subset: Sequence[str] | None = None
    source: str = ""  # file it came from
    notes: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.score)


def format_of(path: Path) -> str | None:
    """``.jsonl`` for ``x.jsonl.zst`` and so on; None where the ending is unknown."""
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    return next((ending for ending in FORMATS if name.endswith(ending)), None)


def open_text(path: Path) -> io.TextIOBase:
    """A UTF-8 text stream of a plain, gzip or zstandard file; a byte order mark is dropped."""
    if path.name.endswith(".gz"):
        import gzip

        return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8-sig", newline="")
    if path.name.endswith(".zst"):
        import zstandard

        binary = zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True)
        return io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a table file with their line numbers (of a parquet file: row numbers).

    Raises:
        DataError: No such file, an unknown ending, or a line that cannot be read; names file and line.
    """
    kind = format_of(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if kind is None:
        raise DataError(f"{path}: unknown ending; known: {', '.join(FORMATS)}, each also with .gz or .zst")
    if kind == ".parquet":
        yield from _parquet_rows(path)
        return
    try:
        with open_text(path) as file:
            yield from _json_rows(path, file) if kind in (".jsonl", ".json") else _csv_rows(path, file, kind)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason}); convert the file to UTF-8") from None


def _json_rows(path: Path, file: io.TextIOBase) -> Iterator[Row]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            where = f"{path}:{number}: not JSON: {error.msg} at column {error.colno}"
            raise DataError(f"{where}; one object a line is needed") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: a JSON {type(row).__name__}; one object a line is needed")
        yield number, row


def _csv_rows(path: Path, file: io.TextIOBase, kind: str) -> Iterator[Row]:
    # quotes inside tsv are text in every public STS file; in csv they quote
    if kind == ".tsv":
        reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(file, strict=True)
    try:
        header = next(reader, None)
        if not header:
            raise DataError(f"{path}: empty; a header line with the column names is needed")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                where = f"{path}:{reader.line_num}"
                raise DataError(f"{where}: {len(cells)} fields; the header has {len(header)} ({', '.join(header)})")
            yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}") from None


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
        number = 0
        for batch in table.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a readable parquet file: {error}") from None


def text_of(path: Path, number: int, row: Mapping[str, Any], column: str) -> str:
    """The text in ``column``; an error with file and line where it is absent or no text."""
    if column not in row:
        raise DataError(f'{path}:{number}: no column "{column}"; found: {", ".join(map(str, row))}')
    value = row[column]
    if not isinstance(value, str):
        raise DataError(f'{path}:{number}: column "{column}" holds {value!r}; text is needed')
    return value


def number_of(path: Path, number: int, row: Mapping[str, Any], column: str) -> float:
    """The finite number in ``column``; an error with file and line otherwise."""
    if column not in row:
        raise DataError(f'{path}:{number}: no column "{column}"; found: {", ".join(map(str, row))}')
    try:
        value = float(row[column])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f'{path}:{number}: column "{column}" holds {row[column]!r}; a finite number is needed')
    return value


def read_pairs(path: Path | str, *, name: str | None = None) -> PairSet:
    """A file with the columns ``sentence1``, ``sentence2``, ``score`` and, if it likes, ``subset``.

    Raises:
        DataError: What ``read_rows`` raises, a missing column, a score that is no number, or no rows.
    """
    path = Path(path)
    first: list[str] = []
    second: list[str] = []
    score: list[float] = []
    subset: list[str] = []
    for number, row in read_rows(path):
        first.append(text_of(path, number, row, "sentence1"))
        second.append(text_of(path, number, row, "sentence2"))
        score.append(number_of(path, number, row, "score"))
        if row.get("subset") is not None:
            subset.append(str(row["subset"]))
    if not score:
        raise DataError(f"{path}: no pairs in it")
    if subset and len(subset) != len(score):
        raise DataError(f'{path}: {len(subset):,} of {len(score):,} rows have a "subset"; give all rows one, or none')
    stem = path.name.removesuffix(".gz").removesuffix(".zst")
    return PairSet(name or stem.rsplit(".", 1)[0], first, second, np.array(score), subset or None, str(path))
