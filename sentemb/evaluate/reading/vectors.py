"""Precomputed vectors as a model: every text that a task asks for is looked up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import DataError, EvaluationError, needs_extra


def stored_vectors(path: Path) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Looks texts up in a parquet file with the columns ``text`` and ``embedding`` (or ``vector``), as
    ``sentemb encode`` writes it: texts → (texts, d). A text without a vector is an EvaluationError.

    Raises: DataError: the file is missing or malformed.
    """
    needs_extra("pyarrow", "data")
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a readable parquet file: {error}") from None
    column = next((name for name in ("embedding", "vector") if name in table.column_names), None)
    if column is None or "text" not in table.column_names:
        names = ", ".join(table.column_names)
        raise DataError(f'{path}: columns {names}; needed are "text" and "embedding" (lists of numbers)')
    lists = table[column].combine_chunks()
    lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) and lists.num_chunks else lists
    try:
        flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    except (pa.ArrowException, AttributeError, ValueError, TypeError):
        raise DataError(f'{path}: column "{column}" does not hold lists of numbers') from None
    if table.num_rows == 0 or len(flat) % table.num_rows or lists.null_count or not len(flat):
        raise DataError(f'{path}: column "{column}": the vectors differ in length')
    vectors: NDArray[np.float32] = flat.reshape(table.num_rows, -1)
    row = {text: number for number, text in enumerate(table["text"].to_pylist())}

    def look_up(texts: Sequence[str]) -> NDArray[np.float32]:
        missing = [text for text in texts if text not in row]
        if missing:
            raise EvaluationError(
                f"{path}: {len(missing):,} of {len(texts):,} texts have no vector, the first is {missing[0][:60]!r}; "
                "the file must hold every text of the task, exactly as the task has it"
            )
        return np.asarray(vectors[[row[text] for text in texts]])

    return look_up
