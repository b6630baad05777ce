"""Files of vectors, written block by block: whole or absent, and gone on with after a stop."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from sentemb.data.partial_file import MadeBy, PartialFile, digest_of, partial_file
from sentemb.data.vector_codes import CODING_KEY, Coding, note_beside, vector_type
from sentemb.errors import DataError, first_line, needs_extra
from sentemb.files import write_json
from sentemb.types import Vectors


class Layout(Protocol):
    """How a format's blocks stand in a partial file, and how the whole is finished."""

    has_columns: bool  # a place for the rows' other columns

    def begin(self, part: PartialFile, coding: Coding) -> None:
        """Write what stands before the first block."""

    def append(
        self, file: IO[bytes], coding: Coding, texts: Sequence[str], vectors: Vectors,
        others: Sequence[Mapping[str, Any]],
    ) -> None:
        """Write a block."""

    def finish(self, part: PartialFile, coding: Coding) -> None:
        """Publish the file."""


class VectorWriter:
    """Appends blocks of texts, their vectors, and the other columns of their rows, which npy has no place for."""

    def __init__(self, part: PartialFile, layout: Layout, dtype: str, width: int) -> None:
        self.part, self.layout, self.dtype = part, layout, dtype
        self.coding = Coding.of(dtype, np.empty((0, width), dtype=np.float32))
        layout.begin(part, self.coding)

    @property
    def rows(self) -> int:
        """Rows so far."""
        return self.part.rows

    @property
    def earlier_rows(self) -> int:
        """How many of them an earlier run wrote."""
        return self.part.earlier_rows

    def has(self, texts: Sequence[str], others: Sequence[Mapping[str, Any]] = ()) -> bool:
        """Whether an earlier run, which was stopped, wrote this block; then it is not to be written again."""
        has_block = self.part.has(len(texts), self._digest(texts, others) if self.part.earlier else "")
        if has_block and self.part.memo:
            self.coding = Coding.read(self.part.memo, str(self.part.path))
        return has_block

    def __call__(self, texts: Sequence[str], vectors: Vectors, others: Sequence[Mapping[str, Any]] = ()) -> None:
        if not self.part.rows:
            self.coding = Coding.of(self.dtype, vectors)
            self.part.memo = asdict(self.coding)
        self.part.append(
            len(texts), self._digest(texts, others),
            lambda file: self.layout.append(file, self.coding, texts, vectors, others),
        )

    def finish(self) -> None:
        """Give the file its name."""
        self.part.go_on()  # what an earlier run left behind the last block belongs to other texts
        self.layout.finish(self.part, self.coding)

    def _digest(self, texts: Sequence[str], others: Sequence[Mapping[str, Any]]) -> str:
        if self.part.made_by is None:
            return ""
        return digest_of(texts, others if self.layout.has_columns else ())


Open = Callable[..., AbstractContextManager[VectorWriter]]


def vector_writer(path: Path, dtype: str = "float32") -> Open:
    """What opens ``path`` for vectors of a width, in its suffix's format, and gives the function that appends a block.

        with vector_writer(path)(encoder.width) as write:
            write(texts, vectors)

    With ``made_by`` as a second argument (what the vectors depend on beside the texts) a run that was stopped is gone
    on with: ``write.has(texts)`` says what need not be encoded again.

    Args:
        dtype: of the numbers, see ``Coding``; int8 takes its ranges from the first block.

    Raises:
        DataError: another suffix or type, or a folder lies there.
    """
    layouts: dict[str, Callable[[], Layout]] = {".npy": NpyLayout, ".parquet": ParquetLayout}
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file")
    if path.suffix not in layouts:
        raise DataError(f'{path}: the suffix "{path.suffix}" is no vector format; allowed: {", ".join(layouts)}')
    return partial(_open, path, layouts[path.suffix], vector_type(dtype))


@contextmanager
def _open(
    path: Path, layout: Callable[[], Layout], dtype: str, width: int, made_by: MadeBy | None = None
) -> Iterator[VectorWriter]:
    def made_by_all() -> Mapping[str, Any]:
        return {**({} if made_by is None else made_by()), "dtype": dtype, "width": width}

    with partial_file(path, None if made_by is None else made_by_all) as part:
        writer = VectorWriter(part, layout(), dtype, width)
        yield writer
        writer.finish()


