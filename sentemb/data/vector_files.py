"""Files of vectors: written window by window, whole or absent, and read again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sentemb.data.vector_codes import CodedVectors, Coding, vector_type
from sentemb.errors import DataError, first_line, needs_extra
from sentemb.files import atomic_file, write_json
from sentemb.stopping import stoppable
from sentemb.types import Vectors


class Write(Protocol):
    """Appends a window of texts, their vectors, and the other columns of their rows, which npy has no place for."""

    def __call__(self, texts: Sequence[str], vectors: Vectors, others: Sequence[Mapping[str, Any]] = ()) -> None: ...


_CODING = b"sentemb"  # a key of parquet's metadata


def vector_writer(path: Path, dtype: str = "float32") -> Callable[[int], AbstractContextManager[Write]]:
    """What opens ``path`` for vectors of a width, in its suffix's format, and gives the function that appends a window.

    Args:
        dtype: of the numbers, see ``Coding``; int8 takes its ranges from the first window.

    Raises:
        DataError: another suffix or type, or a folder lies there.
    """
    writers = {".npy": write_npy, ".parquet": write_parquet}
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file")
    if path.suffix not in writers:
        raise DataError(f'{path}: the suffix "{path.suffix}" is no vector format; allowed: {", ".join(writers)}')
    return partial(writers[path.suffix], path, dtype=vector_type(dtype))


@contextmanager
def write_npy(path: Path, width: int, *, dtype: str = "float32") -> Iterator[Write]:
    """One array, as ``numpy.load`` reads it (also memory-mapped). Beside integers lies ``FILE.npy.json``, which says
    what they stand for."""
    rows = 0
    coding = Coding.of(dtype, np.empty((0, width), dtype=np.float32))
    with _whole(path) as temporary, temporary.open("wb") as file:

        def write(texts: Sequence[str], vectors: Vectors, others: Sequence[Mapping[str, Any]] = ()) -> None:
            nonlocal rows, coding
            coding = coding if rows else Coding.of(dtype, vectors)
            rows += len(vectors)
            file.write(np.ascontiguousarray(coding.encode(vectors)).data)

        def write_header() -> None:  # numpy pads it, so that the number of rows can be filled in at the end
            facts = {"descr": coding.numbers.str, "fortran_order": False, "shape": (rows, coding.columns)}
            np.lib.format.write_array_header_1_0(file, facts)

        write_header()
        yield write
        file.seek(0)
        write_header()
        file.flush()
        if coding.numbers.kind == "f":
            _beside(path).unlink(missing_ok=True)  # of other vectors that lay here
        else:
            write_json(_beside(path), asdict(coding))


@contextmanager
def write_parquet(path: Path, width: int, *, dtype: str = "float32") -> Iterator[Write]:
    """Columns ``text``, ``embedding`` (fixed-size list of numbers) and the rows' other columns, a row group a window.

    The types of the other columns are those of the first window. The metadata say how the numbers are coded.
    """
    needs_extra("pyarrow", "data")
    import pyarrow as pa
    import pyarrow.parquet as pq

    opened: list[Any] = []  # the file, with the first window
    coding = Coding.of(dtype, np.empty((0, width), dtype=np.float32))
    with _whole(path) as temporary, ExitStack() as stack:

        def open_file(others: Any) -> Any:
            metadata = {_CODING: json.dumps(asdict(coding)).encode()}
            schema = pa.schema([
                ("text", pa.string()), ("embedding", pa.list_(pa.from_numpy_dtype(coding.numbers), coding.columns)),
                # nothing in the first window: a text is what all later values can be written as
                *((one.name, pa.string() if pa.types.is_null(one.type) else one.type) for one in others),
            ], metadata)  # fmt: skip
            # embeddings do not compress; a dictionary of them only costs time
            packing = {name: "none" if name.startswith("embedding") else "zstd" for name in schema.names}
            return stack.enter_context(
                pq.ParquetWriter(temporary, schema, compression=packing, use_dictionary=False)
            )

        def write(texts: Sequence[str], vectors: Vectors, others: Sequence[Mapping[str, Any]] = ()) -> None:
            nonlocal coding
            table = _table_of(others, path)
            if not opened:
                coding = Coding.of(dtype, vectors)
                opened.append(open_file(table.schema))
            schema, codes = opened[0].schema, coding.encode(vectors)
            column = pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1)), coding.columns)
            columns = {"text": pa.array(texts, pa.string()), "embedding": column}
            for one in list(schema)[2:]:
                columns[one.name] = _column_of(others, one.name, one.type, path)
            if unknown := sorted(set(table.column_names) - set(schema.names)):
                raise DataError(f"{path}: a column {unknown[0]} that the first rows lack; give all rows the same "
                                "columns, or leave them out with --no-keep-columns")
            opened[0].write_table(pa.table(columns, schema=schema))

        yield write
        if not opened:
            open_file(pa.schema([]))


def _table_of(rows: Sequence[Mapping[str, Any]], path: Path) -> Any:
    """The further columns of a window, with the types that they seem to have."""
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row if name != "embedding")  # vectors of an earlier encoding
    if "text" in names:
        raise DataError(f"{path}: the column text would be there twice, as one was chosen with --text-column; rename "
                        "the other one, or leave the columns out with --no-keep-columns")
    return pa.table({name: _column_of(rows, name, None, path) for name in names})


def _column_of(rows: Sequence[Mapping[str, Any]], name: str, kind: Any, path: Path) -> Any:
    """One further column as an Arrow array of this type, None: of the type that it seems to have."""
    import pyarrow as pa

    try:
        return pa.array([row.get(name) for row in rows], kind)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        expected = "values of several kinds" if kind is None else f"not the {kind} of the first rows"
        raise DataError(f"{path}: column {name} holds {expected} ({first_line(error)}); make them one kind, or leave "
                        "the columns out with --no-keep-columns") from None


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    with stoppable(f"{path} was not written. The same command starts again"), atomic_file(path) as temporary:
        yield temporary


# ------------------------------------------------------------------------------------------------- reading
_BLOCK = 16_384


def open_npy(path: str | Path, where: str = "", *, kinds: str = "f") -> NDArray[Any] | CodedVectors:
    """The vectors (rows, width) of a .npy file, not read yet; codes read as the vectors that they stand for.

    Args:
        where: opens the message of an error.
        kinds: of numbers that may stand there without a ``FILE.npy.json``: f, also i and u.

    Raises: DataError where the file is no such array.
    """
    try:
        vectors = np.load(Path(path).expanduser(), mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise DataError(f"{where}{path}: {error.strerror or first_line(error)}; give a .npy file of vectors") from None
    except (ValueError, EOFError):  # whose own words advise to load pickles
        raise DataError(f"{where}{path}: not an array in numpy's .npy format; give a .npy file of vectors") from None
    beside = _beside(Path(path).expanduser())
    if beside.is_file() and isinstance(vectors, np.ndarray) and vectors.dtype.kind in "iu":
        try:
            facts = json.loads(beside.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{where}{beside}: not JSON ({error}); encode the texts again") from None
        return CodedVectors(vectors, _coding_of(facts, vectors.dtype, vectors.shape, f"{where}{beside}"))
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind not in kinds or not vectors.size:
        shape = f"an array of {vectors.dtype} {vectors.shape}" if isinstance(vectors, np.ndarray) else "no array"
        raise DataError(f"{where}{path} is {shape}; it must be floating-point numbers (rows, width)")
    return vectors


def _coding_of(facts: Any, numbers: np.dtype[Any], shape: tuple[int, ...], where: str) -> Coding:
    coding = Coding.read(facts if isinstance(facts, Mapping) else {}, where)
    if coding.numbers != numbers or shape[1:] != (coding.columns,):
        raise DataError(f"{where}: says {coding.dtype} of width {coding.width}, but the file beside it holds {numbers} "
                        f"{shape}; encode the texts again")
    return coding


def read_parquet(path: str | Path) -> Iterator[tuple[list[str], Vectors]]:
    """Blocks of texts and their vectors (rows, width) from a parquet file as ``write_parquet`` makes it.

    Raises: DataError where the file is missing, is no parquet, or has other columns or vectors of several widths.
    """
    needs_extra("pyarrow", "data")
    import pyarrow as pa
    import pyarrow.parquet as pq

    file, width = Path(path).expanduser(), None
    if not file.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with pq.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            if not {"text", "embedding"} <= set(names):
                raise DataError(f'{path}: columns {", ".join(names)}; needed are "text" and "embedding" (lists of '
                                "numbers)")
            facts = (opened.schema_arrow.metadata or {}).get(_CODING)
            coding = None if facts is None else Coding.read(json.loads(facts), str(path))
            for batch in opened.iter_batches(_BLOCK, columns=["text", "embedding"]):
                codes = np.stack(batch["embedding"].to_numpy(zero_copy_only=False))
                vectors = codes.astype(np.float32) if coding is None else coding.decode(codes)
                width = width or vectors.shape[1]
                if vectors.ndim != 2 or vectors.shape[1] != width:
                    raise ValueError(f"{vectors.shape[1:]} and {width} numbers")
                yield batch["text"].to_pylist(), vectors
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a readable parquet file: {first_line(error)}") from None
    except (ValueError, TypeError) as error:
        raise DataError(f'{path}: column "embedding" must hold lists of numbers of one length: {error}') from None


def vectors_of_texts(path: str | Path, texts: Sequence[str]) -> Vectors:
    """The vectors (texts, width) of these texts, in their order, from a parquet file.

    Raises: DataError where a text has none.
    """
    row_of = {text: number for number, text in enumerate(texts)}
    out, has_vector = np.empty((len(texts), 0), dtype=np.float32), np.zeros(len(texts), dtype=bool)
    for block, vectors in read_parquet(path):
        if not out.shape[1]:
            out = np.empty((len(texts), vectors.shape[1]), dtype=np.float32)
        places = np.array([row_of.get(text.strip(), -1) if text else -1 for text in block], dtype=np.int64)
        out[places[places >= 0]] = vectors[places >= 0]
        has_vector[places[places >= 0]] = True
    if not has_vector.all():
        first = texts[int(has_vector.argmin())]
        raise DataError(f"{path}: {int((~has_vector).sum()):,} of the data's {len(texts):,} texts have no vector, the "
                        f"first is {first[:60]!r}; encode all of them: sentemb encode DATA -o {Path(path).name}")
    return out
