"""The kinds of sentemb, and one on another library, pass the tests of every kind; what a user writes names them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import vectors

from sentemb.errors import SearchError
from sentemb.parts import room
from sentemb.search import SearchIndex
from sentemb.search.vectors import PARTS, VectorIndex
from sentemb.search.vectors.choice import kind_of
from sentemb.search.vectors.contract import CHECKS

NAMED = [name for name in PARTS if name != "faiss"]
FACTORIES = ["HNSW16,SQ8", "IVF8,Flat"]


class Plain(VectorIndex):
    """Exact search by numpy alone: a kind of somebody else's.

    Args:
        digits: decimal places that are kept.
    """

    is_exact = keeps_vectors = True

    def __init__(self, *, digits: int = 7) -> None:
        self.digits = digits

    @property
    def rows(self) -> int:
        return len(self._vectors)

    def create(self, *, dimension: int, metric: Any, rows: int) -> None:
        self.dimension, self.metric = dimension, metric
        self._vectors = np.empty((0, dimension), np.float32)

    def add(self, vectors: Any) -> None:
        self._vectors = np.concatenate([self._vectors, vectors.round(self.digits)])

    def search(self, queries: Any, k: int, *, allowed: Any = None, effort: int | None = None) -> Any:
        scores = queries @ self._vectors.T
        if self.metric == "l2":
            scores = ((queries[:, None] - self._vectors) ** 2).sum(-1)
        bad = scores if self.metric == "l2" else -scores
        bad = bad if allowed is None else np.where(allowed, bad, np.inf)
        rows = np.argsort(bad, axis=1, kind="stable")[:, :k]
        rows = np.where(np.isinf(np.take_along_axis(bad, rows, 1)), -1, rows)
        found = np.take_along_axis(scores, np.maximum(rows, 0), 1).astype(np.float32)
        missing = k - rows.shape[1]
        return np.pad(found, ((0, 0), (0, missing))), np.pad(rows, ((0, 0), (0, missing)), constant_values=-1)

    def reconstruct(self, rows: Any) -> Any:
        return self._vectors[rows]

    def save(self, write: Any) -> None:
        write(self._vectors.tobytes())

    def load(self, path: Path, *, dimension: int, metric: Any, is_mapped: bool = False) -> None:
        self.dimension, self.metric = dimension, metric
        self._vectors = np.fromfile(path, np.float32).reshape(-1, dimension)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", [*NAMED, *FACTORIES, "plain"])
def test_every_kind_passes_the_tests_of_kinds(kind: str, check: Any, tmp_path: Path) -> None:
    if kind == "plain" and check.__name__ == "is_a_part":
        pytest.skip("a class in a test module has no importable name")
    check(Plain() if kind == "plain" else kind_of(kind), tmp_path)


def test_an_index_of_a_kind_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec("own_kinds", None))
    Plain.__module__ = module.__name__
    module.Plain = Plain  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_kinds", module)
    rows = vectors(300)
    index = SearchIndex.build(tmp_path, None, vectors=rows, kind="own_kinds:Plain:digits=5", segment_rows=100)
    assert index.manifest.kind == {"use": "own_kinds:Plain", "digits": 5}
    index.delete([3])
    index.compact()
    again = SearchIndex.open(tmp_path)
    assert [hits[0].id for hits in again.search(rows[4:9], 1)] == [4, 5, 6, 7, 8]
    again.verify()
    monkeypatch.delitem(sys.modules, "own_kinds")
    with pytest.raises(SearchError, match="import the module of a kind of your own"):
        SearchIndex.open(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hnsv", "did you mean hnsw"), ("hnsw:n=3", "known: build_effort, m"), ("hnsw:m=0", "m"), ("hnsw:m=x", "m"),
        ("nowhere:Kind", "nowhere"), ("flat:m=3", "m"),
    ],
)
def test_kinds_that_do_not_exist_are_refused(text: str, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        kind_of(text)


def test_settings_of_a_kind() -> None:
    assert repr(kind_of("hnsw:m=16,build_effort=80")) == "Hnsw(m=16, build_effort=80)"
    assert kind_of("IVF16,SQ8") == room("kinds").make({"use": "faiss", "factory": "IVF16,SQ8"})
    assert set(room("kinds").names()) >= set(PARTS)  # and those of installed packages
