"""Choosing among candidates: diversity (MMR) and set operations over queries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.search.query.searcher import check_k, effort_of, search
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
    found = search(generation, queries, max(pool or 5 * k, k), condition=condition)
    ids = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    for query in range(len(queries)):
        some = found.ids[query][found.ids[query] >= 0]
        relevance = found.scores[query][: len(some)]
        picked = marginal(relevance, generation.vectors_at(some), k, weight)
        ids[query, : len(picked)] = some[picked]
        scores[query, : len(picked)] = relevance[picked]
    return Hits(ids, scores)


def marginal(relevance: NDArray[np.float32], vectors: Vectors, k: int, weight: float) -> list[int]:
    """Order in which maximal marginal relevance picks among candidates."""
    left = np.ones(len(relevance), dtype=bool)
    nearest = np.full(len(relevance), -np.inf, dtype=np.float32)
    picked: list[int] = []
    while left.any() and len(picked) < k:
        penalty = np.where(np.isfinite(nearest), nearest, 0)
        value = np.where(left, weight * relevance - (1 - weight) * penalty, -np.inf)
        best = int(np.argmax(value))
        picked.append(best)
        left[best] = False
        nearest = np.maximum(nearest, vectors @ vectors[best])
    return picked


def combined(
    generation: Generation, like: Vectors, unlike: Vectors | None, k: int, *, pool: int = 1000,
    condition: Condition | None = None,
) -> Hits:
    """Documents like all of ``like`` and unlike all of ``unlike``: a series of set operations, one result row.

    ``score(d) = min over a in like of sim(a, d) - max(0, max over c in unlike of sim(c, d))``: the intersection is a
    fuzzy "and" (minimum), the difference subtracts what is like the unwanted. Candidates are the ``pool`` nearest to
    each wanted query and to their mean, so every document that is near all of them is among them.

    Source: after Liu, Liu & Fung 2024 (SetCSE), where x belongs to a set of sentences by its similarity to them, and
    ∩ and \\ are series of such memberships.
    Deviations: SetCSE ranks by sums and differences of similarities to fine-tuned set embeddings; the minimum here
    keeps one strong match from standing in for another, and no fine-tuning is done.
    """
    check_k(k)
    if len(like) == 0:
        raise SearchError("a combined query needs at least one text that results should be like")
    if generation.manifest.metric == "l2":
        raise SearchError("combined queries need a similarity (cosine or dot); this index measures l2")
    wanted = generation.rule.apply(like, "like")
    mean = wanted.mean(axis=0, keepdims=True)
    probes = np.concatenate([wanted, mean]) if np.linalg.norm(mean) > 1e-6 else wanted
    found = search(generation, probes, min(pool, max(len(generation), 1)), condition=condition)
    places = np.unique(found.ids[found.ids >= 0])
    ids = np.full((1, k), -1, dtype=np.int64)
    scores = np.full((1, k), -np.inf, dtype=np.float32)
    if len(places):
        vectors = generation.vectors_at(places)
        value = (vectors @ wanted.T).min(axis=1)
        if unlike is not None and len(unlike):
            value = value - np.maximum((vectors @ generation.rule.apply(unlike, "unlike").T).max(axis=1), 0)
        order = np.lexsort((places, -value))[:k]
        ids[0, : len(order)], scores[0, : len(order)] = places[order], value[order]
    return Hits(ids, scores)


def within(
    generation: Generation, queries: Vectors, threshold: float, *, most: int = 10_000,
    condition: Condition | None = None,
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Positions and scores of everything at least as good as ``threshold``, best first, per query.

    Args:
        threshold: least similarity, or for l2 the largest squared distance.
        most: refuse to give more than this many per query.

    Raises:
        SearchError: more than ``most`` results, or a kind that FAISS cannot search by range.
    """
    vectors = generation.rule.apply(queries, "queries")
    effort = effort_of(generation).effort
    is_l2 = generation.manifest.metric == "l2"
    gathered: list[list[tuple[NDArray[np.int64], NDArray[np.float32]]]] = [[] for _ in range(len(vectors))]
    first = 0
    for segment in generation.segments:
        allowed = segment.allowed(condition)
        offsets, scores, rows = segment.vectors.within(vectors, threshold, effort=effort, allowed=allowed)
        for query in range(len(vectors)):
            part = slice(int(offsets[query]), int(offsets[query + 1]))
            gathered[query].append((rows[part] + first, scores[part]))
        first += segment.rows
    results = []
    for parts in gathered:
        places = np.concatenate([p for p, _ in parts] or [np.empty(0, np.int64)])
        values = np.concatenate([v for _, v in parts] or [np.empty(0, np.float32)])
        if len(places) > most:
            raise SearchError(f"{len(places):,} documents are within {threshold}, more than {most:,}: raise the bar")
        order = np.lexsort((places, values if is_l2 else -values))
        results.append((places[order], values[order]))
    return results


def like_documents(
    generation: Generation, ids: Sequence[int | str], k: int, *, condition: Condition | None = None
) -> Hits:
    """Documents nearest to the given ones, themselves left out; (ids, k).

    Raises:
        SearchError: no such document.
    """
    check_k(k)
    places = generation.positions_of(ids)
    absent = [name for name in ids if name not in places]
    if absent:
        raise SearchError(f"{generation.folder}: no document with id {absent[0]!r}")
    own = np.array([places[name] for name in ids], dtype=np.int64)
    found = search(generation, generation.vectors_at(own), k + 1, condition=condition)
    is_own = found.ids == own[:, None]
    order = np.argsort(is_own, axis=1, kind="stable")[:, :k]
    return Hits(np.take_along_axis(found.ids, order, axis=1), np.take_along_axis(found.scores, order, axis=1))
