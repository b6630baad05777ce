"""Resampling against loops, exact tests and known distributions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score

from sentemb.evaluate.significance import (
    average_precision_of,
    bootstrap,
    holm,
    interval_of_mean,
    paired_bootstrap,
    paired_permutation,
    ranks_of,
    spearman_of,
    welch,
)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=30))
@settings(max_examples=150, deadline=None)
def test_weighted_ranks_are_those_of_the_repeated_list(rows):
    values, counts = (np.array(side, dtype=np.float64) for side in zip(*rows, strict=True))
    if counts.sum() == 0:
        return
    ranks = ranks_of(values)(counts[None])[0]
    repeated = stats.rankdata(np.repeat(values, counts.astype(int)))
    np.testing.assert_allclose(np.repeat(ranks, counts.astype(int)), repeated)


def test_weighted_rho_is_spearman_of_the_resample():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=50).round(1), generator.integers(0, 6, 50).astype(float)
    picks = generator.integers(0, 50, 50)
    counts = np.bincount(picks, minlength=50).astype(float)[None]
    found = spearman_of(x, y)(counts)[0]
    assert found == pytest.approx(stats.spearmanr(x[picks], y[picks]).statistic, abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=1, max_size=30))
@settings(max_examples=150, deadline=None)
def test_average_precision_is_scikit_learns_of_the_resample(rows):
    scores, labels, counts = (np.array(side, dtype=np.float64) for side in zip(*rows, strict=True))
    found = average_precision_of(scores, labels)(counts[None])[0]
    if (counts * labels).sum() == 0:
        assert np.isnan(found)
        return
    assert found == pytest.approx(average_precision_score(labels, scores, sample_weight=counts), abs=1e-12)


def test_interval_of_a_mean_of_tasks_is_that_of_joint_resamples():
    """Three tasks resampled together: the quantiles of their means are what their own intervals give."""
    generator = np.random.default_rng(6)
    tasks = [generator.normal(size=size) * scale for size, scale in ((300, 1), (500, 3), (200, 2))]
    joint = bootstrap(np.concatenate(tasks), strata=[300, 500, 200], resamples=20_000)
    center = float(np.mean([task.mean() for task in tasks]))
    found = interval_of_mean(center, [bootstrap(task, resamples=20_000) for task in tasks])
    width = joint.high - joint.low
    assert (found.low, found.high) == (pytest.approx(joint.low, abs=0.03 * width),
                                       pytest.approx(joint.high, abs=0.03 * width))


def test_intervals_cover():
    """Of 200 intervals of 95 % about 190 hold the true mean."""
    generator = np.random.default_rng(1)
    held = 0
    for seed in range(200):
        interval = bootstrap(generator.normal(size=80), resamples=300, seed=seed)
        held += interval.low <= 0 <= interval.high
    assert 180 <= held <= 198


def test_interval_of_spearman_as_scipy():
    generator = np.random.default_rng(2)
    x = generator.normal(size=300)
    y = x + generator.normal(size=300)
    ours = bootstrap(x, y, resamples=2000, statistic="spearman")
    theirs = stats.bootstrap(
        (x, y),
        lambda a, b: stats.spearmanr(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.high, abs=0.01)


def test_same_seed_same_interval():
    values = np.random.default_rng(0).normal(size=40)
    assert bootstrap(values, seed=5) == bootstrap(values, seed=5)
    assert bootstrap(values, seed=5) != bootstrap(values, seed=6)


def test_permutation_is_exact_for_few_items():
    a, b = np.zeros(6), np.array([0.4, -0.1, 0.5, 0.3, 0.2, 0.6])
    means = [abs(np.mean(np.array(signs) * (b - a))) for signs in itertools.product([1, -1], repeat=6)]
    expected = np.mean(np.array(means) >= abs((b - a).mean()) - 1e-12)
    assert paired_permutation(a, b).p == pytest.approx(expected)


def test_no_difference_has_p_one():
    values = np.random.default_rng(0).random(100)
    assert paired_permutation(values, values).p == 1.0
    gold = np.random.default_rng(1).random(100)
    assert paired_bootstrap(values, values, gold, resamples=200).p == 1.0


def test_false_alarms_are_as_rare_as_they_should_be():
    generator = np.random.default_rng(4)
    alarms = 0
    for seed in range(200):
        a, b = generator.random((2, 60))
        alarms += paired_permutation(a, b, resamples=199, seed=seed).p <= 0.1
    assert 8 <= alarms <= 34  # 20 expected, sd 4.2


def test_a_real_difference_is_found():
    generator = np.random.default_rng(5)
    gold = generator.random(400)
    good, bad = gold + 0.2 * generator.normal(size=400), gold + generator.normal(size=400)
    found = paired_bootstrap(bad, good, gold, resamples=500)
    assert found.difference == pytest.approx(
        stats.spearmanr(good, gold)[0] - stats.spearmanr(bad, gold)[0], abs=1e-12
    )
    assert found.p < 0.01
    assert found.interval is not None
    assert 0 < found.interval.low < found.difference < found.interval.high


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    corrected = holm([0.5, float("nan"), 0.9])
    assert corrected[0] == 1.0
    assert np.isnan(corrected[1])
    assert holm([]) == []


def test_welch_as_scipy():
    a, b = [70.1, 70.9, 70.4], [71.5, 72.4, 71.0]
    assert welch(a, b).p == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert welch(a, b).difference == pytest.approx(np.mean(b) - np.mean(a))
    assert np.isnan(welch([1.0, 1.0], [2.0, 2.0]).p)


def test_strata_are_drawn_apart():
    """A large constant subset and a small varied one: only the small one varies, by its share of the score."""
    small = np.array([0.0, 1.0])
    values = np.concatenate([np.full(98, 0.5), small])
    equal = bootstrap(values, strata=[98, 2], resamples=2000)
    assert (equal.low, equal.high) == pytest.approx((0.25, 0.75))


def test_strata_of_correlations_by_loop():
    generator = np.random.default_rng(5)
    x, y = generator.normal(size=(2, 60))
    y[:40] += x[:40]
    strata = [40, 20]
    found = bootstrap(x, y, strata=strata, resamples=4000, statistic="spearman")
    drawn = []
    for _ in range(1500):
        one, two = generator.integers(0, 40, 40), generator.integers(40, 60, 20)
        drawn.append((stats.spearmanr(x[one], y[one]).statistic + stats.spearmanr(x[two], y[two]).statistic) / 2)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03)


def test_paired_tests_compare_the_mean_over_strata():
    """B is better in the small subset and worse, pair by pair less, in the large one."""
    a = np.zeros(110)
    b = np.concatenate([np.full(100, -0.1), np.full(10, 0.9)])
    plain, apart = paired_permutation(a, b), paired_permutation(a, b, strata=[100, 10])
    assert plain.difference == pytest.approx(b.mean())
    assert apart.difference == pytest.approx(0.4)
    assert (apart.interval.low, apart.interval.high) == pytest.approx((0.4, 0.4))

    generator = np.random.default_rng(6)
    gold = generator.normal(size=90)
    one, two = gold + generator.normal(size=(2, 90))
    observed = paired_bootstrap(one, two, gold, strata=[60, 30], resamples=200).difference
    halves = [stats.spearmanr(two[r], gold[r]).statistic - stats.spearmanr(one[r], gold[r]).statistic
              for r in (slice(60), slice(60, 90))]  # fmt: skip
    assert observed == pytest.approx(np.mean(halves), abs=1e-12)
