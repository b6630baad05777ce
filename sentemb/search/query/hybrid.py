"""Words beside meaning: BM25, and BM25 fused with the vector search by reciprocal ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sentemb.maths.fusion import reciprocal_rank_fusion
from sentemb.maths.neighbours import nothing
from sentemb.search.query.segments import check_k, search
from sentemb.search.query.words import Bm25
from sentemb.search.store.documents import Condition
from sentemb.search.store.generation import Generation
from sentemb.types import Hits


def by_words(
    generation: Generation, words: Bm25, queries: Sequence[str], k: int, *, condition: Condition | None = None
) -> Hits:
    """The k best documents of every query by BM25; fewer where fewer share a word with it."""
    check_k(k)
    return words.top(queries, k, [segment.allowed(condition) for segment in generation.segments])


def hybrid(
    generation: Generation, words: Bm25, queries: Sequence[str], vectors: NDArray[np.float32], k: int, *,
    pool: int = 100, condition: Condition | None = None,
) -> Hits:
    """Vector search and BM25, ``pool`` results of each, fused by reciprocal ranks; scores are those of the fusion."""
    check_k(k)
    meaning = search(generation, vectors, max(pool, k), condition=condition)
    shared = by_words(generation, words, queries, max(pool, k), condition=condition)
    return fuse([meaning.ids, shared.ids], min(k, max(len(generation), 1)))


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
