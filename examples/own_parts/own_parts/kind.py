"""An index kind on USearch: its Python package is imported when an index is first made."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sentemb import VectorIndex
from sentemb.maths.neighbours import Metric, worst
from sentemb.parts import Count
from sentemb.search.vectors import Knob, Mask, Rows, Scores, Vectors, Write, search_wider, through_file


class Usearch(VectorIndex):
    """A graph over exact vectors, by USearch; 4·d + 8·m bytes a vector.

    Args:
        m: neighbours of a node on each level above the lowest, which has twice as many.
        build_effort: candidates for neighbours that adding a node looks at.

    Source: Malkov & Yashunin 2020, TPAMI; github.com/unum-cloud/usearch.
    Deviations: USearch's Python interface has no filter, so a filtered search asks for more until enough are allowed.
    """

    keeps_vectors = True

    def __init__(self, *, m: Count = 16, build_effort: Count = 128) -> None:
        self.m, self.build_effort = m, build_effort

    @property
    def rows(self) -> int:
        """Vectors inside."""
        return len(self.graph)

    @property
    def knob(self) -> Knob:
        """How many candidates a search keeps."""
        return Knob(name="expansion", default=64, largest=max(self.rows, 1), is_beam=True)

    def create(self, *, dimension: int, metric: Metric, rows: int) -> None:
        from usearch.index import Index

        self.dimension, self.metric = dimension, metric
        name, effort = "l2sq" if metric == "l2" else "ip", self.build_effort
        self.graph = Index(ndim=dimension, metric=name, dtype="f32", connectivity=self.m, expansion_add=effort)

    def load(self, path: Path, *, dimension: int, metric: Metric, is_mapped: bool = False) -> None:
        self.create(dimension=dimension, metric=metric, rows=0)
        self.graph.view(str(path)) if is_mapped else self.graph.load(str(path))

    def save(self, write: Write) -> None:
        through_file(self.graph.save, write)

    def add(self, vectors: Vectors) -> None:
        # One thread: threads that add to a small graph at once leave some vectors out of every search's reach.
        self.graph.add(np.arange(self.rows, self.rows + len(vectors)), vectors, threads=1)

    def reconstruct(self, rows: Rows) -> Vectors:
        return np.stack(self.graph.get(rows)) if len(rows) else np.empty((0, self.dimension), np.float32)

    def search(
        self, queries: Vectors, k: int, *, allowed: Mask | None = None, effort: int | None = None
    ) -> tuple[Scores, Rows]:
        if allowed is None:
            return self._search(queries, k, effort)
        return search_wider(lambda more: self._search(queries, more, effort), k, allowed, float(worst(self.metric)))

    def _search(self, queries: Vectors, k: int, effort: int | None) -> tuple[Scores, Rows]:
        scores = np.full((len(queries), k), worst(self.metric), dtype=np.float32)
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        if count := min(k, self.rows):
            self.graph.expansion_search = max(effort or self.knob.default, count)
            matches = self.graph.search(queries, count, exact=count == self.rows)
            distances = np.reshape(matches.distances, (-1, count))
            is_there = ~np.isnan(distances)
            scores[:, :count][is_there] = (distances if self.metric == "l2" else 1 - distances)[is_there]
            rows[:, :count][is_there] = np.reshape(matches.keys, (-1, count))[is_there]
        return scores, rows
