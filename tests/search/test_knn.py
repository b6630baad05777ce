"""Exact nearest neighbours against a sort of all products."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy import vectors

from sentemb.errors import NumericError, SearchError
from sentemb.search import torch_knn
from sentemb.search.certified_knn import CertifiedStore
from sentemb.search.faiss_knn import nearest


@pytest.mark.parametrize("is_half", [False, True])
@pytest.mark.parametrize(("rows", "k"), [(40, 5), (3000, 20), (3001, 1)])
def test_top_is_exact_with_or_without_bfloat16(
    rows: int, k: int, is_half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_knn, "has_fast_bfloat16", lambda: is_half)
    monkeypatch.setattr(torch_knn, "COLUMNS", 1500)
    store, queries = vectors(rows, 32), vectors(70, 32, seed=2)
    scores, found = torch_knn.top(queries, store, k)
    products = queries.astype(np.float64) @ store.T.astype(np.float64)
    best = np.argsort(-products, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(best, axis=1))
    np.testing.assert_allclose(scores, np.take_along_axis(products, found, axis=1), atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_rounding_that_could_hide_a_neighbour_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors that bfloat16 cannot tell apart: the certificate fails and float32 decides."""
    monkeypatch.setattr(torch_knn, "has_fast_bfloat16", lambda: True)
    generator = np.random.default_rng(0)
    base = generator.normal(size=32)
    store = (base + 1e-4 * generator.normal(size=(2000, 32))).astype(np.float32)
    store /= np.linalg.norm(store, axis=1, keepdims=True)
    queries = store[:50]
    scores, _ = torch_knn.top(queries, store, 3)
    exact = np.sort(queries @ store.T, axis=1)[:, ::-1][:, :3]
    np.testing.assert_allclose(scores, exact, atol=2e-7)


def test_the_bfloat16_pass_looks_at_few_products_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random directions are far apart: the certified pass must not fall back to float32 for any query."""
    monkeypatch.setattr(torch_knn, "full_top", None)
    store, queries = torch.from_numpy(vectors(20_000, 64)), torch.from_numpy(vectors(300, 64, seed=2))
    values, rows = CertifiedStore(store).top(queries, 10)
    best = torch.topk(queries @ store.T, 10)
    torch.testing.assert_close(values, best.values, atol=1e-6, rtol=0)
    assert (rows == best.indices).float().mean() > 0.999  # float32 sums in another order may swap neighbours


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_bfloat16_pass_is_exact_at_any_scale(scale: float) -> None:
    store = torch.from_numpy(vectors(4000, 32)) * torch.linspace(0.01, 1, 4000)[:, None]
    queries = -store[:20]
    values, rows = CertifiedStore(store * scale).top(queries, 5)
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
    on_cpu, on_gpu = torch_knn.top(queries, store, 10), torch_knn.top(queries, store, 10, device="cuda")
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
