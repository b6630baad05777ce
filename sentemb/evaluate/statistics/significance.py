"""How sure a score is, and whether two models differ: bootstrap, permutation, Holm, seeds.

Everything is vectorised and seeded. Drawing items with replacement is giving every item a count, and ranks under counts
are cumulative sums over the once-sorted values, so no resample sorts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import needs_extra

Values = NDArray[np.float64]
Statistic = Callable[[Values, Values], Callable[[Values], Values]]  # (predicted, gold) -> counts -> scores

LEVEL = 0.95  # of every interval
RESAMPLES = 1000
_BLOCK = 64  # resamples at once: bounds memory


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A percentile interval of a score."""

    low: float
    high: float
    level: float = LEVEL


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """B − A on one task, with the two-sided p of no difference; ``p_holm`` is corrected over tasks."""

    difference: float
    p: float
    interval: Interval | None
    test: str
    p_holm: float = float("nan")


def parts_of(items: int, strata: Sequence[int]) -> list[slice]:
    """Rows of every stratum; all items where there is none.

    Strata are runs of items, one after the other, that are resampled apart: the score is the mean of theirs. A
    multilingual task is the mean over its languages however many pairs each has, so drawing from all pairs at once
    would resample another score.
    """
    ends = np.cumsum(strata or [items]).tolist()
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def in_points(interval: Interval) -> Interval:
    """The interval ×100, as scores are reported."""
    return Interval(low=100 * interval.low, high=100 * interval.high)


