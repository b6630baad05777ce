"""Words beside meaning: BM25 fused with the vector search by reciprocal ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sentemb.maths.fusion import reciprocal_rank_fusion
from sentemb.maths.neighbours import nothing
from sentemb.types import Hits


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
