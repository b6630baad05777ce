"""Every kind, also those that only a factory string names: what is refused, what comes back, and that k is k."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import DIMENSION, ToyEncoder, vectors

from sentemb.errors import SearchError
from sentemb.search import SearchIndex
from sentemb.search.store.segment import HalfVectors
from sentemb.search.vectors.choice import kind_of
from sentemb.search.vectors.faiss_objects import create_raw, faiss, reason


@pytest.mark.parametrize("kind", ["ivf-flat", "ivf-sq8", "rabitq", "hnsw"])
def test_k_beyond_the_tuned_effort_still_gives_k(kind: str, tmp_path: Path) -> None:
    rows = vectors(3000)
    documents = [{"id": i, "text": "", "n": i} for i in range(len(rows))]
    index = SearchIndex.build(tmp_path, documents, vectors=rows, kind=kind, target_recall=0.5)
    assert [len(hits) for hits in index.search(rows[:3], 2500, effort=1)] == [2500] * 3
    assert [len(hits) for hits in index.search(rows[:3], 2300, where="n >= 700", effort=1)] == [2300] * 3
    assert len(index.search(rows[:1], 5000)[0]) == 3000


def test_tuning_does_not_count_what_looking_harder_fills_up(tmp_path: Path) -> None:
    rows = vectors(30)  # four lists of about eight: one list never holds the ten that are asked for
    index = SearchIndex.build(tmp_path, None, vectors=rows, kind="IVF4,Flat", target_recall=1.0)
    assert index.manifest.tuned is not None
    assert (index.manifest.tuned.effort or 0) > 1
    assert index.manifest.tuned.recall == 1.0


@pytest.mark.parametrize("kind", ["binary", "BHNSW8", "BIVF4"])
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_binary_codes_without_kept_vectors_live_on(kind: str, metric: Any, tmp_path: Path) -> None:
    rows = vectors(400, 64)
    rows[7] = -rows[8]
    index = SearchIndex.build(tmp_path, None, vectors=rows, kind=kind, metric=metric, rescore=False)
    best = index.search_positions(rows[:1], 400 if kind == "binary" else 3)
    differing = ((rows[:1] > 0) != (rows[best.ids[0]] > 0)).sum(axis=1)
    np.testing.assert_array_equal(differing, np.sort(differing))  # best first, by signs
    expected = 4 * differing if metric == "l2" else np.cos(np.pi * differing / 64)
    np.testing.assert_allclose(best.scores[0], expected, atol=1e-5)
    signs = np.where(rows > 0, 1, -1) / (8 if metric == "cosine" else 1)
    np.testing.assert_allclose(index.generation.vectors_at(np.array([5, 3, 7])), signs[[5, 3, 7]])
    before = index.search_positions(rows[10:30], 1).scores
    index.delete([0, 1])
    index.compact()
    assert len(index) == 398
    np.testing.assert_allclose(index.search_positions(rows[10:30], 1).scores, before, atol=1e-6)


def test_binary_range_by_squared_distance_of_the_signs(tmp_path: Path) -> None:
    rows = vectors(200, 64)
    index = SearchIndex.build(tmp_path, None, vectors=rows, kind="binary", metric="l2", rescore=False)
    differing = ((rows[:1] > 0) != (rows > 0)).sum(axis=1)
    (hits,) = index.within(rows[:1], 40.0)
    assert {hit.id for hit in hits} == set(np.flatnonzero(differing <= 10).tolist())
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(4 * differing[differing <= 10]))


def test_product_codes_are_those_of_faiss_in_another_order() -> None:
    """The order is for polysemous search, which nothing here does; making it takes most of FAISS's training."""
    rows = vectors(3000, 8)
    ours = kind_of("PQ1")
    ours.create(dimension=8, metric="dot", rows=len(rows))
    ours.train(rows, seed=7)
    theirs = create_raw("PQ1", 8, "dot")
    theirs.pq.cp.seed, theirs.pq.cp.min_points_per_centroid = 7, 1
    theirs.train(rows)
    centroids = [faiss.vector_to_array(raw.pq.centroids).reshape(256, 8) for raw in (ours.raw, theirs)]
    assert not np.array_equal(*centroids)
    np.testing.assert_array_equal(*(np.sort(one.view("f4,f4,f4,f4,f4,f4,f4,f4").ravel()) for one in centroids))


@pytest.mark.parametrize("rows", [[], [0], [299], [5, 3, 280, 3], [*range(100, 300)], [*range(300)], [7, 6, 5]])
def test_half_precision_vectors_are_read_from_anywhere(rows: list[int], tmp_path: Path) -> None:
    half = vectors(300, 24).astype(np.float16)  # several pages, and the last one not full
    (tmp_path / "half").write_bytes(half.tobytes())
    read = HalfVectors(tmp_path / "half", 300, 24).at(np.array(rows, dtype=np.int64))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, half[rows].astype(np.float32))


@pytest.mark.parametrize("kind", ["LSH", "RaBitQ", "ITQ8,LSH", "OPQ4,IVF4,PQ4"])
def test_factory_strings_whose_names_have_no_number(kind: str, tmp_path: Path) -> None:
    rows = vectors(600)
    index = SearchIndex.build(tmp_path, None, vectors=rows, kind=kind, metric="l2")
    index.delete([3])
    index.compact()
    assert len(index.search(rows[:1], 5)[0]) == 5


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("IVF4,Foo8", "could not parse"), ("IVF4,PQ7", "multiple of"), ("IVF4,Flat,RFlat", "leave out the refinement"),
        ("IVF4,PQ4+4", "leave out the refinement"),
        ("IDMap,Flat", "leave out IDMap"), ("NSG16", "all vectors at once"), ("LSH", "METRIC_L2"),
    ],
)
def test_what_faiss_cannot_make_is_told_at_the_first_block(kind: str, message: str, tmp_path: Path) -> None:
    metric: Any = "cosine" if "METRIC" in message else "l2"

    def documents() -> Any:
        yield from (f"word{i}" for i in range(8192))
        pytest.fail("a second block was asked for")

    for given in ({"encoder": ToyEncoder()}, {"vectors": vectors(8192)}):
        with pytest.raises(SearchError, match=message):
            SearchIndex.build(tmp_path / "ix", documents(), kind=kind, metric=metric, **given)
        assert [path.name for path in (tmp_path / "ix").iterdir()] == [".sentemb-lock"]


def test_reasons_are_faiss_own_words() -> None:
    index = create_raw("PQ4x4fs", DIMENSION, "l2")
    with pytest.raises(RuntimeError) as caught:
        index.range_search(vectors(1), 1.0)
    assert reason(caught.value) == "range search not implemented"
