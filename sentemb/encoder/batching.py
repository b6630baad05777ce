"""Rows in token order, in batches of at most a token budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray


def length_order(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows from longest to shortest (stable): padding is least, and what needs most memory comes first."""
    return np.argsort(-lengths, kind="stable")


def budget_batches(
    lengths: NDArray[np.int64], budget: Callable[[], int], *, max_rows: int = 4096
) -> Iterator[tuple[int, int]]:
    """Cut rows that are sorted from longest to shortest into (begin, end) of rows × longest ≤ ``budget()`` tokens.

    A row longer than the budget makes a batch of its own.
    """
    begin, rows = 0, len(lengths)
    while begin < rows:
        take = max(1, min(max_rows, budget() // max(int(lengths[begin]), 1)))
        end = min(rows, begin + take)
        yield begin, end
        begin = end
