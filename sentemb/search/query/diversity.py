"""The order in which results are picked that are near a query, unlike one another, and of different groups."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from sentemb.search.vectors.kind import Vectors


def marginal(
    relevance: NDArray[np.float32], vectors: Vectors, k: int, weight: float, groups: Sequence[Hashable] = ()
) -> list[int]:
    """Numbers of k candidates in the order in which maximal marginal relevance picks them:

        pick the candidate d with the largest  weight · relevance(d) - (1 - weight) · max over picked p of sim(d, p)

    With groups, only candidates of the groups that were picked least often so far may be picked: every group once
    before any twice. Equal values are picked in the order of the candidates.

    Args:
        vectors: of the candidates, (candidates, d).
        groups: of the candidates.

    Source: Carbonell & Goldstein 1998, SIGIR, equation 1.
    Deviations: groups are ours.
    """
    nearest = np.zeros_like(relevance)
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    of = np.array([numbers[group] for group in groups]) if groups else np.zeros(len(relevance), dtype=np.int64)
    times = np.zeros(max(len(numbers), 1), dtype=np.int64)
    left = np.ones(len(relevance), dtype=bool)
    picked: list[int] = []
    for _ in range(min(k, len(relevance))):
        allowed = left & (times[of] == times[of[left]].min())
        value = np.where(allowed, weight * relevance - (1 - weight) * nearest, -np.inf)
        picked.append(int(np.argmax(value)))
        left[picked[-1]] = False
        times[of[picked[-1]]] += 1
        similar = vectors @ vectors[picked[-1]]
        nearest = np.maximum(nearest, similar) if len(picked) > 1 else similar
    return picked
