"""Correlations and pair similarities, in float64.

Spearman is Pearson of mid-ranks. Where a correlation does not exist (fewer than two pairs, or one side constant) it
is NaN, as in scipy; what reports scores turns that into a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sentemb.errors import needs_extra

PairSimilarity = Literal["cosine", "dot", "euclidean", "manhattan"]
PAIR_SIMILARITIES: tuple[PairSimilarity, ...] = get_args(PairSimilarity)
Correlation = Literal["spearman", "pearson"]

_BLOCK_ROWS = 16_384  # bounds the float64 copies


def pearson(predicted: ArrayLike, gold: ArrayLike) -> float:
    """Pearson's r of two sequences of the same length; NaN where it does not exist."""
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"two sequences of one length are needed; found shapes {x.shape} and {y.shape}")
    # a constant has no correlation, and its mean may differ from it by rounding, so compare values
    if len(x) < 2 or not (np.ptp(x) > 0 and np.ptp(y) > 0):
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    # scaled before the products, so that tiny or huge values neither vanish nor overflow
    x, y = x / np.abs(x).max(), y / np.abs(y).max()
    return float(np.clip(np.dot(x / np.linalg.norm(x), y / np.linalg.norm(y)), -1.0, 1.0))


def spearman(predicted: ArrayLike, gold: ArrayLike) -> float:
    """Spearman's ρ (ties share their mean rank); NaN where it does not exist."""
    needs_extra("scipy", "eval")
    from scipy.stats import rankdata

    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    return pearson(rankdata(x), rankdata(y))


def correlation(kind: Correlation, predicted: ArrayLike, gold: ArrayLike) -> float:
    """``spearman`` or ``pearson`` by name."""
    return spearman(predicted, gold) if kind == "spearman" else pearson(predicted, gold)


def pair_similarities(
    first: NDArray[np.float32], second: NDArray[np.float32]
) -> Mapping[PairSimilarity, NDArray[np.float64]]:
    """Row i of ``first`` with row i of ``second``, four ways; distances are negated, so more is always closer.

    The cosine with a zero vector is 0.

    Args:
        first: (pairs, d).
        second: (pairs, d).

    Returns:
        Name → (pairs,).
    """
    if first.shape != second.shape:
        raise ValueError(f"both sides need one shape; found {first.shape} and {second.shape}")
    out = {name: np.empty(len(first), dtype=np.float64) for name in PAIR_SIMILARITIES}
    for start in range(0, len(first), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        x, y = first[rows].astype(np.float64), second[rows].astype(np.float64)
        difference = x - y
        out["dot"][rows] = np.einsum("nd,nd->n", x, y)
        out["cosine"][rows] = _cosine(x, y)
        out["euclidean"][rows] = -np.linalg.norm(difference, axis=1)
        out["manhattan"][rows] = -np.abs(difference).sum(axis=1)
    return out


def _cosine(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    norm_x, norm_y = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    exists = (norm_x > 0) & (norm_y > 0)
    between = x / np.where(exists, norm_x, 1)[:, None] - y / np.where(exists, norm_y, 1)[:, None]
    # by the chord rather than the product: equal vectors then have exactly 1, and such pairs tie
    return np.where(exists, 1 - 0.5 * np.einsum("nd,nd->n", between, between), 0.0)
