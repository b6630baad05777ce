"""Exact nearest neighbours against a sort of all products."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sentemb.errors import NumericError, SearchError
from sentemb.maths import inner_products, neighbours
from sentemb.maths.inner_products import CertifiedProducts, ExactSearch
from sentemb.maths.neighbours import merged, nearest, top, without_own
from sentemb.types import Hits


def vectors(rows: int, dimension: int = 16, seed: int = 1) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).normal(size=(rows, dimension)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.mark.parametrize("is_half", [False, True])
@pytest.mark.parametrize(("rows", "k"), [(40, 5), (3000, 20), (3001, 1)])
def test_top_is_exact_with_or_without_bfloat16(
    rows: int, k: int, is_half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inner_products, "has_fast_bfloat16", lambda: is_half)
    monkeypatch.setattr(inner_products, "COLUMNS", 1500)
    store, queries = vectors(rows, 32), vectors(70, 32, seed=2)
    scores, found = ExactSearch.of(store).top(queries, k)
    products = queries.astype(np.float64) @ store.T.astype(np.float64)
    best = np.argsort(-products, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(best, axis=1))
    np.testing.assert_allclose(scores, np.take_along_axis(products, found, axis=1), atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_rounding_that_could_hide_a_neighbour_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors that bfloat16 cannot tell apart: the certificate fails and float32 decides."""
    monkeypatch.setattr(inner_products, "has_fast_bfloat16", lambda: True)
    generator = np.random.default_rng(0)
    base = generator.normal(size=32)
    store = (base + 1e-4 * generator.normal(size=(2000, 32))).astype(np.float32)
    store /= np.linalg.norm(store, axis=1, keepdims=True)
    queries = store[:50]
    scores, _ = ExactSearch.of(store).top(queries, 3)
    exact = np.sort(queries @ store.T, axis=1)[:, ::-1][:, :3]
    np.testing.assert_allclose(scores, exact, atol=2e-7)


