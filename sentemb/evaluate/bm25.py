"""BM25 as the baseline that every retrieval report shows; English words, no stemming."""

from __future__ import annotations

from collections.abc import Sequence

from sentemb.search.query.words import Bm25
from sentemb.search.store.words import words_of_texts
from sentemb.types import Hits


def bm25_search(documents: Sequence[str], queries: Sequence[str], k: int) -> Hits:
    """The ``min(k, documents)`` best documents of every query, best first; id -1 where no more share a word.

    Args:
        documents: Texts.
        queries: Texts.
        k: At most this many hits a query.
    """
    return Bm25([words_of_texts(documents)]).top(queries, k)
