"""Rules: which candidates are refused as negatives. Pure functions of a table of similarities and rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import NumericError, SearchError
from sentemb.maths.neighbours import Ids
from sentemb.mining.texts import Lists
from sentemb.parts import Count, Fraction, NonNegative, Part, Whole

Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class CandidateTable:
    """Candidates of a block of anchors, as one source ordered them: best first."""

    ids: Ids  # (anchors, c) corpus rows, -1 for none
    similarity: Scores  # (anchors, c) cosine of anchor and candidate
    positive: Scores  # (anchors,) cosine of anchor and its least similar positive
    allowed: Mask  # (anchors, c) which may become negatives so far
    positives: Lists  # corpus rows of each anchor's positives
    anchor_texts: Sequence[str] = ()  # for rules that read texts; empty where only vectors are mined
    corpus_texts: Sequence[str] = ()


class MiningRule(Part, room="mining_rules"):
    """Base of rules. A rule sees what the rules before it allowed."""

    skips: int = 0  # of the best candidates that it refuses on purpose: so many more are looked at

    def refused(self, table: CandidateTable) -> Mask:
        """Which candidates (anchors, c) may not become negatives."""
        raise NotImplementedError


def allowed_by(rules: Sequence[MiningRule], table: CandidateTable) -> Mask:
    """What all rules, one after the other, leave of the allowed candidates."""
    for rule in rules:
        table = replace(table, allowed=table.allowed & ~rule.refused(table))
    return table.allowed


@dataclass(frozen=True, kw_only=True)
class AbsoluteMargin(MiningRule):
    """A negative is less similar to the anchor than the positive by at least a margin.

        refused:  sim(a, c) + margin > sim(a, p)

    Args:
        margin: difference of cosines.

    Source: the sentence-transformers library, ``mine_hard_negatives``, ``absolute_margin``.
    Deviations: where an anchor has several positives, the least similar one counts.
    """

    margin: float = 0.05

    def refused(self, table: CandidateTable) -> Mask:
        return table.similarity + np.float32(self.margin) > table.positive[:, None]


@dataclass(frozen=True, kw_only=True)
class RelativeMargin(MiningRule):
    """A negative is less similar to the anchor than the positive by at least a fraction of the positive's similarity.

        refused:  sim(a, c) > sim(a, p) - fraction · |sim(a, p)|

    Args:
        fraction: 0.05 keeps candidates of up to 95 % of the positive's similarity.

    Source: Moreira et al. 2024, "NV-Retriever: Improving text embedding models with effective hard-negative mining",
        arXiv:2407.15831, TopK-PercPos; 0.05 is theirs.
    Deviations: of the magnitude, so that a negative similarity of the positive does not loosen the rule.
    """

    fraction: Fraction = 0.05

    def refused(self, table: CandidateTable) -> Mask:
        bar = table.positive - np.abs(table.positive) * np.float32(self.fraction)
        return table.similarity > bar[:, None]


@dataclass(frozen=True, kw_only=True)
class ScoreRange(MiningRule):
    """A negative's similarity to the anchor lies in a range.

        refused:  sim(a, c) < least  or  sim(a, c) > most

    Args:
        least: smallest cosine; None for any.
        most: largest cosine; None for any.
    """

    least: float | None = None
    most: float | None = None

    def refused(self, table: CandidateTable) -> Mask:
        least = -np.inf if self.least is None else self.least
        most = np.inf if self.most is None else self.most
        return (table.similarity < least) | (table.similarity > most)


@dataclass(frozen=True, kw_only=True)
class RankWindow(MiningRule):
    """A negative's rank among the candidates that the rules before this one allowed lies in a window.

        refused:  rank ≤ skip  or  rank > last,  ranks from 1

    Args:
        skip: how many of the best are left out, the likeliest false negatives.
        last: the largest rank; None for any.
    """

    skip: Whole = 0
    last: Count | None = None

    def __post_init__(self) -> None:
        if self.last is not None and self.last <= self.skip:
            raise ValueError(f"last = {self.last} and skip = {self.skip}; last must be larger")

    @property
    def skips(self) -> int:  # type: ignore[override]
        return self.skip

    def refused(self, table: CandidateTable) -> Mask:
        rank = np.cumsum(table.allowed, axis=1)
        return (rank <= self.skip) | (rank > (np.inf if self.last is None else self.last))


@dataclass(frozen=True, kw_only=True)
class CrossEncoderRule(MiningRule):
    """A cross-encoder scores a negative lower than the positive.

        refused:  score(a, c) > score(a, p) - margin

    Args:
        model: a cross-encoder, by sentence-transformers or ``sentemb rerank train``: a folder or hub id.
        margin: how far below the positive, in its own scores.

    Source: Qu et al. 2021, NAACL, "RocketQA", section 3.2 (denoised hard negatives).
    Deviations: a difference from the positive's score instead of thresholds on the score.
    """

    model: str
    margin: NonNegative = 0.0

    def refused(self, table: CandidateTable) -> Mask:
        if not table.anchor_texts:
            raise SearchError("cross_encoder: needs texts; here only vectors are mined")
        own, (rows, columns) = table.positives, np.nonzero(table.allowed)
        anchors, texts = np.append(own.owners, rows), np.append(own.rows, table.ids[rows, columns])
        pairs = [(table.anchor_texts[a], table.corpus_texts[c]) for a, c in np.stack([anchors, texts], axis=1).tolist()]
        scores = np.asarray(_cross_encoder(self.model)(pairs), dtype=np.float32).reshape(-1)
        if len(scores) != len(pairs) or not np.isfinite(scores).all():
            raise NumericError(f"{self.model} gave {len(scores)} scores of {len(pairs)} pairs, or not finite ones")
        least = np.minimum.reduceat(scores, own.offsets[:-1])  # every anchor has a positive
        refused = np.zeros(table.ids.shape, dtype=bool)
        refused[rows, columns] = scores[len(own.rows) :] > least[rows] - self.margin
        return refused


@lru_cache(maxsize=2)
def _cross_encoder(model: str) -> Callable[[list[tuple[str, str]]], Scores]:
    from sentemb.encoder.pretrained import load_cross_encoder

    return load_cross_encoder(model)


PARTS: dict[str, type[MiningRule]] = {
    "absolute_margin": AbsoluteMargin, "cross_encoder": CrossEncoderRule, "rank_window": RankWindow,
    "relative_margin": RelativeMargin, "score_range": ScoreRange,
}
