"""Filters of a FAISS search: inside it where a kind takes a selector, else afterwards."""

from __future__ import annotations

from typing import Any

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from sentemb.search.vectors.kind import Mask

faiss: Any = _faiss  # its own type stubs know half of its classes


def selector(allowed: Mask) -> Any:
    """FAISS's form of the rows that may be found."""
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def keep_allowed(
    offsets: NDArray[np.int64], scores: NDArray[Any], rows: NDArray[np.int64], allowed: Mask
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int64]]:
    """A range search's (offsets (queries + 1,), scores, rows) without rows that are not allowed."""
    keep = allowed[rows]
    counts = np.add.reduceat(np.append(keep, 0), offsets[:-1]) * (np.diff(offsets) > 0)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), scores[keep], rows[keep]
