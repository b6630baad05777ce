"""From a path, ``-``, a folder or a hub id to blocks of rows, and to streams of records and texts."""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from reprlib import repr as short
from typing import Any, BinaryIO, Literal, cast

from sentemb.data.databases import Query, how_to_query
from sentemb.data.faults import Faults, damage_named
from sentemb.data.formats import BLOCK, MISSING, RecordBlock, arrow_blocks, jsonl_blocks, separated_blocks, txt_blocks
from sentemb.errors import DataError, did_you_mean, first_line, needs_extra

Format = Literal["txt", "csv", "tsv", "jsonl", "parquet"]
_FORMATS: dict[str, Format] = {
    ".txt": "txt", ".text": "txt", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".json": "jsonl", ".parquet": "parquet",
}  # fmt: skip
COMPRESSIONS = (".gz", ".zst")
_CHUNK = 1 << 20
_TEXT_NAMES = ("text", "sentence", "anchor")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One row, as it is in the file."""

    where: str  # "file:line"
    fields: dict[str, Any]
    is_typed: bool = True  # false in csv and tsv, where every value is a text


def iter_records(
    path: str | Path, *, split: str | None = None, skipped: Faults | None = None,
    advice: str = "correct these rows, or skip faulty ones",
) -> Iterator[Record]:  # fmt: skip
    """All rows with all their columns, in order; a txt file's column is ``text``. ``advice`` ends the error.

    Args:
        skipped: leave faulty rows out, and collect them here.

    Raises: DataError for rows that cannot be read (see ``read_table``), once the rows before them have been given.
    """
    faults = Faults() if skipped is None else skipped
    for block in source_blocks(path, faults, split=split):
        if skipped is None:
            faults.raise_if_any(advice)
        yield from records_of([block])
    if skipped is None:
        faults.raise_if_any(advice)


def records_of(blocks: Iterable[RecordBlock]) -> Iterator[Record]:
    """The rows of blocks one by one."""
    for block in blocks:
        for i, values in enumerate(zip(*block.columns, strict=True)):
            fields = {name: value for name, value in zip(block.names, values, strict=True) if value is not MISSING}
            yield Record(where=block.where(i), fields=fields, is_typed=block.is_typed)


def iter_texts(
    path: str | Path, text_column: str | None = None, *, split: str | None = None, skipped: Faults | None = None
) -> Iterator[str]:
    """The texts of one column, without white space at both ends.

    Args:
        text_column: by default ``text``, ``sentence`` or ``anchor``, or the only column there is.
        skipped: leave out faulty rows and rows without a text, and collect them here.

    Raises: DataError for rows that cannot be read, and for empty texts.
    """
    return (text for text, _ in iter_texts_with_columns(path, text_column, split=split, skipped=skipped))


def iter_texts_with_columns(
    path: str | Path, text_column: str | None = None, *, split: str | None = None, skipped: Faults | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """``iter_texts``, with the further columns of every row."""
    for record in iter_records(path, split=split, skipped=skipped):
        text_column = text_column or _text_column(record)
        text = record.fields.get(text_column)
        if isinstance(text, str) and text.strip():
            yield text.strip(), {name: value for name, value in record.fields.items() if name != text_column}
        elif skipped is not None:
            skipped.count += 1
        elif text_column not in record.fields:
            raise DataError(f'{record.where}: no column "{text_column}"{did_you_mean(text_column, record.fields)}')
        else:
            raise DataError(f'{record.where}: column "{text_column}" is {short(text)}; every row needs a text')


def _text_column(record: Record) -> str:
    known = [name for name in _TEXT_NAMES if name in record.fields]
    if not known and len(record.fields) != 1:
        raise DataError(f"{record.where}: which column holds the text? Columns: {', '.join(record.fields) or 'none'}")
    return (known or list(record.fields))[0]


# --------------------------------------------------------------------------------------------- blocks
def source_blocks(
    path: str | Path, faults: Faults, *, split: str | None = None, config: str | None = None,
    revision: str | None = None, format: Format | None = None,
) -> Iterator[RecordBlock]:  # fmt: skip
    """All rows of files or of a hub data set, in order; ``faults`` collects those that cannot be read.

    Args:
        path: see ``TableData``, or a database with a query (``notes.db: SELECT …``).
        split, config, revision, format: see ``TableData``.

    Raises: DataError where the source is missing, damaged or of an unknown format.
    """
    query = Query.read(path)
    if query is not None:
        yield from query.blocks()
        return
    source = Path(path).expanduser()
    if str(path) == "-":
        yield from _stream_blocks(sys.stdin.buffer, "-", format, faults)
    elif not source.exists() or any((source / name).is_file() for name in ("dataset_dict.json", "state.json")):
        yield from _datasets_blocks(str(path), config, split, revision, faults)
    elif split is not None and not source.is_dir():
        raise DataError(f'{source}: split = "{split}" is for folders and hub ids; this is one file')
    else:
        for file in _folder_files(source, split) if source.is_dir() else [source]:
            yield from _file_blocks(file, format or _format_of(file), faults)


def _file_blocks(path: Path, format_: Format, faults: Faults) -> Iterator[RecordBlock]:
    if format_ != "parquet":
        with damage_named(str(path)), open_bytes(path) as stream:
            yield from _stream_blocks(stream, str(path), format_, faults)
        return
    needs_extra("pyarrow", "data")
    import pyarrow as pa
    import pyarrow.parquet as pq

    with damage_named(str(path), pa.ArrowException):
        yield from arrow_blocks(pq.ParquetFile(path).iter_batches(BLOCK), str(path), faults)


def _stream_blocks(stream: BinaryIO, file: str, format_: Format | None, faults: Faults) -> Iterator[RecordBlock]:
    lines: Iterable[bytes] = stream
    if format_ is None:  # standard input holds JSON lines if its first line is a JSON object; a sentence never is
        first = stream.readline()
        lines, format_ = chain([first] if first else [], stream), "jsonl" if _is_object(first) else "txt"
    if format_ == "txt":
        yield from txt_blocks(lines, file, faults)
    elif format_ == "jsonl":
        yield from jsonl_blocks(lines, file, faults)
    elif format_ == "parquet":
        raise DataError(f"{file}: parquet cannot be read from a stream; give a file")
    else:
        yield from separated_blocks(lines, file, faults, is_tsv=format_ == "tsv")


def open_bytes(path: Path) -> BinaryIO:
    """The decompressed bytes of a file, by its suffix."""
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.suffix == ".zst":
        needs_extra("pyarrow", "data")
        import pyarrow as pa

        return io.BufferedReader(pa.input_stream(path, compression="zstd", buffer_size=_CHUNK), _CHUNK)
    return path.open("rb", buffering=_CHUNK)


def _folder_files(folder: Path, split: str | None) -> list[Path]:
    """The data files of the split, in order of their names."""
    by_split: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        is_hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        is_data = path.is_file() and _suffix(path) in _FORMATS and not is_hidden
        if is_data and path.name not in ("dataset_infos.json", "dataset_info.json"):
            by_split.setdefault(_split_of(path, folder), []).append(path)
    if not by_split:
        raise DataError(f"{folder}: no data files ({', '.join(sorted(_FORMATS))}; also with .gz, .zst)")
    return by_split[_choose_split(list(by_split), split, folder)]


def _datasets_blocks(
    name: str, config: str | None, split: str | None, revision: str | None, faults: Faults
) -> Iterator[RecordBlock]:
    """Rows of a ``save_to_disk`` folder or a data set on the hub (or in its cache); its scripts are never run."""
    folder = Path(name).expanduser()
    if not folder.exists() and (not HUB_ID.fullmatch(name) or _suffix(folder) in _FORMATS):
        names = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
        close = get_close_matches(folder.name, names, n=1)
        raise DataError(f"{name}: no such file or folder" + (f"; did you mean {close[0]}?" if close else ""))
    needs_extra("datasets", "data")
    import datasets

    data: Any
    try:
        if folder.exists():
            data = datasets.load_from_disk(folder)
        else:
            data = datasets.load_dataset(name, config, revision=revision)
    except Exception as error:  # the library raises many kinds, its own, OSError's and the network's
        whence = "from this folder" if folder.exists() else "from the hub; there is no such file or folder here"
        raise DataError(f"{name}: datasets could not load it {whence}: {first_line(error)}") from error
    if isinstance(data, dict):
        split = _choose_split(list(data), split, name)
        data = data[split]
    yield from arrow_blocks(data.with_format("arrow").iter(BLOCK), f"{name} ({split})" if split else name, faults)


# ------------------------------------------------------------------------------------------ details
def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix in COMPRESSIONS else path.suffix.lower()


def _format_of(path: Path) -> Format:
    suffix = _suffix(path)
    if suffix not in _FORMATS:
        if query := how_to_query(path):
            raise DataError(f"{path}: {query}")
        raise DataError(
            f'{path}: unknown format "{suffix}"; known: {", ".join(sorted(_FORMATS))}, also with .gz or .zst; '
            'or name it: format = "txt"'
        )
    if path.suffix in COMPRESSIONS and suffix == ".parquet":
        raise DataError(f"{path}: {suffix} files are compressed inside; unpack this one first")
    return _FORMATS[suffix]


def _split_of(path: Path, folder: Path) -> str:
    """``train`` of ``train.jsonl``, ``train-00000-of-00002.parquet`` and ``train/part-1.csv``."""
    parts = path.relative_to(folder).parts
    if len(parts) > 1 and parts[-2] != "data":
        return parts[-2]
    return re.sub(r"[-_.]\d+(-of-\d+)?$", "", path.name.split(".")[0])


def _choose_split(known: list[str], wanted: str | None, where: str | Path) -> str:
    if wanted is None and len(known) == 1:
        return known[0]
    if wanted is None and "train" in known:
        return "train"
    if wanted is None:
        raise DataError(f"{where}: several splits: {', '.join(sorted(known))}; choose one with split = …")
    if wanted not in known:
        raise DataError(f'{where}: no split "{wanted}"{did_you_mean(wanted, known)}')
    return wanted