def bootstrap_mean(
    values: Values, *, strata: Sequence[int] = (), resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Interval of the mean of values, one an item; with ``strata`` of the mean of their means."""

    def mean_of(rows: slice) -> Callable[[Values], Values]:
        part = values[rows]
        return lambda counts: counts @ part / len(part)

    return _interval(_resampled_apart(len(values), strata, resamples, seed, mean_of))


def bootstrap_pairs(
    predicted: Values,
    gold: Values,
    *,
    statistic: str = "spearman",
    strata: Sequence[int] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Interval of a statistic of pairs (a name of ``STATISTICS``); with ``strata`` of the mean of theirs."""

    def score_of(rows: slice) -> Callable[[Values], Values]:
        return STATISTICS[statistic](predicted[rows], gold[rows])

    return _interval(_resampled_apart(len(gold), strata, resamples, seed, score_of))


def interval_of_mean(center: float, parts: Sequence[Interval]) -> Interval:
    """Interval of the mean of independent scores from their own intervals: spreads add up as those of normal errors."""
    half = float(np.sqrt(sum((part.high - part.low) ** 2 for part in parts))) / (2 * len(parts))
    return Interval(low=center - half, high=center + half)


def paired_permutation(
    a: Values, b: Values, *, strata: Sequence[int] = (), resamples: int = 10_000, seed: int = 0
) -> Comparison:
    """Whether two models' values of the same items differ in mean: signs of the differences are flipped at random.

    With ``strata`` the mean is that of their means. Exact (all sign patterns) up to 13 items.
    """
    if a.shape != b.shape:
        raise ValueError(f"paired values need one shape; found {a.shape} and {b.shape}")
    interval = bootstrap_mean(b - a, strata=strata, seed=seed)
    d = b - a
    parts = parts_of(len(d), strata)
    for rows in parts:
        d[rows] *= len(d) / (len(parts) * (rows.stop - rows.start))  # so that the plain mean is that of the strata
    observed = abs(float(d.mean()))
    if len(d) <= 13:
        signs = 1.0 - 2.0 * ((np.arange(2 ** len(d))[:, None] >> np.arange(len(d))) & 1)
        extreme = float(np.mean(np.abs(signs @ d / len(d)) >= observed * (1 - 1e-12)))
    else:
        generator = np.random.default_rng(seed)
        hits = 0
        for start in range(0, resamples, _BLOCK):
            size = min(_BLOCK, resamples - start)
            signs = 1.0 - 2.0 * generator.integers(0, 2, (size, len(d)))
            hits += int(np.sum(np.abs(signs @ d / len(d)) >= observed * (1 - 1e-12)))
        extreme = (hits + 1) / (resamples + 1)
    return Comparison(difference=float(d.mean()), p=extreme, interval=interval, test="paired permutation")


def paired_bootstrap(
    a: Values,
    b: Values,
    gold: Values,
    *,
    statistic: str = "spearman",
    strata: Sequence[int] = (),
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Whether two models' statistics of the same pairs (a name of ``STATISTICS``: their predictions against one gold)
    differ: the pairs are resampled, for both at once."""
    if not a.shape == b.shape == gold.shape:
        raise ValueError(f"paired values need one shape; found {a.shape}, {b.shape} and {gold.shape}")

    def difference_of(rows: slice) -> Callable[[Values], Values]:
        first, second = (STATISTICS[statistic](side[rows], gold[rows]) for side in (a, b))
        return lambda counts: second(counts) - first(counts)

    parts = parts_of(len(gold), strata)
    observed = float(np.mean([difference_of(rows)(np.ones((1, rows.stop - rows.start)))[0] for rows in parts]))
    drawn = _resampled_apart(len(gold), strata, resamples, seed, difference_of)
    drawn = drawn[np.isfinite(drawn)]
    # two-sided: the share of resamples on the other side of no difference
    tail = min(int(np.sum(drawn <= 0)), int(np.sum(drawn >= 0)))
    p = min(1.0, 2 * (tail + 1) / (len(drawn) + 1))
    return Comparison(difference=observed, p=p, interval=_interval(drawn), test="paired bootstrap")


def welch(a: Sequence[float], b: Sequence[float]) -> Comparison:
    """Whether the means over seeds of two recipes differ (Welch's t-test on the seeds' scores)."""
    needs_extra("scipy", "eval")
    from scipy.stats import ttest_ind

    difference = float(np.mean(b) - np.mean(a))
    if np.ptp(a) == 0 and np.ptp(b) == 0:  # no spread, no test
        return Comparison(difference=difference, p=float("nan"), interval=None, test="Welch over seeds (no spread)")
    result = ttest_ind(b, a, equal_var=False)
    bounds = result.confidence_interval(LEVEL)
    interval = Interval(low=float(bounds.low), high=float(bounds.high))
    return Comparison(difference=difference, p=float(result.pvalue), interval=interval, test="Welch over seeds")


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979); NaN stays NaN and is not counted."""
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, float((len(order) - rank) * p[index]))
        corrected[index] = min(1.0, largest)
    return [float(value) for value in corrected]


def _resampled_apart(
    items: int, strata: Sequence[int], resamples: int, seed: int,
    score_of: Callable[[slice], Callable[[Values], Values]],
) -> Values:  # fmt: skip
    """Means (resamples,) of the strata's scores, each resampled by itself."""
    drawn = [
        _resampled(rows.stop - rows.start, resamples, [seed, number] if number else seed, score_of(rows))
        for number, rows in enumerate(parts_of(items, strata))
    ]
    return np.asarray(np.mean(drawn, axis=0))


def _resampled(items: int, resamples: int, seed: int | list[int], score: Callable[[Values], Values]) -> Values:
    """Scores of multinomial resamples, in blocks."""
    generator = np.random.default_rng(seed)
    drawn = []
    for start in range(0, resamples, _BLOCK):
        size = min(_BLOCK, resamples - start)
        picks = generator.integers(0, items, (size, items))
        picks += np.arange(size)[:, None] * items
        counts = np.bincount(picks.ravel(), minlength=size * items).reshape(size, items).astype(np.float64)
        drawn.append(score(counts))
    return np.concatenate(drawn) if drawn else np.zeros(0)


def _interval(drawn: Values) -> Interval:
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Interval(low=float("nan"), high=float("nan"))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(low=float(low), high=float(high))


# ------------------------------------------------------------------------------ statistics under counts
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
