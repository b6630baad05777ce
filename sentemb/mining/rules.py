"""Which candidates may be negatives, and which of those are taken: pure array functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]
SOURCES = ("dense", "bm25", "random")


@dataclass(frozen=True)
class MiningRules:
    """How negatives are chosen.

    Args:
        negatives: per anchor; an anchor with fewer that pass is left out.
        dense, bm25, random: parts of the negatives that come from each source, e.g. 3, 1, 1; 0 leaves it out. What a
            source cannot give (BM25 finds only texts with common words) comes from the others, in that order.
        rank_min: best candidates to skip, counted among those that pass the other rules.
        rank_max: candidates to look at per anchor and source; None: enough that some may be refused.
        max_score, min_score: bounds of a negative's similarity to the anchor.
        absolute_margin: a negative is at least this much less similar than the positive.
        relative_margin: a negative is less similar than the positive by at least this share of its similarity.
        sampling: ``top`` takes the hardest, ``random`` draws among all that pass.
        filter_margin: with a filter model: a candidate whose own score is above the positive's less this is refused.
        seed: of every draw.
    """

    negatives: int = 5
    dense: float = 1.0
    bm25: float = 0.0
    random: float = 0.0
    rank_min: int = 0
    rank_max: int | None = None
    max_score: float | None = None
    min_score: float | None = None
    absolute_margin: float | None = None
    relative_margin: float | None = None
    sampling: str = "top"
    filter_margin: float = 0.0
    seed: int = 42

    def check(self) -> None:
        """Raises SearchError for an impossible value."""
        if self.negatives < 1:
            raise SearchError(f"negatives = {self.negatives}; at least 1")
        if self.rank_min < 0:
            raise SearchError(f"rank_min = {self.rank_min}; at least 0")
        if self.rank_max is not None and self.rank_max < self.rank_min + self.negatives:
            raise SearchError(
                f"rank_max = {self.rank_max}; with rank_min {self.rank_min} and {self.negatives} negatives it is at "
                f"least {self.rank_min + self.negatives}"
            )
        if self.seed < 0:
            raise SearchError(f"seed = {self.seed}; at least 0")
        if self.sampling not in ("top", "random"):
            raise SearchError(f'sampling = "{self.sampling}"; allowed: top, random')
        parts = self.parts
        if min(parts.values()) < 0 or not any(parts.values()):
            raise SearchError(f"parts of the sources are {parts}; none is negative and at least one is above 0")

    @property
    def parts(self) -> dict[str, float]:
        """Source to its part."""
        return {"dense": self.dense, "bm25": self.bm25, "random": self.random}

    @property
    def has_margin(self) -> bool:
        """Whether the positive's own similarity matters."""
        return self.absolute_margin is not None or self.relative_margin is not None

    def window(self, positives: int) -> int:
        """Candidates to look at per anchor and source."""
        if self.rank_max is not None:
            return self.rank_max
        refuses = self.has_margin or self.max_score is not None or self.min_score is not None
        return self.rank_min + self.negatives * (10 if refuses else 1) + positives

    def counts(self) -> dict[str, int]:
        """Negatives per source: parts as whole numbers that add up (largest remainders)."""
        total = sum(self.parts.values())
        exact = {name: self.negatives * part / total for name, part in self.parts.items()}
        counts = {name: int(value) for name, value in exact.items()}
        left = self.negatives - sum(counts.values())
        for name in sorted(exact, key=lambda name: counts[name] - exact[name])[:left]:
            counts[name] += 1
        return counts


def refuse(scores: Scores, positive: Scores | None, rules: MiningRules) -> NDArray[np.bool_]:
    """Candidates (anchors, c) that the score rules refuse; ``positive`` is each anchor's least positive similarity."""
    refused = np.zeros(scores.shape, dtype=bool)
    if positive is not None and rules.absolute_margin is not None:
        refused |= scores + np.float32(rules.absolute_margin) > positive[:, None]
    if positive is not None and rules.relative_margin is not None:
        # of the magnitude, so that a negative similarity of the positive does not loosen the rule
        refused |= scores > (positive - np.abs(positive) * np.float32(rules.relative_margin))[:, None]
    if rules.max_score is not None:
        refused |= scores > rules.max_score
    if rules.min_score is not None:
        refused |= scores < rules.min_score
    return refused


def window(passing: NDArray[np.bool_], rules: MiningRules) -> NDArray[np.bool_]:
    """Those of the passing candidates (anchors, c; ordered best first) that lie in the rank window."""
    rank = np.cumsum(passing, axis=1)
    last = passing.shape[1] if rules.rank_max is None else rules.rank_max
    return passing & (rank > rules.rank_min) & (rank <= last)


def take(
    rows: Rows, scores: Scores, allowed: NDArray[np.bool_], count: int, rules: MiningRules,
    generator: np.random.Generator,
) -> tuple[Rows, Scores]:
    """``count`` of the allowed candidates of every anchor (ordered best first); -1 where there are too few."""
    # allowed ones first, in their order
    order = np.argsort(~allowed, axis=1, kind="stable")
    rows, scores = np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
    available = allowed.sum(axis=1)
    limit = rows.shape[1] if rules.rank_max is None else min(rows.shape[1], rules.rank_max)
    rows, scores = rows[:, rules.rank_min : limit], scores[:, rules.rank_min : limit]
    available = np.clip(np.minimum(available, limit) - rules.rank_min, 0, None)
    places = np.arange(rows.shape[1])
    if rules.sampling == "random":
        keys = generator.random(rows.shape)
        keys[places[None, :] >= available[:, None]] = 2.0  # behind every real one
        picked = np.sort(np.argsort(keys, axis=1, kind="stable")[:, :count], axis=1)
    else:
        picked = np.broadcast_to(places[:count], (len(rows), min(count, rows.shape[1])))
    chosen, values = np.take_along_axis(rows, picked, axis=1), np.take_along_axis(scores, picked, axis=1)
    chosen = np.where(picked < available[:, None], chosen, -1)
    if chosen.shape[1] < count:
        missing = count - chosen.shape[1]
        chosen = np.pad(chosen, ((0, 0), (0, missing)), constant_values=-1)
        values = np.pad(values, ((0, 0), (0, missing)), constant_values=-np.inf)
    return chosen, values


def members(candidates: Rows, offsets: Rows, flat: Rows, total: int) -> NDArray[np.bool_]:
    """Whether candidate (a, c) is in anchor a's list ``flat[offsets[a]:offsets[a + 1]]``; vectorised.

    Args:
        total: number of rows that candidates and lists count in.
    """
    anchors = np.repeat(np.arange(len(candidates)), np.diff(offsets))
    keys = np.sort(anchors * total + flat)
    asked = np.arange(len(candidates))[:, None] * total + candidates
    place = np.searchsorted(keys, asked)
    found = np.zeros(candidates.shape, dtype=bool)
    inside = place < len(keys)
    found[inside] = keys[place[inside]] == asked[inside]
    return found & (candidates >= 0)
