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
Score = Callable[[Values], Values]  # counts (resamples, items) -> scores (resamples,)

LEVEL = 0.95  # of every interval
_BLOCK = 64  # resamples at once: bounds memory


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A percentile interval of a score."""

    low: float
    high: float
    level: float = LEVEL

    def in_points(self) -> Interval:
        """×100, as scores are reported."""
        return Interval(low=100 * self.low, high=100 * self.high)


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


def bootstrap(
    *columns: Values, statistic: str = "mean", strata: Sequence[int] = (), resamples: int = 1000, seed: int = 0
) -> Interval:
    """Interval of a statistic (a name of ``STATISTICS``) of columns (items,); with ``strata`` of the mean of theirs."""

    return _interval(_resampled(len(columns[0]), strata, resamples, seed, _by_rows(columns, statistic)))


def score_of_items(*columns: Values, statistic: str = "mean", strata: Sequence[int] = ()) -> float:
    """The statistic itself; with ``strata`` the mean of theirs."""
    score_of, parts = _by_rows(columns, statistic), parts_of(len(columns[0]), strata)
    return float(np.mean([score_of(rows)(np.ones((1, rows.stop - rows.start)))[0] for rows in parts]))


def _by_rows(columns: Sequence[Values], statistic: str) -> Callable[[slice], Score]:
    return lambda rows: STATISTICS[statistic](*(column[rows] for column in columns))


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
    d = b - a
    interval = bootstrap(d, strata=strata, seed=seed)
    parts = parts_of(len(d), strata)
    for rows in parts:
        d[rows] *= len(d) / (len(parts) * (rows.stop - rows.start))  # so that the plain mean is that of the strata
    least = abs(float(d.mean())) * (1 - 1e-12)
    if len(d) <= 13:
        signs = 1.0 - 2.0 * ((np.arange(2 ** len(d))[:, None] >> np.arange(len(d))) & 1)
        p = float(np.mean(np.abs(signs @ d / len(d)) >= least))
    else:
        generator, hits = np.random.default_rng(seed), 0
        for start in range(0, resamples, _BLOCK):
            signs = 1.0 - 2.0 * generator.integers(0, 2, (min(_BLOCK, resamples - start), len(d)))
            hits += int(np.sum(np.abs(signs @ d / len(d)) >= least))
        p = (hits + 1) / (resamples + 1)
    return Comparison(difference=float(d.mean()), p=p, interval=interval, test="paired permutation")


def paired_bootstrap(
    a: Values, b: Values, gold: Values, *, statistic: str = "spearman", strata: Sequence[int] = (),
    resamples: int = 10_000, seed: int = 0,
) -> Comparison:  # fmt: skip
    """Whether two models' statistics of the same pairs (their predictions against one gold) differ: the pairs are
    resampled, for both at once."""

    def difference_of(rows: slice) -> Score:
        first, second = (STATISTICS[statistic](side[rows], gold[rows]) for side in (a, b))
        return lambda counts: second(counts) - first(counts)

    observed = [score_of_items(side, gold, statistic=statistic, strata=strata) for side in (a, b)]
    drawn = _resampled(len(gold), strata, resamples, seed, difference_of)
    drawn = drawn[np.isfinite(drawn)]
    # two-sided: the share of resamples on the other side of no difference
    tail = min(int(np.sum(drawn <= 0)), int(np.sum(drawn >= 0)))
    p = min(1.0, 2 * (tail + 1) / (len(drawn) + 1))
    return Comparison(difference=observed[1] - observed[0], p=p, interval=_interval(drawn), test="paired bootstrap")


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
    order = np.argsort(p)[: int(np.sum(~np.isnan(p)))]  # NaN sorts last
    corrected = np.full(len(p), np.nan)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return corrected.tolist()


def _resampled(
    items: int, strata: Sequence[int], resamples: int, seed: int, score_of: Callable[[slice], Score]
) -> Values:
    """Means (resamples,) of the strata's scores, each resampled by itself (multinomially, in blocks)."""
    drawn = []
    for number, rows in enumerate(parts_of(items, strata)):
        generator = np.random.default_rng([seed, number] if number else seed)
        score, count = score_of(rows), rows.stop - rows.start
        blocks = [np.zeros(0)]
        for start in range(0, resamples, _BLOCK):
            size = min(_BLOCK, resamples - start)
            picks = generator.integers(0, count, (size, count)) + np.arange(size)[:, None] * count
            counts = np.bincount(picks.ravel(), minlength=size * count).reshape(size, count)
            blocks.append(score(counts.astype(np.float64)))
        drawn.append(np.concatenate(blocks))
    return np.asarray(np.mean(drawn, axis=0))


def _interval(drawn: Values) -> Interval:
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(drawn) else (np.nan, np.nan)
    return Interval(low=float(low), high=float(high))


# ------------------------------------------------------------------------------ statistics under counts
def mean_of(values: Values) -> Score:
    """The mean of values, one an item."""
    return lambda counts: counts @ values / len(values)


def ranks_of(values: Values) -> Score:
    """Mid-ranks (resamples, items) of values when every item occurs a given number of times."""
    order, starts = _groups(values)
    group = np.empty(len(values), dtype=np.int64)
    group[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(values))))

    def ranks(counts: Values) -> Values:
        sums = np.add.reduceat(counts[:, order], starts, axis=1)
        return np.asarray((np.cumsum(sums, axis=1) - (sums - 1) / 2)[:, group])

    return ranks


def spearman_of(predicted: Values, gold: Values) -> Score:
    """Spearman's ρ of predictions and gold scores; NaN where a resample holds one value only."""
    x, y = ranks_of(predicted), ranks_of(gold)

    def score(counts: Values) -> Values:
        middle = (counts.sum(axis=1, keepdims=True) + 1) / 2
        rx, ry = x(counts) - middle, y(counts) - middle
        covariance = np.einsum("rn,rn,rn->r", counts, rx, ry)
        square = np.einsum("rn,rn,rn->r", counts, rx, rx) * np.einsum("rn,rn,rn->r", counts, ry, ry)
        return _divided(covariance, np.sqrt(square))

    return score


def average_precision_of(predicted: Values, gold: Values) -> Score:
    """Average precision of predictions, equal ones taken at once, as scikit-learn has it; NaN where a resample holds no
    positive. ``gold`` is 1 for positives, 0 else."""
    order, starts = _groups(-predicted)
    positive = gold[order] > 0

    def score(counts: Values) -> Values:
        ordered = counts[:, order]
        hits = np.add.reduceat(ordered * positive, starts, axis=1)
        hits_so_far, seen = np.cumsum(hits, axis=1), np.cumsum(np.add.reduceat(ordered, starts, axis=1), axis=1)
        precision = np.divide(hits_so_far, seen, out=np.zeros_like(hits_so_far), where=seen > 0)
        return _divided(np.einsum("rg,rg->r", hits, precision), hits_so_far[:, -1])

    return score


def _divided(values: Values, by: Values) -> Values:
    """NaN where there is nothing to divide by."""
    return np.asarray(np.divide(values, by, out=np.full(len(values), np.nan), where=by > 0))


# what a score is of an item's value, or of its prediction and gold value
STATISTICS: Mapping[str, Callable[..., Score]] = {
    "mean": mean_of, "spearman": spearman_of, "average precision": average_precision_of,
}  # fmt: skip


def _groups(values: Values) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The ascending order of values, and where in it every run of equal ones begins."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    return order, np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
