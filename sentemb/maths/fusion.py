"""Several rankings of the same documents as one."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

CONSTANT = 60  # Cormack, Clarke & Büttcher 2009, section 2
Name = TypeVar("Name", bound=Hashable)


def reciprocal_rank_fusion(rankings: Iterable[Sequence[Name]], constant: int = CONSTANT) -> dict[Name, float]:
    """Score of every document: score(d) = Σ over rankings of 1 / (constant + rank of d), ranks from 1.

    Args:
        rankings: documents, each once, best first.

    Source: Cormack, Clarke & Büttcher 2009, SIGIR, "Reciprocal rank fusion outperforms Condorcet…", equation 1.
    Deviations: none.
    """
    scores: dict[Name, float] = {}
    for ranking in rankings:
        for rank, name in enumerate(ranking, start=1):
            scores[name] = scores.get(name, 0.0) + 1 / (constant + rank)
    return scores