def test_the_bfloat16_pass_looks_at_few_products_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random directions are far apart: the certified pass must not fall back to float32 for any query."""
    monkeypatch.setattr(inner_products, "full_top", None)
    store, queries = torch.from_numpy(vectors(20_000, 64)), torch.from_numpy(vectors(300, 64, seed=2))
    values, rows = CertifiedProducts(store).top(queries, 10)
    best = torch.topk(queries @ store.T, 10)
    torch.testing.assert_close(values, best.values, atol=1e-6, rtol=0)
    assert (rows == best.indices).float().mean() > 0.999  # float32 sums in another order may swap neighbours


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_bfloat16_pass_is_exact_at_any_scale(scale: float) -> None:
    store = torch.from_numpy(vectors(4000, 32)) * torch.linspace(0.01, 1, 4000)[:, None]
    queries = -store[:20]
    values, rows = CertifiedProducts(store * scale).top(queries, 5)
    best = torch.topk(queries @ store.T, 5)
    torch.testing.assert_close(values / scale, best.values, atol=1e-6, rtol=1e-5)
    assert (rows == best.indices).float().mean() > 0.99


def test_own_row_is_left_out_and_equal_rows_are_not() -> None:
    store = vectors(200, 8)
    store[1:6] = store[0]
    found, similarity = nearest(store, 7)
    assert (found != np.arange(200)[:, None]).all()
    assert {1, 2, 3, 4, 5} <= set(found[0].tolist())
    assert similarity[0, 0] == pytest.approx(1.0)
    products = store @ store.T
    np.fill_diagonal(products, -np.inf)
    np.testing.assert_allclose(similarity, -np.sort(-products, axis=1)[:, :7], atol=1e-6)


@pytest.mark.gpu
def test_gpu_equals_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    store, queries = vectors(5000, 64), vectors(100, 64, seed=3)
    on_cpu, on_gpu = ExactSearch.of(store).top(queries, 10), ExactSearch.of(store, "cuda").top(queries, 10)
    np.testing.assert_allclose(on_cpu[0], on_gpu[0], atol=1e-5)


@pytest.mark.parametrize("k", [0, 10])
def test_impossible_k(k: int) -> None:
    with pytest.raises(SearchError, match="k = "):
        nearest(vectors(10), k)


def test_nan_is_named() -> None:
    broken = vectors(10)
    broken[4, 2] = np.nan
    with pytest.raises(NumericError, match="row 4"):
        nearest(broken, 2)


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("block", [10**6, 40])
def test_blocks_and_metrics_give_what_a_full_sort_gives(
    metric: neighbours.Metric, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_ROWS", block)
    monkeypatch.setattr(inner_products, "COLUMNS", 64)
    generator = np.random.default_rng(0)
    queries = generator.normal(size=(45, 8)).astype(np.float32)
    store = generator.normal(size=(301, 8)).astype(np.float32)
    blocks = [store[start : start + block] for start in range(0, 301, block)]
    for hits in (top(queries, store, 25, metric=metric), neighbours.top_of_blocks(queries, blocks, 25, metric=metric)):
        q, s = queries.astype(np.float64), store.astype(np.float64)
        if metric == "cosine":
            q, s = q / np.linalg.norm(q, axis=1, keepdims=True), s / np.linalg.norm(s, axis=1, keepdims=True)
        scores = ((q[:, None] - s) ** 2).sum(axis=2) if metric == "l2" else -(q @ s.T)
        np.testing.assert_array_equal(hits.ids, np.argsort(scores, axis=1)[:, :25])
        sign = 1 if metric == "l2" else -1
        np.testing.assert_allclose(sign * hits.scores, np.sort(scores, axis=1)[:, :25], rtol=1e-5, atol=1e-6)


def test_few_vectors_and_none() -> None:
    store = np.eye(3, dtype=np.float32)
    assert top(store, store, 10).ids.shape == (3, 3)
    assert top(store, store[:0], 10).ids.shape == (3, 0)
    assert top(store[:0], store, 2).ids.shape == (0, 2)


def test_filtered_rows_leave_empty_places() -> None:
    store = vectors(50, 8)
    allowed = np.arange(50) % 10 == 3
    for metric, worst in (("dot", -np.inf), ("l2", np.inf)):
        scores, rows = ExactSearch.of(store, "cpu", metric).top(store[:40], 7, allowed)
        assert (np.sort(rows[:, :5], axis=1) == np.flatnonzero(allowed)).all()
        assert (rows[:, 5:] == -1).all()
        assert (scores[:, 5:] == worst).all()


def test_an_earlier_search_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inner_products, "has_fast_bfloat16", lambda: True)
    store, queries = vectors(3000, 32), vectors(5, 32, seed=2)
    fresh, used = ExactSearch.of(store), ExactSearch.of(store)
    used.top(store[:100], 4)
    for before, after in zip(fresh.top(queries, 4), used.top(queries, 4), strict=True):
        np.testing.assert_array_equal(before, after)


def test_merging_orders_equal_scores_by_id_and_puts_empty_places_last() -> None:
    one = Hits(ids=np.array([[7, 2, -1]]), scores=np.array([[0.5, 0.25, 9.0]], dtype=np.float32))
    two = Hits(ids=np.array([[3]]), scores=np.array([[0.5]], dtype=np.float32))
    best = merged([one, two], 5, "dot")
    assert best.ids.tolist() == [[3, 7, 2, -1, -1]]
    assert best.scores.tolist() == [[0.5, 0.5, 0.25, -np.inf, -np.inf]]


def test_own_id_is_dropped_or_the_last() -> None:
    hits = Hits(ids=np.array([[4, 0, 2], [4, 5, 6]]), scores=np.array([[3, 2, 1], [3, 2, 1]], dtype=np.float32))
    assert without_own(hits, np.array([0, 1])).ids.tolist() == [[4, 2], [4, 5]]
