"""Rows of txt, csv, tsv and jsonl streams and of Arrow data, in blocks of columns with their line numbers."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sentemb.data.faults import Faults
from sentemb.errors import DataError

BLOCK = 8192  # rows


class _Missing:
    def __repr__(self) -> str:
        return "missing"


MISSING: Final = _Missing()  # a key that a JSON object lacks


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some rows of one file: a list of values per column."""

    file: str
    names: tuple[str, ...]
    columns: tuple[list[Any], ...]
    lines: Sequence[int]  # where every row starts, from 1; row numbers where the format has no lines
    has_lines: bool = True
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # names of an integer column's classes
    is_typed: bool = True  # false where the format has texts only

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int) -> str:
        """``file:line`` of a row."""
        return f"{self.file}:{self.lines[row]}" if self.has_lines else f"{self.file}: row {self.lines[row]}"


# ------------------------------------------------------------------------------------------------ text
def txt_blocks(stream: Iterable[bytes], file: str, faults: Faults) -> Iterator[Block]:
    """One sentence a line, in the column ``text``. Blank lines are faults, except at the end of the file."""
    texts: list[str] = []
    lines: list[int] = []
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
        texts.append(line.rstrip("\r\n"))
        lines.append(number)
        if len(texts) == BLOCK:
            yield Block(file=file, names=("text",), columns=(texts,), lines=lines)
            texts, lines = [], []
    yield Block(file=file, names=("text",), columns=(texts,), lines=lines)


def jsonl_blocks(stream: Iterable[bytes], file: str, faults: Faults) -> Iterator[Block]:
    """One JSON object a line; blank lines are skipped. A block's names are its rows' keys as they first appear."""
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    for number, raw in enumerate(stream, 1):
        row = _json_object(raw, file, number, faults)
        if row is None:
            continue
        rows.append(row)
        lines.append(number)
        if len(rows) == BLOCK:
            yield _transpose(rows, file, lines)
            rows, lines = [], []
    yield _transpose(rows, file, lines)


def _json_object(raw: bytes, file: str, number: int, faults: Faults) -> dict[str, Any] | None:
    line = _decode(raw, file, number, faults)
    if line is None or not line.strip():
        return None
    try:
        row = json.loads(line.rstrip("\r\n"))
        if b"\\u" in raw:  # only an escape can smuggle in half a surrogate pair
            json.dumps(row, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        problem = f"no JSON object: {error.msg} at column {error.colno}"
        faults.add(file, number, f"{problem}; one JSON object a line is expected")
    except UnicodeEncodeError:
        faults.add(file, number, "an escape such as \\ud800 is half of a surrogate pair, which is no character")
    except ValueError as error:  # an integer of more than 4,300 digits
        faults.add(file, number, f"no JSON object: {error}")
    except RecursionError:
        faults.add(file, number, "the JSON is nested too deeply")
    else:
        if isinstance(row, dict):
            return row
        kind = {list: "an array", str: "a string", type(None): "null"}.get(type(row), "a number or a truth value")
        faults.add(file, number, f"found {kind}; one JSON object a line is expected")
    return None


def _transpose(
    rows: Sequence[Mapping[str, Any]], file: str, lines: Sequence[int], *, has_lines: bool = True
) -> Block:
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    columns = tuple([row.get(name, MISSING) for row in rows] for name in names)
    return Block(file=file, names=names, columns=columns, lines=lines, has_lines=has_lines)


def row_blocks(rows: Iterable[object], name: str) -> Iterator[Block]:
    """Rows that are dicts, tuples or texts; the columns of a tuple are called ``column_1``, ``column_2``, …

    Raises: DataError for a row of another kind.
    """
    first, numbered = 1, enumerate(rows, 1)
    while block := [_named(row, number, name) for number, row in itertools.islice(numbered, BLOCK)]:
        yield _transpose(block, name, range(first, first + len(block)), has_lines=False)
        first += len(block)


def _named(row: object, number: int, name: str) -> Mapping[str, Any]:
    if isinstance(row, Mapping):
        return row
    if isinstance(row, str):
        return {"text": row}
    if isinstance(row, Sequence):
        names = getattr(row, "_fields", None) or [f"column_{i}" for i in range(1, len(row) + 1)]
        return dict(zip(names, row, strict=True))
    raise DataError(f"{name}: row {number} is {type(row).__name__}; a row is a dict, a tuple or a text")


def separated_blocks(
    stream: Iterable[bytes], file: str, faults: Faults, *, delimiter: str, quoted: bool, has_header: bool
) -> Iterator[Block]:
    """Rows of a csv or tsv file; blank lines are skipped, every other row must be as wide as the header.

    Without a header the columns are called ``column_1``, ``column_2``, …
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default refuses documents longer than 128 KiB
    bad: set[int] = set()
    if quoted:
        reader = csv.reader(_decoded(stream, file, faults, bad), delimiter=delimiter, strict=True)
    else:
        reader = csv.reader(_decoded(stream, file, faults, bad), delimiter=delimiter, quoting=csv.QUOTE_NONE)
    names: tuple[str, ...] = ()
    rows: list[list[str]] = []
    lines: list[int] = []
    for line, row in _numbered(reader, file, faults, bad):
        if not names:
            names = tuple(f"column_{i}" for i in range(1, len(row) + 1)) if not has_header else tuple(row)
            if has_header:
                continue
        if len(row) != len(names):
            faults.add(file, line, f"{len(row)} fields, but the columns are {len(names)}: {', '.join(names)}")
            continue
        rows.append(row)
        lines.append(line)
        if len(rows) == BLOCK:
            yield Block(
                file=file, names=names, columns=tuple(map(list, zip(*rows, strict=True))), lines=lines, is_typed=False
            )
            rows, lines = [], []
    columns = tuple(map(list, zip(*rows, strict=True))) if rows else tuple([] for _ in names)
    yield Block(file=file, names=names, columns=columns, lines=lines, is_typed=False)


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
def arrow_blocks(
    batches: Iterable[Any], file: str, faults: Faults, classes: Mapping[str, tuple[str, ...]]
) -> Iterator[Block]:
    """Blocks of pyarrow record batches or tables; faults are told by row number, from 1."""
    first = 1
    for batch in batches:
        rows = range(first, first + batch.num_rows)
        first = rows.stop
        bad: set[int] = set()
        columns = [_values(batch.column(i), file, rows, faults, bad) for i in range(batch.num_columns)]
        lines: Sequence[int] = rows
        if bad:
            columns = [[value for i, value in enumerate(column) if i not in bad] for column in columns]
            lines = [row for i, row in enumerate(rows) if i not in bad]
        yield Block(
            file=file,
            names=tuple(batch.schema.names),
            columns=tuple(columns),
            lines=lines,
            has_lines=False,
            classes=classes,
        )


def _values(column: Any, file: str, rows: range, faults: Faults, bad: set[int]) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = []
        for i in range(len(column)):
            try:
                values.append(column[i].as_py())
            except UnicodeDecodeError:
                values.append(None)
                if i not in bad:
                    faults.add(file, rows[i], "a text is not UTF-8", has_lines=False)
                bad.add(i)
    return values


def class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Names of integer classes, from what the ``datasets`` library writes into an Arrow schema."""
    try:
        info = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        features = info.get("info", {}).get("features", {})
        return {
            name: tuple(map(str, feature["names"]))
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, AttributeError, KeyError, TypeError):
        return {}  # someone else's metadata under that key
