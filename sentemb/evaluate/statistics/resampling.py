"""Statistics of pairs when every pair occurs a given number of times.

Drawing pairs with replacement is giving every pair a count, and ranks under counts are cumulative sums over the
once-sorted values, so no resample sorts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Statistic = Callable[[Values, Values], Callable[[Values], Values]]  # (predicted, gold) -> counts -> scores


class WeightedRanks:
    """Mid-ranks of values when every item occurs a given number of times."""

    def __init__(self, values: Values) -> None:
        self._order, self._starts = _groups(values)
        group = np.empty(len(values), dtype=np.int64)
        group[self._order] = np.repeat(
            np.arange(len(self._starts)), np.diff(np.append(self._starts, len(values)))
        )
        self._group = group

    def __call__(self, counts: Values) -> Values:
        """Ranks (resamples, items) under counts (resamples, items)."""
        sums = np.add.reduceat(counts[:, self._order], self._starts, axis=1)
        last = np.cumsum(sums, axis=1)
        middle: Values = (last - (sums - 1) / 2)[:, self._group]
        return middle


def spearman_of(predicted: Values, gold: Values) -> Callable[[Values], Values]:
    """Spearman's ρ (resamples,) of counts (resamples, items); NaN where a resample holds one value only."""
    x, y = WeightedRanks(predicted), WeightedRanks(gold)

    def score(counts: Values) -> Values:
        n = counts.sum(axis=1, keepdims=True)
        rx, ry = x(counts) - (n + 1) / 2, y(counts) - (n + 1) / 2
        covariance = np.einsum("rn,rn,rn->r", counts, rx, ry)
        square = np.einsum("rn,rn,rn->r", counts, rx, rx) * np.einsum("rn,rn,rn->r", counts, ry, ry)
        out = np.full(len(counts), np.nan)
        np.divide(covariance, np.sqrt(square), out=out, where=square > 0)
        return out

    return score


def average_precision_of(predicted: Values, gold: Values) -> Callable[[Values], Values]:
    """Average precision (resamples,) of counts (resamples, items), equal scores taken at once, as scikit-learn has it;
    NaN where a resample holds no positive. ``gold`` is 1 for positives, 0 else."""
    order, starts = _groups(-predicted)
    positive = gold[order] > 0

    def score(counts: Values) -> Values:
        ordered = counts[:, order]
        hits = np.add.reduceat(ordered * positive, starts, axis=1)
        found, seen = np.cumsum(hits, axis=1), np.cumsum(np.add.reduceat(ordered, starts, axis=1), axis=1)
        precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
        total = found[:, -1]
        out = np.full(len(counts), np.nan)
        np.divide(np.einsum("rg,rg->r", hits, precision), total, out=out, where=total > 0)
        return out

    return score


# what a score is of predictions and gold values, by the name that results files keep
STATISTICS: Mapping[str, Statistic] = {"spearman": spearman_of, "average precision": average_precision_of}


def _groups(values: Values) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The ascending order of values, and where in it every run of equal ones begins."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    return order, np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
