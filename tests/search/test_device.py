"""Searching on a torch device against FAISS: the same hits, whatever is deleted, added, filtered or empty."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from toy import DIMENSION, vectors

from sentemb.cli import main
from sentemb.errors import ModelError, SearchError
from sentemb.maths import inner_products
from sentemb.search import Document, SearchIndex
from sentemb.search.vectors import device as devices
from sentemb.search.vectors.device import on_device
from sentemb.search.vectors.faiss_kinds import Flat

METRICS = ["cosine", "dot", "l2"]


@pytest.fixture
def on_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """``device="cuda"`` means the CPU through torch: the GPU's code on any machine."""
    monkeypatch.setattr(devices, "torch_device", lambda name: {"cpu": None, "cuda": "cpu"}[name])


def built(folder: Path, metric: str, kind: str = "flat", rows: int = 700) -> SearchIndex:
    """An index of a segment and a tail, with deletions in both."""
    documents = [Document(i, f"d{i}", {"part": i % 7}) for i in range(rows + 50)]
    scaled = vectors(rows + 50) * (1 + np.arange(rows + 50)[:, None] / rows).astype(np.float32)
    index = SearchIndex.build(folder, documents[:rows], vectors=scaled[:rows], kind=kind, metric=metric)
    index.add(documents[rows:], vectors=scaled[rows:])
    index.delete(list(range(0, rows + 50, 5)))
    return index


def assert_same(index: SearchIndex, other: SearchIndex, k: int, where: str | None = None) -> None:
    """Equal ids and scores for single queries and a batch."""
    asked = vectors(40, seed=9)
    for queries in (asked[:1], asked):
        one, two = index.search_positions(queries, k, where=where), other.search_positions(queries, k, where=where)
        np.testing.assert_array_equal(one.ids, two.ids)
        # FAISS's own squared distances of a batch come from products, whose digits cancel
        tolerance = 1e-5 if index.manifest.metric == "l2" else 1e-6
        np.testing.assert_allclose(one.scores, two.scores, rtol=1e-6, atol=tolerance)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("tile", [65_536, 64])
@pytest.mark.usefixtures("on_torch")
def test_torch_finds_what_faiss_finds(metric: str, tile: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inner_products, "COLUMNS", tile)
    monkeypatch.setattr(devices, "COLUMNS", tile)
    monkeypatch.setattr(inner_products, "QUERY_ROWS", 32)
    built(tmp_path, metric)
    faiss, torched = SearchIndex.open(tmp_path), SearchIndex.open(tmp_path, device="cuda", mapped=True)
    assert all(segment.exact is not None for segment in torched.segments)
    assert all(segment.exact is None for segment in faiss.segments)
    for k, where in ((1, None), (10, None), (100, "part < 2"), (10, "part == 99")):
        assert_same(faiss, torched, k, where)
    everything = torched.search_positions(vectors(3), 750).ids  # deleted rows leave empty places
    np.testing.assert_array_equal(np.sort(everything), np.sort(faiss.search_positions(vectors(3), 750).ids))
    assert (everything[:, 600:] == -1).all()
    assert (everything[:, :600] >= 0).all()


@pytest.mark.usefixtures("on_torch")
def test_changes_stay_on_the_device(tmp_path: Path) -> None:
    built(tmp_path, "cosine").close()
    torched, reader = SearchIndex.open(tmp_path, device="cuda"), SearchIndex.open(tmp_path, device="cuda")
    torched.delete([1, 2])
    torched.add([Document("new", "new")], vectors=vectors(1, seed=9))
    assert torched.search(vectors(1, seed=9), 1)[0][0].id == "new"
    assert reader.refresh()
    for index in (torched, reader):
        assert all(segment.exact is not None for segment in index.segments)
        assert_same(SearchIndex.open(tmp_path), index, 10)
    torched.compact()
    assert_same(SearchIndex.open(tmp_path), torched, 10)


@pytest.mark.parametrize("kind", ["hnsw", "IVF4,Flat", "sq8", "binary"])
@pytest.mark.usefixtures("on_torch")
def test_other_kinds_are_searched_as_before(kind: str, tmp_path: Path) -> None:
    built(tmp_path, "cosine", kind)
    torched = SearchIndex.open(tmp_path, device="cuda")
    assert torched.segments[0].exact is None
    assert torched.segments[1].exact is not None  # additions are flat
    assert_same(SearchIndex.open(tmp_path), torched, 10)
    assert_same(SearchIndex.open(tmp_path), torched, 10, "part in (1, 3)")


@pytest.mark.parametrize("metric", METRICS)
def test_fewer_allowed_rows_than_asked(metric: str) -> None:
    index = Flat()
    index.create(dimension=DIMENSION, metric=metric, rows=100)  # type: ignore[arg-type]
    index.add(vectors(100))
    allowed = np.zeros(100, dtype=bool)
    allowed[[3, 70]] = True
    scores, rows = on_device(index, "cpu").top(vectors(5, seed=1), 4, allowed)
    assert [set(row) for row in rows[:, :2].tolist()] == [{3, 70}] * 5
    assert (rows[:, 2:] == -1).all()
    assert np.isfinite(scores[:, :2]).all()
    np.testing.assert_array_equal(scores[:, 2:], np.inf if metric == "l2" else -np.inf)


def test_distances_keep_their_digits_far_from_the_origin() -> None:
    index = Flat()
    index.create(dimension=DIMENSION, metric="l2", rows=200)
    rows = vectors(200) + np.float32(30)
    index.add(rows)
    scores, found = on_device(index, "cpu").top(rows[:20], 1)
    np.testing.assert_array_equal(found[:, 0], np.arange(20))
    np.testing.assert_array_equal(scores[:, 0], 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built(tmp_path, "cosine")
    with pytest.raises(ModelError, match=r'device = "cuda".*this machine has cpu'):
        SearchIndex.open(tmp_path, device="cuda")
    with pytest.raises(SystemExit) as ended:
        main(["search", str(tmp_path), "x", "--device", "cuda"])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "this machine has cpu" in said
    assert "Traceback" not in said


def test_other_devices_are_refused(tmp_path: Path) -> None:
    built(tmp_path, "cosine")
    with pytest.raises(SearchError, match="cpu, cuda or cuda:1"):
        SearchIndex.open(tmp_path, device="mps")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["flat", "IVF4,Flat", "IVF4,SQ8", "IVF4,PQ4"])
@pytest.mark.parametrize("metric", METRICS)
def test_gpu_finds_what_the_cpu_finds(metric: str, kind: str, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    built(tmp_path, metric, kind)
    on_cpu, on_gpu = SearchIndex.open(tmp_path), SearchIndex.open(tmp_path, device="cuda")
    asked = vectors(40, seed=9)
    for where in (None, "part < 2"):
        one, two = on_cpu.search_positions(asked, 10, where=where), on_gpu.search_positions(asked, 10, where=where)
        assert (one.ids == two.ids).mean() > 0.99  # ties may fall otherwise
        np.testing.assert_allclose(one.scores, two.scores, rtol=1e-4, atol=1e-4)
