"""Results that are near the query and far from one another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.maths.neighbours import nothing
from sentemb.search.query.segments import check_k, search
from sentemb.search.store.documents import Condition
from sentemb.search.store.generation import Generation
from sentemb.types import Hits

Vectors = NDArray[np.float32]


def diverse(
    generation: Generation, queries: Vectors, k: int, *, weight: float = 0.5, pool: int | None = None,
    condition: Condition | None = None,
) -> Hits:
    """k results that are near the query and far from one another (maximal marginal relevance).

    Picks, one after the other, the candidate with the largest
    ``weight · sim(query, d) - (1 - weight) · max over picked p of sim(d, p)``; the scores are sim(query, d).

    Args:
        weight: 1 is plain search, 0 cares for diversity only.
        pool: candidates to choose from; 5·k where None.

    Source: Carbonell & Goldstein 1998, SIGIR, equation 1. Deviations: none.
    """
    check_k(k)
    if not 0 <= weight <= 1:
        raise SearchError(f"diversity weight {weight}; allowed: 0 to 1")
    if generation.manifest.metric == "l2":
        raise SearchError("diverse results need a similarity (cosine or dot); this index measures l2")
    candidates = search(generation, queries, max(pool or 5 * k, k), condition=condition)
    hits = nothing(len(queries), min(k, candidates.ids.shape[1]), "dot")
    for query, ids in enumerate(candidates.ids):
        ids = ids[ids >= 0]
        relevance = candidates.scores[query][: len(ids)]
        picked = marginal(relevance, generation.vectors_at(ids), hits.ids.shape[1], weight)
        hits.ids[query, : len(picked)], hits.scores[query, : len(picked)] = ids[picked], relevance[picked]
    return hits


def marginal(relevance: NDArray[np.float32], vectors: Vectors, k: int, weight: float) -> list[int]:
    """Order in which maximal marginal relevance picks among candidates."""
    is_left = np.ones(len(relevance), dtype=bool)
    nearest = np.full(len(relevance), -np.inf, dtype=np.float32)
    picked: list[int] = []
    while is_left.any() and len(picked) < k:
        penalty = np.where(np.isfinite(nearest), nearest, 0)
        best = int(np.argmax(np.where(is_left, weight * relevance - (1 - weight) * penalty, -np.inf)))
        picked.append(best)
        is_left[best] = False
        nearest = np.maximum(nearest, vectors @ vectors[best])
    return picked
