"""Files of vectors, as ``vector_writer`` writes them, read again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.data.vector_codes import CODING_KEY, CodedVectors, Coding, note_beside
from sentemb.errors import DataError, first_line, needs_extra
from sentemb.types import Vectors

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
    beside = note_beside(Path(path).expanduser())
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
    """Blocks of texts and their vectors (rows, width) from a parquet file as ``vector_writer`` makes it.

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
            facts = (opened.schema_arrow.metadata or {}).get(CODING_KEY)
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
