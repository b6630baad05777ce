"""BM25 as the baseline that every retrieval report shows (bm25s: Lù 2024); no stemming."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from sentemb.types import Hits


def bm25_search(documents: Sequence[str], queries: Sequence[str], k: int) -> Hits:
    """The k best documents of every query by BM25 (Lucene's variant, k1 = 1.5, b = 0.75); words without English stop
    words, lower-cased.

    Args:
        documents: Texts.
        queries: Texts.
        k: At most this many hits a query.

    Returns:
        Positions in ``documents`` and scores, best first; only hits that share a word have a score above 0.
    """
    import bm25s

    k = min(k, len(documents))
    if not k or not queries:
        return Hits(np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k), np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # bm25s probes for JAX and numba
        tokens = bm25s.tokenize(list(documents), stopwords="en", show_progress=False)
        if not tokens.vocab or all(not ids for ids in tokens.ids):
            return Hits(np.full((len(queries), k), -1), np.full((len(queries), k), -np.inf, np.float32))
        index = bm25s.BM25()
        index.index(tokens, show_progress=False)
        asked = bm25s.tokenize(list(queries), stopwords="en", return_ids=False, show_progress=False)
        ids, scores = index.retrieve(asked, k=k, show_progress=False)
    return Hits(np.asarray(ids, dtype=np.int64), np.asarray(scores, dtype=np.float32))
