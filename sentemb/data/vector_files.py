"""Files of vectors: written window by window, whole or absent, and read again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import DataError, first_line, needs_extra
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


# ------------------------------------------------------------------------------------------------- reading
_BLOCK = 16_384


def open_npy(path: str | Path, where: str = "") -> NDArray[Any]:
    """The array (rows, width) of floating-point numbers in a .npy file, not read yet.

    Raises: DataError where the file is no such array; ``where`` opens its message.
    """
    try:
        vectors = np.load(Path(path).expanduser(), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{where}{path}: {error}; give a .npy file of vectors") from None
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.size:
        shape = f"an array of {vectors.dtype} {vectors.shape}" if isinstance(vectors, np.ndarray) else "no array"
        raise DataError(f"{where}{path} is {shape}; it must be floating-point numbers (rows, width)")
    return vectors


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
            for batch in opened.iter_batches(_BLOCK, columns=["text", "embedding"]):
                vectors = np.stack(batch["embedding"].to_numpy(zero_copy_only=False)).astype(np.float32)
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
