"""Correlations against scipy, similarities against a plain loop and mteb's own evaluator's functions."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cityblock

from sentemb.evaluate.metrics import pair_similarities, pearson, spearman

values = st.integers(-5, 5) | st.floats(-1e6, 1e6, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-6)


@given(st.lists(st.tuples(values, values), min_size=2, max_size=60))
@settings(max_examples=200, deadline=None)
def test_as_scipy_with_ties_and_constants(pairs):
    x, y = (np.array(side, dtype=np.float64) for side in zip(*pairs, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        rho, r = stats.spearmanr(x, y).statistic, stats.pearsonr(x, y).statistic
    assert spearman(x, y) == pytest.approx(rho, abs=1e-9, nan_ok=True)
    assert pearson(x, y) == pytest.approx(r, abs=1e-9, nan_ok=True)


def test_random_large():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 10_000))
    y += 0.3 * x
    assert abs(spearman(x, y) - stats.spearmanr(x, y).statistic) < 1e-9
    assert abs(pearson(x, y) - stats.pearsonr(x, y).statistic) < 1e-9


@pytest.mark.parametrize("correlation", [spearman, pearson])
def test_does_not_exist(correlation):
    assert np.isnan(correlation([0.3], [1.0]))
    assert np.isnan(correlation([], []))
    assert np.isnan(correlation([0.1, 0.1, 0.1], [1.0, 2.0, 3.0]))
    assert np.isnan(correlation([1.0, 2.0, 3.0], [5, 5, 5]))
    assert np.isnan(correlation([1.0, np.nan, 3.0], [1, 2, 3]))


def test_similarities_by_loop():
    generator = np.random.default_rng(1)
    first, second = generator.normal(size=(2, 7, 5)).astype(np.float32)
    second[3] = 0
    found = pair_similarities(first, second)
    for i, (x, y) in enumerate(zip(first.astype(float), second.astype(float), strict=True)):
        dot = sum(a * b for a, b in zip(x, y, strict=True))
        norms = sum(a * a for a in x) ** 0.5 * sum(b * b for b in y) ** 0.5
        assert found["dot"][i] == pytest.approx(dot, abs=1e-12)
        assert found["cosine"][i] == pytest.approx(dot / norms if norms else 0.0, abs=1e-12)
        assert found["euclidean"][i] == pytest.approx(-(sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) ** 0.5))
        assert found["manhattan"][i] == pytest.approx(-sum(abs(a - b) for a, b in zip(x, y, strict=True)))


def test_blocks_do_not_show(monkeypatch):
    first, second = np.random.default_rng(2).normal(size=(2, 11, 4)).astype(np.float32)
    whole = pair_similarities(first, second)
    monkeypatch.setattr("sentemb.evaluate.metrics._BLOCK_ROWS", 3)
    for name, block in pair_similarities(first, second).items():
        np.testing.assert_array_equal(block, whole[name])


def test_equal_vectors_have_one_similarity():
    """A collapsed encoder must give NaN, not the correlation of rounding errors."""
    vectors = np.repeat(np.random.default_rng(3).normal(size=(1, 384)).astype(np.float32), 50, axis=0)
    for similarity in pair_similarities(vectors, vectors).values():
        assert np.isnan(spearman(similarity, np.arange(50)))


def _sides(kind):
    generator = np.random.default_rng(4)
    if kind == "one pair":
        return generator.normal(size=(2, 1, 8))
    if kind == "constant vectors":
        return np.ones((2, 20, 8))
    if kind == "ties":
        return generator.integers(-1, 2, size=(2, 60, 3)) + np.array([0.0, 0.0, 2.0])
    return generator.normal(size=(2, 60, 8))


@pytest.mark.parametrize("kind", ["random", "ties", "one pair", "constant vectors"])
def test_similarities_as_mteb_and_correlations_as_scipy(kind):
    import torch
    from mteb.similarity_functions import pairwise_cos_sim, pairwise_dot_score, pairwise_euclidean_sim

    first, second = _sides(kind)
    found = pair_similarities(first.astype(np.float32), second.astype(np.float32))
    a, b = (torch.from_numpy(side.astype(np.float32).astype(np.float64)) for side in (first, second))
    manhattan = -np.array([cityblock(x, y) for x, y in zip(a.numpy(), b.numpy(), strict=True)])
    theirs = {
        "cosine": pairwise_cos_sim(a, b).numpy(),
        "dot": pairwise_dot_score(a, b).numpy(),
        "euclidean": pairwise_euclidean_sim(a, b).numpy(),
        "manhattan": manhattan,
    }
    gold = np.arange(len(first)) % 7 / 2.0
    for name, values in theirs.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-9, err_msg=name)
        if len(gold) < 2 or np.ptp(found[name]) == 0:
            assert np.isnan(spearman(found[name], gold)), name  # scipy refuses one pair and gives NaN for constants
            assert np.isnan(pearson(found[name], gold)), name
        else:
            # of the same values: float rounding breaks other ties in theirs, which is why ours are exact
            assert spearman(found[name], gold) == pytest.approx(stats.spearmanr(found[name], gold).statistic, abs=1e-9)
            assert pearson(found[name], gold) == pytest.approx(stats.pearsonr(found[name], gold).statistic, abs=1e-9)


def test_two_pairs_and_constants_as_scipy():
    found = spearman([1.0, 2.0], [3.0, 1.0])
    assert found == pytest.approx(stats.spearmanr([1.0, 2.0], [3.0, 1.0]).statistic, abs=1e-9)
    assert found == pytest.approx(-1, abs=1e-9)
    for x, y in (([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]), ([0.0, 0.0], [0.0, 0.0])):
        with pytest.warns(stats.ConstantInputWarning):
            assert np.isnan(stats.spearmanr(x, y).statistic)
        assert np.isnan(spearman(x, y))
