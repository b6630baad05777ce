"""Documents like given examples: like and unlike several texts at once, or like documents of the index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.maths.neighbours import nothing, ordered, without_own
from sentemb.search.query.segments import check_k, search
from sentemb.search.store.documents import Condition
from sentemb.search.store.generation import Generation
from sentemb.types import Hits

Vectors = NDArray[np.float32]


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
    ids = np.unique(search(generation, probes, pool, condition=condition).ids)
    ids = ids[ids >= 0]
    if not len(ids):
        return nothing(1, 0, "dot")
    vectors = generation.vectors_at(ids)
    scores = (vectors @ wanted.T).min(axis=1)
    if unlike is not None and len(unlike):
        scores = scores - np.maximum((vectors @ generation.rule.apply(unlike, "unlike").T).max(axis=1), 0)
    return ordered(ids[None], scores[None], k, "dot")


def like_documents(
    generation: Generation, ids: Sequence[int | str], k: int, *, condition: Condition | None = None
) -> Hits:
    """Documents nearest to the given ones, themselves left out; (ids, k).

    Raises:
        SearchError: no such document.
    """
    check_k(k)
    positions = generation.positions_of(ids)
    absent = [name for name in ids if name not in positions]
    if absent:
        raise SearchError(f"{generation.folder}: no document with id {absent[0]!r}")
    own = np.array([positions[name] for name in ids], dtype=np.int64)
    return without_own(search(generation, generation.vectors_at(own), k + 1, condition=condition), own)
