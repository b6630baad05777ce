"""Pairs that a language model scored, made fit for training."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from sentemb.data.data_source import TextPairs
from sentemb.errors import DataError

MASKS = ("[MASK]", "<mask>")
LEVEL, CONTRAST = 0.1, 0.8  # y becomes 0.8 y + 0.1
PARTNERS = 2

Pair = tuple[str, str, float]


@dataclass(frozen=True, kw_only=True)
class GradedPairs:
    """Training pairs, and how many of the scored ones were left out."""

    pairs: list[Pair]
    identical: int
    masked: int
    repeated: int
    crowded: int  # beyond the partners that a sentence may have of one score


def read_scored_pairs(path: str) -> list[Pair]:
    """Anchor, positive and score of every row.

    Raises: DataError where a score is missing or not from 0 to 1.
    """
    table = TextPairs(path=path).load()
    if table.score is None:
        raise DataError(f"{path}: no column score; name it score, from 0 to 1")
    is_wrong = ~((table.score >= 0) & (table.score <= 1))
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise DataError(f"{path}: row {row + 1} has the score {table.score[row]:g}; scores are from 0 to 1")
    return list(zip(table.columns["anchor"], table.columns["positive"], table.score.tolist(), strict=True))


def grade_pairs(scored: list[Pair], *, seed: int = 42) -> GradedPairs:
    """The pairs for ``cosine_error``, as CLAIF prepares them:

    1. without pairs of equal texts, pairs in which a mask was left over, and pairs that occurred before;
    2. of each anchor two pairs of one score at most, the first ones;
    3. scores y become 0.8 y + 0.1;
    4. after each anchor's pairs, two pairs of it with other anchors drawn at random, of score 0.

    Source: Cheng et al. 2023, Findings of ACL (CLAIF), released code.
    Deviations: which of the pairs of one score stay, and that random partners are anchors, is ours.
    """
    seen: set[tuple[str, str]] = set()
    of_score: Counter[tuple[str, float]] = Counter()
    left_out: Counter[str] = Counter()
    chosen: dict[str, list[Pair]] = {}
    for anchor, positive, score in scored:
        fault = _fault(anchor, positive, seen)
        seen.add((anchor, positive))
        if fault is None and of_score[anchor, score] == PARTNERS:
            fault = "crowded"
        if fault is not None:
            left_out[fault] += 1
            continue
        of_score[anchor, score] += 1
        chosen.setdefault(anchor, []).append((anchor, positive, CONTRAST * score + LEVEL))
    anchors, generator = list(chosen), np.random.default_rng(seed)
    pairs: list[Pair] = []
    for number, anchor in enumerate(anchors):
        pairs += chosen[anchor]
        others = generator.choice(len(anchors) - 1, size=min(PARTNERS, len(anchors) - 1), replace=False)
        pairs += [(anchor, anchors[other + (other >= number)], 0.0) for other in others.tolist()]
    return GradedPairs(
        pairs=pairs, identical=left_out["identical"], masked=left_out["masked"], repeated=left_out["repeated"],
        crowded=left_out["crowded"],
    )


def _fault(anchor: str, positive: str, seen: set[tuple[str, str]]) -> str | None:
    """Why a pair teaches nothing, or None."""
    if anchor == positive:
        return "identical"
    if any(mask in text for mask in MASKS for text in (anchor, positive)):
        return "masked"
    return "repeated" if (anchor, positive) in seen else None