class NpyLayout:
    """One array, as ``numpy.load`` reads it (also memory-mapped). Beside integers lies ``FILE.npy.json``, which says
    what they stand for."""

    has_columns = False

    def begin(self, part: PartialFile, coding: Coding) -> None:
        if not part.earlier:
            part.content.write(self._header(coding, rows=0))
        part.start = len(self._header(coding, rows=0))

    def append(
        self, file: IO[bytes], coding: Coding, texts: Sequence[str], vectors: Vectors,
        others: Sequence[Mapping[str, Any]],
    ) -> None:
        file.write(np.ascontiguousarray(coding.encode(vectors)).data)

    def finish(self, part: PartialFile, coding: Coding) -> None:
        part.content.seek(0)
        part.content.write(self._header(coding, rows=part.rows))
        if coding.numbers.kind == "f":
            note_beside(part.path).unlink(missing_ok=True)  # of other vectors that lay here
        else:
            write_json(note_beside(part.path), asdict(coding))
        part.publish(part.content_path)

    def _header(self, coding: Coding, rows: int) -> bytes:
        buffer = BytesIO()  # numpy pads it, so that the number of rows can be filled in at the end
        facts = {"descr": coding.numbers.str, "fortran_order": False, "shape": (rows, coding.columns)}
        np.lib.format.write_array_header_1_0(buffer, facts)
        return buffer.getvalue()


class ParquetLayout:
    """Columns ``text``, ``embedding`` (fixed-size list of numbers) and the rows' other columns, a row group a block.

    The types of the other columns are those of the first block. The metadata say how the numbers are coded. A parquet
    file cannot be gone on with, so blocks wait as streams of Arrow, one behind the other.
    """

    has_columns = True

    def __init__(self) -> None:
        needs_extra("pyarrow", "data")
        self.schema: Any = None  # of the first block

    def begin(self, part: PartialFile, coding: Coding) -> None:
        self.path, self.content_path = part.path, part.content_path

    def append(
        self, file: IO[bytes], coding: Coding, texts: Sequence[str], vectors: Vectors,
        others: Sequence[Mapping[str, Any]],
    ) -> None:
        import pyarrow as pa

        table = _table_of(others, self.path)
        schema = self._first_schema(file) if file.tell() else _schema(coding, table.schema)
        column = pa.FixedSizeListArray.from_arrays(pa.array(coding.encode(vectors).reshape(-1)), coding.columns)
        columns = {"text": pa.array(texts, pa.string()), "embedding": column}
        for one in list(schema)[2:]:
            columns[one.name] = _column_of(others, one.name, one.type, self.path)
        if unknown := sorted(set(table.column_names) - set(schema.names)):
            raise DataError(f"{self.path}: a column {unknown[0]} that the first rows lack; give all rows the same "
                            "columns, or leave them out with --no-keep-columns")
        with pa.ipc.new_stream(pa.PythonFile(file, "w"), schema) as stream:
            stream.write_table(pa.table(columns, schema=schema))

    def _first_schema(self, file: IO[bytes]) -> Any:
        import pyarrow as pa

        if self.schema is None:
            file.flush()
            with pa.memory_map(str(self.content_path)) as source, pa.ipc.open_stream(source) as stream:
                self.schema = stream.schema
        return self.schema

    def finish(self, part: PartialFile, coding: Coding) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        part.content.flush()
        schema = self._first_schema(part.content) if part.blocks else _schema(coding, pa.schema([]))
        # embeddings do not compress; a dictionary of them only costs time
        packing = {name: "none" if name.startswith("embedding") else "zstd" for name in schema.names}
        finished = part.content_path.with_suffix(".parquet")
        with pq.ParquetWriter(finished, schema, compression=packing, use_dictionary=False) as file:
            for start, block in zip([0, *(block.end for block in part.blocks)], part.blocks, strict=False):
                with pa.memory_map(str(self.content_path)) as source:
                    source.seek(start)
                    file.write_table(pa.ipc.open_stream(source.read_buffer(block.end - start)).read_all())
        part.publish(finished)


def _schema(coding: Coding, others: Any) -> Any:
    """Of a file whose further columns seem to have these types."""
    import pyarrow as pa

    return pa.schema([
        ("text", pa.string()), ("embedding", pa.list_(pa.from_numpy_dtype(coding.numbers), coding.columns)),
        # nothing in the first block: a text is what all later values can be written as
        *((one.name, pa.string() if pa.types.is_null(one.type) else one.type) for one in others),
    ], {CODING_KEY: json.dumps(asdict(coding)).encode()})  # fmt: skip


def _table_of(rows: Sequence[Mapping[str, Any]], path: Path) -> Any:
    """The further columns of a block, with the types that they seem to have."""
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
