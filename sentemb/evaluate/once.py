"""Every distinct text is encoded once, in one pass, however many columns and tasks it occurs in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import EvaluationError, NumericError
from sentemb.types import Embedder


def checked_vectors(
    vectors: object, texts: Sequence[str], *, source: str = "the model", width: int | None = None
) -> NDArray[np.float32]:
    """What an encoder returned, as finite float32 (texts, d); otherwise an error that says what is wrong with it.

    Raises:
        EvaluationError: Not one vector a text, vectors of width 0, or of another width than ``width``.
        NumericError: NaN or infinite values; names the first such text.
    """
    try:
        array = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"{source} returned no (texts, width) array of numbers: {error}") from None
    if array.ndim != 2 or array.shape[0] != len(texts) or (len(texts) and array.shape[1] == 0):
        raise EvaluationError(
            f"{source} returned an array of shape {array.shape} for {len(texts):,} texts; needed is one vector a text, "
            f"({len(texts):,}, width)"
        )
    if width is not None and len(texts) and array.shape[1] != width:
        raise EvaluationError(f"{source} returned vectors of width {array.shape[1]}; its width is {width}")
    # one pass over the sums finds any NaN or infinity without a boolean copy of the whole matrix
    if not np.isfinite(array.sum(axis=1, dtype=np.float64)).all():
        bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
        if len(bad):
            raise NumericError(
                f"{source} returned NaN or infinite values for {len(bad):,} of {len(texts):,} texts; the first is text "
                f"{bad[0]}: {_shortened(texts[bad[0]])}"
            )
    return array


def encode_once(embedder: Embedder, *columns: Sequence[str]) -> list[NDArray[np.float32]]:
    """Vectors of several columns of texts from one encode call over their distinct texts.

    Args:
        embedder: Encodes a list of texts to (texts, d).
        columns: Any number of text sequences.

    Returns:
        One (rows, d) array a column, rows in the column's order.
    """
    position: dict[str, int] = {}
    rows = [
        np.fromiter((position.setdefault(text, len(position)) for text in column), dtype=np.int64, count=len(column))
        for column in columns
    ]
    distinct = list(position)
    if not distinct:
        return [np.zeros((0, 0), dtype=np.float32) for _ in columns]
    vectors = checked_vectors(embedder.encode(distinct), distinct)
    return [vectors[index] for index in rows]


def _shortened(text: str, width: int = 60) -> str:
    return repr(text if len(text) <= width else text[: width - 1] + "…")
