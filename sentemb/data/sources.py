"""From a path, ``-``, a folder or a hub id to blocks of rows."""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from sentemb.data.faults import Faults, damage_named
from sentemb.data.formats import BLOCK, RecordBlock, arrow_blocks, jsonl_blocks, separated_blocks, txt_blocks
from sentemb.errors import DataError, did_you_mean, first_line, needs_extra

Format = Literal["txt", "csv", "tsv", "jsonl", "parquet", "arrow"]
_FORMATS: dict[str, Format] = {
    ".txt": "txt", ".text": "txt", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".json": "jsonl", ".parquet": "parquet", ".arrow": "arrow",
}  # fmt: skip
COMPRESSIONS = (".gz", ".zst")
_CHUNK = 1 << 20
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def source_blocks(
    path: str | Path,
    faults: Faults,
    *,
    split: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    format: Format | None = None,
    quoted: bool | None = None,
    has_header: bool = True,
) -> Iterator[RecordBlock]:
    """All rows of files or of a hub data set, in order. Empty blocks tell the column names of files without rows.

    Args:
        path: a file (txt, csv, tsv, jsonl, parquet, arrow; ``.gz`` and ``.zst`` too), ``-`` for standard input
            (JSON objects or plain lines, told apart by the first line), a folder of data files, a folder made by
            ``datasets``' ``save_to_disk``, or the id of a data set on the hub.
        faults: collects rows that cannot be read.
        split, config, revision, format, quoted, has_header: see ``TableData``.

    Raises: DataError where the source is missing, damaged or of an unknown format.
    """
    folder = Path(path).expanduser()
    files: list[Path | None] = [folder]
    if str(path) == "-":
        files = [None]
    elif folder.is_dir():
        files = [*_folder_files(folder, split)]
    elif not folder.exists():
        yield from hub_blocks(str(path), config, split, revision, faults)
        return
    elif split is not None:
        raise DataError(f'{folder}: split = "{split}" is for folders and hub ids; this is one file')
    for file in files:
        yield from _file_blocks(file, format or (_format_of(file) if file else None), faults, quoted, has_header)


def _file_blocks(
    path: Path | None, format_: Format | None, faults: Faults, quoted: bool | None, has_header: bool
) -> Iterator[RecordBlock]:
    file = "-" if path is None else str(path)
    if path is not None and format_ in ("parquet", "arrow"):
        yield from _arrow_file(path, format_, faults)
        return
    with damage_named(file), open_bytes(path) as stream:
        lines: Iterable[bytes] = stream
        if format_ is None:  # standard input holds JSON lines if its first line is a JSON object; a sentence never is
            first = stream.readline()
            lines, format_ = chain([first] if first else [], stream), "jsonl" if _is_object(first) else "txt"
        if format_ == "txt":
            yield from txt_blocks(lines, file, faults)
        elif format_ == "jsonl":
            yield from jsonl_blocks(lines, file, faults)
        elif format_ in ("csv", "tsv"):
            yield from separated_blocks(
                lines, file, faults, delimiter="\t" if format_ == "tsv" else ",",
                quoted=format_ == "csv" if quoted is None else quoted, has_header=has_header,
            )  # fmt: skip
        else:
            raise DataError(f"{file}: {format_} cannot be read from a stream; give a file")


def open_bytes(path: Path | None) -> BinaryIO:
    """The decompressed bytes of a file (by its suffix), or of standard input (None)."""
    if path is None:
        return sys.stdin.buffer
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.suffix == ".zst":
        needs_extra("pyarrow", "data")
        import pyarrow as pa

        return io.BufferedReader(pa.input_stream(path, compression="zstd", buffer_size=_CHUNK), _CHUNK)
    return path.open("rb", buffering=_CHUNK)


def _folder_files(folder: Path, split: str | None) -> list[Path]:
    """The data files of the split, in order of their names."""
    if (folder / "dataset_dict.json").is_file():
        known = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8")).get("splits", [])
        folder = folder / _choose_split(known, split, folder)
    if (folder / "state.json").is_file():
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        return [folder / Path(entry["filename"]).name for entry in state.get("_data_files", [])]
    by_split: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        is_hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        is_data = path.is_file() and _suffix(path) in _FORMATS and not is_hidden
        if is_data and path.name not in ("dataset_infos.json", "dataset_info.json"):
            by_split.setdefault(_split_of(path, folder), []).append(path)
    if not by_split:
        raise DataError(f"{folder}: no data files ({', '.join(sorted(_FORMATS))}; also with .gz, .zst)")
    return by_split[_choose_split(list(by_split), split, folder)]


def hub_blocks(
    name: str, config: str | None, split: str | None, revision: str | None, faults: Faults
) -> Iterator[RecordBlock]:
    """Rows of a data set on the hub (or in its cache), through the ``datasets`` library; its scripts are never run."""
    if not Path(name).exists() and (not HUB_ID.fullmatch(name) or _suffix(Path(name)) in _FORMATS):
        near = Path(name).expanduser().parent
        names = [path.name for path in near.iterdir()] if near.is_dir() else []
        close = did_you_mean(Path(name).name, names).rpartition("; did you mean ")[2] if names else ""
        hint = f"; did you mean {close}" if close.endswith("?") else ""
        raise DataError(f"{name}: no such file or folder{hint}")
    needs_extra("datasets", "data")
    import datasets

    try:
        if split is None:
            known = datasets.get_dataset_split_names(name, config, revision=revision)
            split = _choose_split(list(known), None, name)
        data: Any = datasets.load_dataset(name, config, split=split, revision=revision)
    except DataError:
        raise
    except Exception as error:  # the library raises many kinds, its own, OSError's and the network's
        raise DataError(
            f"{name}: neither a file or folder here, nor a data set that could be loaded from the hub: "
            f"{first_line(error)}"
        ) from error
    yield from arrow_blocks(data.with_format("arrow").iter(BLOCK), f"{name} ({split})", faults)


# ------------------------------------------------------------------------------------------ details
def _arrow_file(path: Path, format_: str, faults: Faults) -> Iterator[RecordBlock]:
    needs_extra("pyarrow", "data")
    import pyarrow as pa
    import pyarrow.parquet as pq

    with damage_named(str(path), pa.ArrowException):
        if format_ == "parquet":
            file = pq.ParquetFile(path)
            yield from arrow_blocks([file.schema_arrow.empty_table()], str(path), faults)
            yield from arrow_blocks(file.iter_batches(BLOCK), str(path), faults)
            return
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_stream(source)
            yield from arrow_blocks([reader.schema.empty_table()], str(path), faults)
            yield from arrow_blocks(reader, str(path), faults)


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
        raise DataError(
            f'{path}: unknown format "{suffix}"; known: {", ".join(sorted(_FORMATS))}, also with .gz or .zst; '
            'or name it: format = "txt"'
        )
    if path.suffix in COMPRESSIONS and _FORMATS[suffix] in ("parquet", "arrow"):
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
