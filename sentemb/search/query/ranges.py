"""Everything that is near enough to a query."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.maths.neighbours import merged, nothing
from sentemb.search.query.segments import effort_of
from sentemb.search.store.documents import Condition
from sentemb.search.store.generation import Generation
from sentemb.types import Hits


def within(
    generation: Generation, queries: NDArray[np.float32], threshold: float, *, most: int = 10_000,
    condition: Condition | None = None,
) -> list[Hits]:
    """Everything at least as good as ``threshold``, best first; for every query a row of its own length.

    Args:
        threshold: least similarity, or for l2 the largest squared distance.
        most: refuse to give more than this many per query.

    Raises:
        SearchError: more than ``most`` results, or a kind that cannot search by a threshold.
    """
    vectors, metric = generation.rule.apply(queries, "queries"), generation.manifest.metric
    effort = effort_of(generation).effort
    parts: list[list[Hits]] = [[nothing(1, 0, metric)] for _ in vectors]
    for segment, first in zip(generation.segments, generation.starts, strict=True):
        offsets, scores, rows = segment.vectors.within(
            vectors, threshold, effort=effort, allowed=segment.allowed(condition)
        )
        for query, hits in enumerate(parts):
            part = slice(int(offsets[query]), int(offsets[query + 1]))
            hits.append(Hits(ids=rows[part][None] + first, scores=scores[part][None]))
    counts = [sum(part.ids.shape[1] for part in hits) for hits in parts]
    if max(counts, default=0) > most:
        raise SearchError(f"{max(counts):,} documents are within {threshold}, more than {most:,}: raise the bar")
    return [merged(hits, count, metric) for hits, count in zip(parts, counts, strict=True)]
