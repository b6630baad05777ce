"""BM25 over the word lists of one or more segments, as if their documents were one collection, and its fusion."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sentemb.maths.neighbours import merged, nothing, reciprocal_rank_fusion
from sentemb.search.store.words import Words
from sentemb.types import Hits

K1, B = 1.5, 0.75
KEPT_LISTS = 256  # unpacked lists that stay in memory from query to query


class Bm25:
    """Ranks documents by the words that they share with a query:

        score(q, d) = Σ over words w of q:  idf(w) · tf(w, d) / (tf(w, d) + k1·(1 - b + b·|d| / mean |d|))
        idf(w) = ln(1 + (N - n(w) + ½) / (n(w) + ½))

    N, n(w) and mean |d| count the documents of all segments, deleted ones until the index is compacted.

    Source: Robertson & Zaragoza 2009, "The probabilistic relevance framework: BM25 and beyond", in the form of
    Lucene 8 (Kamphuis et al. 2020, ECIR, table 1), k1 = 1.5 and b = 0.75 as in BM25S (Lù 2024).
    Deviations: more than 65,535 occurrences of a word in one document count as so many.
    """

    def __init__(self, segments: Sequence[Words]) -> None:
        self.segments = segments
        self._occurrences = lru_cache(KEPT_LISTS)(lambda number, word: segments[number].occurrences(word))
        self.rows = sum(segment.rows for segment in segments)
        mean = max(sum(segment.total for segment in segments) / max(self.rows, 1), 1e-9)
        self._norms = [K1 * (1 - B + B / mean * segment.lengths) for segment in segments]

    def words(self, text: str) -> Counter[str]:
        """The words of a text, and how often it has each."""
        return Counter(self.segments[0].rule.words(text)) if self.segments else Counter()

    def top(
        self, queries: Sequence[str | Mapping[str, float]], k: int, allowed: Sequence[NDArray[np.bool_] | None] = ()
    ) -> Hits:
        """The k best documents of every query, numbered over all segments; places that words cannot fill have id -1.

        Args:
            queries: texts, or words with how often each counts.
            allowed: for every segment, the rows that may be among them; None: all.
        """
        best = nothing(len(queries), min(k, self.rows), "dot")
        for number, query in enumerate(queries):
            words = self.words(query) if isinstance(query, str) else query
            hits = self._best(words, best.ids.shape[1], allowed or [None] * len(self.segments))
            best.ids[number], best.scores[number] = hits.ids[0], hits.scores[0]
        return best

    def _best(self, words: Mapping[str, float], k: int, allowed: Sequence[NDArray[np.bool_] | None]) -> Hits:
        results, first = [nothing(1, k, "dot")], 0
        weights = {word: times * self.idf(word) for word, times in words.items()}
        for number, segment in enumerate(self.segments):
            scores = np.zeros(segment.rows, dtype=np.float32)
            for word, weight in weights.items():
                rows, counts = self._occurrences(number, word)
                scores[rows] += np.float32(weight) * counts / (counts + self._norms[number][rows])
            mask = allowed[number]
            rows = np.flatnonzero(scores > 0 if mask is None else (scores > 0) & mask)
            if len(rows) > k:
                # all that tie with the k-th stay, so that equal scores are cut by row
                rows = rows[scores[rows] >= np.partition(scores[rows], len(rows) - k)[len(rows) - k]]
            results.append(Hits(ids=(rows + first)[None], scores=scores[None, rows]))
            first += segment.rows
        return merged(results, k, "dot")

    def idf(self, word: str) -> float:
        """How rare a word is."""
        holding = sum(segment.rows_with(word) for segment in self.segments)
        return math.log(1 + (self.rows - holding + 0.5) / (holding + 0.5))


def fuse(rankings: Sequence[NDArray[np.int64]], k: int) -> Hits:
    """The k best of several rankings by ``reciprocal_rank_fusion``; equal scores by position.

    Args:
        rankings: each (queries, any) positions, best first, -1 for none.
    """
    fused = nothing(len(rankings[0]), k, "dot")
    for query in range(len(rankings[0])):
        scores = reciprocal_rank_fusion([ids[query][ids[query] >= 0].tolist() for ids in rankings])
        best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:k]
        fused.ids[query, : len(best)] = [position for position, _ in best]
        fused.scores[query, : len(best)] = [score for _, score in best]
    return fused
