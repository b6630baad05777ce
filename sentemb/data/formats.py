"""Rows of txt, csv, tsv and jsonl streams and of Arrow data, in blocks of columns with their line numbers."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar

from sentemb.data.faults import Faults
from sentemb.errors import DataError, first_line

T = TypeVar("T")
BLOCK = 8192  # rows
MISSING: Final = ...  # the value of a key that a JSON object lacks


@dataclass(frozen=True, kw_only=True)
class RecordBlock:
    """One or more rows of one file: a list of values per column."""

    file: str
    names: tuple[str, ...]
    columns: tuple[list[Any], ...]
    lines: Sequence[int]  # where every row starts, from 1; row numbers where the format has no lines
    has_lines: bool = True
    is_typed: bool = True  # false where the format has texts only

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int) -> str:
        """``file:line`` of a row."""
        return f"{self.file}:{self.lines[row]}" if self.has_lines else f"{self.file}: row {self.lines[row]}"


# ------------------------------------------------------------------------------------------------ text
def txt_blocks(stream: Iterable[bytes], file: str, faults: Faults) -> Iterator[RecordBlock]:
    """One sentence a line, in the column ``text``. Blank lines are faults, except at the end of the file."""

    def rows() -> Iterator[tuple[int, str]]:
        blank: list[int] = []
        for number, raw in enumerate(stream, 1):
            line = _decode(raw, file, number, faults)
            if line is None:
                continue
            if not line.strip():
                blank.append(number)
                continue
            for earlier in blank:
                faults.add(file, earlier, "the line is empty; one sentence a line is expected")
            blank.clear()
            yield number, line.rstrip("\r\n")

    for lines, texts in _in_blocks(rows()):
        yield RecordBlock(file=file, names=("text",), columns=(texts,), lines=lines)


def _in_blocks(rows: Iterator[tuple[int, T]]) -> Iterator[tuple[list[int], list[T]]]:
    """Line numbers and rows."""
    while block := list(islice(rows, BLOCK)):
        yield [line for line, _ in block], [row for _, row in block]


def jsonl_blocks(stream: Iterable[bytes], file: str, faults: Faults) -> Iterator[RecordBlock]:
    """One JSON object a line; blank lines are skipped. A block's names are its rows' keys as they first appear."""
    objects = ((number, _json_object(raw, file, number, faults)) for number, raw in enumerate(stream, 1))
    for lines, rows in _in_blocks((number, row) for number, row in objects if row is not None):
        yield _transpose(rows, file, lines)


def _json_object(raw: bytes, file: str, number: int, faults: Faults) -> dict[str, Any] | None:
    line = _decode(raw, file, number, faults)
    if line is None or not line.strip():
        return None
    try:
        row = json.loads(line.rstrip("\r\n"))
        if b"\\u" in raw:  # only an escape can smuggle in half a surrogate pair
            json.dumps(row, ensure_ascii=False).encode("utf-8")
        fault = f"found {type(row).__name__}"
    except (ValueError, RecursionError) as error:
        row, fault = None, f"no JSON object: {first_line(error)}"
    if isinstance(row, dict):
        return row
    faults.add(file, number, f"{fault}; one JSON object a line is expected")
    return None


def _transpose(
    rows: Sequence[Mapping[str, Any]], file: str, lines: Sequence[int], *, has_lines: bool = True
) -> RecordBlock:
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    columns = tuple([row.get(name, MISSING) for row in rows] for name in names)
    return RecordBlock(file=file, names=names, columns=columns, lines=lines, has_lines=has_lines)


def row_blocks(rows: Iterable[object], name: str) -> Iterator[RecordBlock]:
    """Rows that are dicts, tuples or texts; the columns of a tuple are called ``column_1``, ``column_2``, …

    Raises: DataError for a row of another kind.
    """
    for lines, block in _in_blocks((number, _named(row, number, name)) for number, row in enumerate(rows, 1)):
        yield _transpose(block, name, lines, has_lines=False)


def _named(row: object, number: int, name: str) -> Mapping[str, Any]:
    if isinstance(row, Mapping):
        return row
    if isinstance(row, str):
        return {"text": row}
    if isinstance(row, Sequence):
        names = getattr(row, "_fields", None) or [f"column_{i}" for i in range(1, len(row) + 1)]
        return dict(zip(names, row, strict=True))
    raise DataError(f"{name}: row {number} is {type(row).__name__}; a row is a dict, a tuple or a text")


def separated_blocks(stream: Iterable[bytes], file: str, faults: Faults, *, is_tsv: bool) -> Iterator[RecordBlock]:
    """Rows of a csv file (fields may be quoted) or a tsv file (quotes are characters like others) with a header.

    Blank lines are skipped, every other row must be as wide as the header.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default refuses documents longer than 128 KiB
    bad: set[int] = set()  # lines that cannot be decoded
    reader = csv.reader(
        _decoded(stream, file, faults, bad), delimiter="\t" if is_tsv else ",", strict=not is_tsv,
        quoting=csv.QUOTE_NONE if is_tsv else csv.QUOTE_MINIMAL,
    )  # fmt: skip
    numbered = _numbered(reader, file, faults, bad)
    _, header = next(numbered, (0, []))

    def rows() -> Iterator[tuple[int, list[str]]]:
        for line, row in numbered:
            if len(row) == len(header):
                yield line, row
            else:
                faults.add(file, line, f"{len(row)} fields, but the columns are {len(header)}: {', '.join(header)}")

    for lines, block in _in_blocks(rows()):
        columns = tuple(map(list, zip(*block, strict=True)))
        yield RecordBlock(file=file, names=tuple(header), columns=columns, lines=lines, is_typed=False)


