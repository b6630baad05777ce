"""Files of vectors, written window by window, whole or absent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from sentemb.errors import DataError, needs_extra
from sentemb.files import atomic_file
from sentemb.stopping import stoppable
from sentemb.types import Vectors

Write = Callable[[Sequence[str], Vectors], None]


def vector_writer(path: Path) -> Callable[[int], AbstractContextManager[Write]]:
    """What opens ``path`` for vectors of a width, in its suffix's format, and gives the function that appends a window.

    Raises:
        DataError: another suffix, or a folder lies there.
    """
    writers = {".npy": write_npy, ".parquet": write_parquet}
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file")
    if path.suffix not in writers:
        raise DataError(f'{path}: the suffix "{path.suffix}" is no vector format; allowed: {", ".join(writers)}')
    return partial(writers[path.suffix], path)


@contextmanager
def write_npy(path: Path, width: int) -> Iterator[Write]:
    """One float32 array, as ``numpy.load`` reads it (also memory-mapped)."""
    rows = 0
    with _whole(path) as temporary, temporary.open("wb") as file:

        def write(texts: Sequence[str], vectors: Vectors) -> None:
            nonlocal rows
            rows += len(vectors)
            file.write(np.ascontiguousarray(vectors, dtype="<f4").data)

        def write_header() -> None:  # numpy pads it, so that the number of rows can be filled in at the end
            facts = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
            np.lib.format.write_array_header_1_0(file, facts)

        write_header()
        yield write
        file.seek(0)
        write_header()


@contextmanager
def write_parquet(path: Path, width: int) -> Iterator[Write]:
    """Columns ``text`` and ``embedding`` (fixed-size list of float32), a row group a window."""
    needs_extra("pyarrow", "data")
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("text", pa.string()), ("embedding", pa.list_(pa.float32(), width))])
    # embeddings do not compress; a dictionary of them only costs time
    options = {"compression": {"text": "zstd", "embedding": "none"}, "use_dictionary": False}
    with _whole(path) as temporary, pq.ParquetWriter(temporary, schema, **options) as file:

        def write(texts: Sequence[str], vectors: Vectors) -> None:
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), width)
            file.write_table(pa.table([pa.array(texts, pa.string()), column], schema=schema))

        yield write


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    with stoppable(f"{path} was not written. The same command starts again"), atomic_file(path) as temporary:
        yield temporary
