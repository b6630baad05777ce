"""Precomputed vectors as a model: every text that a task asks for is looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import DataError, EvaluationError, needs_extra
from sentemb.evaluate.reading.tables import read_rows, text_of
from sentemb.files import sha256_of

_VECTOR_COLUMNS = ("embedding", "vector")


@dataclass(frozen=True, kw_only=True)
class StoredVectors:
    """Vectors (rows, d) and the row of every text."""

    path: Path
    vectors: NDArray[np.float32]
    row: Mapping[str, int]
    digest: str

    @property
    def width(self) -> int:
        """Dimensions of a vector."""
        return int(self.vectors.shape[1])

    @classmethod
    def read(cls, path: Path, texts: Path | None = None) -> StoredVectors:
        """A parquet file with the columns ``text`` and ``embedding`` (or ``vector``), or a ``.npy`` matrix with the
        texts of its rows in ``texts`` (by default ``NAME.txt`` or ``NAME.jsonl`` beside it).

        Raises:
            DataError: A file is missing or malformed, or rows and texts do not match.
        """
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        names, vectors = _from_parquet(path) if path.suffix == ".parquet" else _from_npy(path, texts)
        if vectors.ndim != 2 or vectors.shape[1] == 0:
            raise DataError(f"{path}: vectors of shape {vectors.shape}; (texts, width) is needed")
        if len(names) != len(vectors):
            raise DataError(f"{path}: {len(vectors):,} vectors, but {len(names):,} texts; one text a vector is needed")
        return cls(
            path=path, vectors=vectors, row={text: row for row, text in enumerate(names)}, digest=sha256_of(path)
        )

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The stored vectors of the texts, (texts, d).

        Raises:
            EvaluationError: A text has no vector; says how many and shows the first.
        """
        missing = [text for text in texts if text not in self.row]
        if missing:
            raise EvaluationError(
                f"{self.path}: {len(missing):,} of {len(texts):,} texts have no vector, the first is "
                f"{missing[0][:60]!r}; "
                "the file must hold every text of the task, exactly as the task has it"
            )
        return self.vectors[[self.row[text] for text in texts]]


def _from_parquet(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    needs_extra("pyarrow", "data")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a readable parquet file: {error}") from None
    column = next((name for name in _VECTOR_COLUMNS if name in table.column_names), None)
    if column is None or "text" not in table.column_names:
        raise DataError(
            f'{path}: columns {", ".join(table.column_names)}; needed are "text" and "embedding" (lists of numbers)'
        )
    lists = table[column].combine_chunks()
    lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) and lists.num_chunks else lists
    try:
        flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    except (pa.ArrowException, AttributeError, ValueError, TypeError):
        raise DataError(f'{path}: column "{column}" does not hold lists of numbers') from None
    rows = table.num_rows
    if rows == 0 or len(flat) % rows or lists.null_count:
        raise DataError(f'{path}: column "{column}": the vectors differ in length')
    return table["text"].to_pylist(), flat.reshape(rows, -1)


def _from_npy(path: Path, texts: Path | None) -> tuple[list[str], NDArray[np.float32]]:
    try:
        vectors = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        # numpy takes anything that it does not know for a pickle, and advises to load it unsafely
        why = "no numbers in numpy's format" if "pickle" in str(error) or isinstance(error, EOFError) else error
        raise DataError(f"{path}: not a plain .npy matrix: {why}") from None
    if not np.issubdtype(vectors.dtype, np.floating):
        raise DataError(f"{path}: holds {vectors.dtype}; floating point is needed")
    beside = [path.with_suffix(ending) for ending in (".txt", ".jsonl", ".csv", ".tsv")]
    texts = texts or next((candidate for candidate in beside if candidate.is_file()), None)
    if texts is None:
        raise DataError(
            f"{path}: the texts of its rows are not known; put them beside it as {beside[0].name}, or give --texts"
        )
    return [text_of(row, "text") for row in read_rows(texts)], vectors.astype(np.float32)
