"""From rows to results: of an index of passages every document by its best one; one of every label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sentemb.errors import SearchError
from sentemb.search.query.diversity import marginal
from sentemb.search.store.generation import Generation, Hit
from sentemb.search.store.searching import check_k
from sentemb.types import Hits

RERANKED = 5  # times as many hits as are asked for are read by a re-ranker
Reranker = Callable[[list[tuple[str, str]]], Any]  # (query, text) pairs to one score each


def best_documents(generation: Generation, ask: Callable[[int], Hits], k: int) -> list[list[Hit]]:
    """The k best documents of every query; of an index of passages, each by its best one.

    Args:
        ask: a number of rows -> so many best rows.
    """
    if generation.manifest.passages is None:
        return generation.hits(ask(k))
    check_k(k)
    count = 4 * k
    while True:
        lists = [first_of_each(hits)[:k] for hits in generation.hits(ask(count))]
        if count >= generation.manifest.rows or all(len(hits) == k for hits in lists):
            return lists
        count *= 4


def first_of_each(hits: Sequence[Hit]) -> list[Hit]:
    """The first hit of every document."""
    first: dict[str, Hit] = {}
    for hit in hits:
        first.setdefault(str(hit.id), hit)
    return list(first.values())


def covering(
    generation: Generation, queries: Sequence[str], candidates: Hits, k: int, *, cover: str, weight: float
) -> list[list[Hit]]:
    """k of each query's candidates: every value of the field ``cover`` before any twice, never the query's own text."""
    lists: list[list[Hit]] = []
    for query, ids, hits in zip(queries, candidates.ids, generation.hits(candidates), strict=True):
        others = [i for i, hit in enumerate(hits) if (hit.text or "").strip() != query.strip()]
        labels = [str(hits[i].metadata.get(cover)) for i in others]
        relevance = candidates.scores[len(lists)][others]
        order = marginal(relevance, generation.vectors_at(ids[others]), k, weight, labels) if others else []
        lists.append([hits[others[i]] for i in order])
    return lists


def pairs_of(query: str, hits: Sequence[Hit]) -> list[tuple[str, str]]:
    """What a re-ranker scores."""
    return [(query, hit.text or "") for hit in hits]


def in_order_of(scores: Any, hits: Sequence[Hit], k: int | None) -> list[Hit]:
    """The k best hits in the order of another model's scores, which they then carry.

    Raises: SearchError: not one finite score a hit.
    """
    values = np.asarray(scores, dtype=np.float32).reshape(-1)
    if len(values) != len(hits) or not np.isfinite(values).all():
        raise SearchError(f"the re-ranker gave {len(values)} scores for {len(hits)} documents, or not finite ones")
    order = np.argsort(-values, kind="stable")[:k]
    return [replace(hits[i], score=float(values[i])) for i in order.tolist()]
