"""Filters of a FAISS search: inside it where a kind takes a selector, else by asking for more, or afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

faiss: Any = _faiss  # its own type stubs know half of its classes
Mask = NDArray[np.bool_]
ScoresAndRows = tuple[NDArray[Any], NDArray[np.int64]]  # scores and rows, (queries, k), best first


def selector(allowed: Mask) -> Any:
    """FAISS's form of the rows that may be found."""
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def search_wider(search: Callable[[int], ScoresAndRows], k: int, allowed: Mask, worst: float) -> ScoresAndRows:
    """For kinds whose FAISS search takes no selector: ask for more until k allowed ones are there, or all are.

    Args:
        search: finds as many rows as it is told to.
        k: allowed rows wanted; missing places have row -1.
        allowed: rows that may be found, (rows,).
        worst: score of missing places.
    """
    wanted = min(k, int(allowed.sum()))
    wider = min(len(allowed), 2 * k)
    while True:
        scores, rows = search(wider)
        keep = (rows >= 0) & allowed[rows]
        if wider >= len(allowed) or int(keep.sum(axis=1).min()) >= wanted:
            break
        wider = min(len(allowed), wider * 4)
    order = np.argsort(~keep, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(keep, order, axis=1)
    out_rows = np.full((len(rows), k), -1, dtype=np.int64)
    out_scores = np.full((len(rows), k), worst, dtype=scores.dtype)
    width = order.shape[1]
    out_rows[:, :width] = np.where(kept, np.take_along_axis(rows, order, axis=1), -1)
    out_scores[:, :width] = np.where(kept, np.take_along_axis(scores, order, axis=1), out_scores[:, :width])
    return out_scores, out_rows


def keep_allowed(
    offsets: NDArray[np.int64], scores: NDArray[Any], rows: NDArray[np.int64], allowed: Mask
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int64]]:
    """A range search's (offsets (queries + 1,), scores, rows) without rows that are not allowed."""
    keep = allowed[rows]
    counts = np.add.reduceat(np.append(keep, 0), offsets[:-1]) * (np.diff(offsets) > 0)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), scores[keep], rows[keep]
