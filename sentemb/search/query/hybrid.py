"""Words beside meaning: BM25 over the live documents, fused with the vector search by reciprocal ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.types import Hits

if TYPE_CHECKING:
    from sentemb.search.store.generation import Generation

RRF_CONSTANT = 60  # Cormack, Clarke & Büttcher 2009, SIGIR, section 2


class Bm25:
    """BM25 (bm25s: Lucene's variant, k1 = 1.5, b = 0.75) over a fixed list of texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s

        self._library: Any = bm25s
        self.rows = len(texts)
        self._index: Any = bm25s.BM25()
        tokens = bm25s.tokenize(list(texts), stopwords="en", show_progress=False)
        self._is_empty = not tokens.vocab or max(map(len, tokens.ids), default=0) == 0
        if not self._is_empty:
            self._index.index(tokens, show_progress=False)

    def top(self, queries: Sequence[str], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and rows (queries, k), best first; rows without a common word are -1 with score 0."""
        k = min(k, self.rows)
        if self._is_empty or not len(queries):
            return np.zeros((len(queries), k), np.float32), np.full((len(queries), k), -1, np.int64)
        tokens = self._library.tokenize(list(queries), stopwords="en", show_progress=False)
        rows, scores = self._index.retrieve(tokens, k=k, show_progress=False, backend_selection="numpy", sorted=True)
        scores = np.asarray(scores, dtype=np.float32)
        return scores, np.where(scores > 0, np.asarray(rows, dtype=np.int64), -1)


class WordSearch:
    """BM25 over one generation of an index; made once per handle and generation."""

    def __init__(self, generation: Generation) -> None:
        positions: list[int] = []
        texts: list[str] = []
        first = 0
        for segment in generation.segments:
            for row, document in segment.documents.scan():
                if document.text and (segment.live is None or segment.live[row]):
                    positions.append(first + row)
                    texts.append(document.text)
            first += segment.rows
        if not texts:
            raise SearchError(f"{generation.folder}: hybrid search needs texts, and this index keeps none")
        self._positions = np.array(positions, dtype=np.int64)
        self._words = Bm25(texts)

    def top(self, queries: Sequence[str], k: int, allowed: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """Positions (queries, ≤ k), best first, -1 where words give nothing; only ``allowed`` positions."""
        asked = k
        while True:
            _, rows = self._words.top(queries, asked)
            found = np.where(rows >= 0, self._positions[rows], -1)
            if allowed is None or asked >= len(self._positions):
                break
            keep = (found >= 0) & allowed[found]
            if int(keep.sum(axis=1).min(initial=k)) >= k or not (found[:, -1] >= 0).any():
                break
            asked = min(asked * 4, len(self._positions))
        if allowed is not None:
            found = np.where((found >= 0) & allowed[found], found, -1)
            found = np.take_along_axis(found, np.argsort(found < 0, axis=1, kind="stable"), axis=1)
        return found[:, :k]


def fuse(rankings: Sequence[NDArray[np.int64]], k: int) -> Hits:
    """Reciprocal rank fusion: score(d) = Σ over rankings of 1 / (60 + rank of d), ranks from 1.

    Args:
        rankings: each (queries, any) positions, best first, -1 for none.

    Source: Cormack, Clarke & Büttcher 2009, SIGIR, "Reciprocal rank fusion outperforms Condorcet…", equation 1.
    Deviations: none.
    """
    queries = len(rankings[0])
    ids = np.full((queries, k), -1, dtype=np.int64)
    scores = np.full((queries, k), -np.inf, dtype=np.float32)
    for query in range(queries):
        total: dict[int, float] = {}
        for ranking in rankings:
            for rank, place in enumerate(ranking[query].tolist(), start=1):
                if place >= 0:
                    total[place] = total.get(place, 0.0) + 1.0 / (RRF_CONSTANT + rank)
        best = sorted(total.items(), key=lambda item: (-item[1], item[0]))[:k]
        ids[query, : len(best)] = [place for place, _ in best]
        scores[query, : len(best)] = [score for _, score in best]
    return Hits(ids, scores)