def _numbered(reader: Any, file: str, faults: Faults, bad: set[int]) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of the line on which they start, without blank ones and those with undecodable lines."""
    while True:
        start = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = "the row that starts here has an unclosed quote" if "end of data" in str(error) else str(error)
            faults.add(file, start, f'{problem}; a quote inside a quoted field is written twice: ""')
            continue
        if row and not bad.intersection(range(start, reader.line_num + 1)):
            yield start, row


def _decoded(stream: Iterable[bytes], file: str, faults: Faults, bad: set[int]) -> Iterator[str]:
    for number, raw in enumerate(stream, 1):
        line = _decode(raw, file, number, faults)
        if line is None:
            bad.add(number)
            line = raw.decode("utf-8", "replace")  # keeps the quotes, which say where the row ends
        yield line


def _decode(raw: bytes, file: str, number: int, faults: Faults) -> str | None:
    try:
        line = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if number == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
            what = "the file is UTF-16; convert it: iconv -f utf-16 -t utf-8"
        else:
            what = f"byte 0x{raw[error.start]:02x} at place {error.start + 1} of the line is not UTF-8"
        faults.add(file, number, what)
        return None
    return line.removeprefix("\ufeff") if number == 1 else line


# ----------------------------------------------------------------------------------------------- Arrow
def arrow_blocks(batches: Iterable[Any], file: str, faults: Faults) -> Iterator[RecordBlock]:
    """Blocks of pyarrow record batches or tables."""
    first = 1
    for batch in batches:
        yield from _arrow_block(batch, file, first, faults)
        first += batch.num_rows


def _arrow_block(batch: Any, file: str, first: int, faults: Faults) -> Iterator[RecordBlock]:
    """One block, or smaller ones around the rows that are not UTF-8."""
    lines, half = range(first, first + batch.num_rows), batch.num_rows // 2
    try:
        columns = tuple(column.to_pylist() for column in batch.columns)
        yield RecordBlock(file=file, names=tuple(batch.schema.names), columns=columns, lines=lines, has_lines=False)
    except UnicodeDecodeError:
        if half:
            yield from _arrow_block(batch.slice(0, half), file, first, faults)
            yield from _arrow_block(batch.slice(half), file, first + half, faults)
        else:
            faults.add(file, first, "a text is not UTF-8", has_lines=False)
