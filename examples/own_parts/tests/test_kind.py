from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from own_parts.kind import Usearch

from sentemb import SearchIndex
from sentemb.search.vectors.contract import CHECKS, made_vectors


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_does_what_every_kind_must(check: Callable[..., None], tmp_path: Path) -> None:
    check(Usearch(m=8), tmp_path)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_an_index_of_it_is_built_searched_changed_and_opened_again(metric: str, tmp_path: Path) -> None:
    vectors, queries = made_vectors(600), made_vectors(20, seed=9)
    documents = [{"id": i, "text": f"text {i}", "n": i} for i in range(600)]
    exact = SearchIndex.build(tmp_path / "flat", documents, vectors=vectors, kind="flat", metric=metric)
    with SearchIndex.build(tmp_path / "own", documents, vectors=vectors, kind="usearch:m=8", metric=metric) as index:
        assert index.search_positions(vectors[:5], 1).ids[:, 0].tolist() == [0, 1, 2, 3, 4]
    for index in (SearchIndex.open(tmp_path / "own"), SearchIndex.open(tmp_path / "own", mapped=True)):
        with index:
            hits, wanted = (one.search_positions(queries, 10).ids for one in (index, exact))
            assert np.mean([len(set(a) & set(b)) for a, b in zip(hits, wanted, strict=True)]) > 9
            assert {hit.id for hit in index.search(queries[:1], 5, where="n >= 590")[0]} <= set(range(590, 600))
    with SearchIndex.open(tmp_path / "own") as index:
        index.delete([0, 1])
        index.add([{"id": 600, "text": "new", "n": 600}], vectors=vectors[:1])
        index.compact()
        assert len(index) == 599
        assert index.search(vectors[:1], 1)[0][0].id == 600
