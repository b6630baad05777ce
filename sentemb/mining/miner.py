"""Negatives for blocks of anchors, from vectors: sources propose, rules refuse, the miner takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sentemb.errors import SearchError
from sentemb.maths.neighbours import Ids
from sentemb.mining.rules import CandidateTable, Mask, MiningRule, Scores, allowed_by
from sentemb.mining.sources import MiningSource, Nearest, Passages
from sentemb.mining.texts import Lists

BLOCK = 4096  # anchors at a time


@dataclass(frozen=True, kw_only=True)
class MiningOptions:
    """How negatives are chosen.

    Args:
        negatives: how many for each anchor; an anchor with fewer is left out.
        sources: where candidates come from. What one cannot give comes from the others, in their order.
        rules: which candidates are refused, in order.
        sampling: ``top`` takes each source's best, ``random`` draws among all that the rules allow.
        candidates: how many each source proposes for an anchor; None: ten times the negatives where rules refuse some.
        seed: of every draw.
    """

    negatives: int = 5
    sources: Sequence[MiningSource] = (Nearest(),)
    rules: Sequence[MiningRule] = ()
    sampling: Literal["top", "random"] = "top"
    candidates: int | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        for name, value, least in (("negatives", self.negatives, 1), ("candidates", self.candidates, self.negatives),
                                   ("seed", self.seed, 0)):
            if value is not None and value < least:
                raise SearchError(f"{name} = {value}; at least {least}")
        if self.sampling not in ("top", "random"):
            raise SearchError(f'sampling = "{self.sampling}"; allowed: top, random')
        if not any(source.share > 0 for source in self.sources):
            raise SearchError("mining needs a source with a share above 0")

    @property
    def depth(self) -> int:
        """Candidates to look at per anchor and source."""
        if self.candidates is not None:
            return self.candidates
        is_strict = self.sampling == "random" or any(not rule.skips for rule in self.rules)
        return sum(rule.skips for rule in self.rules) + self.negatives * (10 if is_strict else 1)

    def counts(self) -> list[int]:
        """Negatives from each source: whole numbers that add up."""
        shares = np.cumsum([0.0, *(source.share for source in self.sources)])
        counts: list[int] = np.diff(np.rint(self.negatives * shares / shares[-1]).astype(int)).tolist()
        return counts


@dataclass(frozen=True, kw_only=True)
class MinedBlock:
    """Negatives of one block of anchors, for those that have enough."""

    anchors: Ids  # (n,)
    negatives: Ids  # (n, negatives) corpus rows
    similarity: Scores  # (n, negatives) to the anchor
    positive: Scores  # (n,) least similarity of a positive
    considered: int  # anchors of the block
    proposed: int  # candidates
    refused: int  # candidates that rules refused


class Miner:
    """Mines block by block; a block depends on no other, so mining can go on from anywhere.

    Args:
        anchors, corpus: unit vectors, with their texts where sources or rules read them.
        positives: corpus rows of each anchor's positives.
        excluded: corpus rows that are never an anchor's negatives.
        folder: where sources may leave files for a resumed run.
    """

    def __init__(
        self, anchors: Passages, corpus: Passages, options: MiningOptions, *, positives: Lists, excluded: Lists,
        folder: Path | None = None,
    ) -> None:
        self.anchors, self.corpus, self.options = anchors, corpus, options
        self.positives, self.excluded = positives, excluded
        counts = zip(options.sources, options.counts(), strict=True)
        self._finders = [(source.open(corpus, folder, options.seed), count) for source, count in counts if count]

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-len(self.anchors.vectors) // BLOCK)

    def mine(self) -> Iterator[MinedBlock]:
        """All blocks."""
        return map(self.block, range(self.blocks))

    def block(self, number: int) -> MinedBlock:
        """The negatives of one block of anchors."""
        options, start = self.options, number * BLOCK
        anchors = self.anchors.part(start, start + BLOCK)
        positives, excluded = (lists.part(start, start + BLOCK) for lists in (self.positives, self.excluded))
        owners = np.repeat(np.arange(len(anchors.vectors)), np.diff(positives.offsets))
        similarity = np.einsum("ij,ij->i", anchors.vectors[owners], self.corpus.vectors[positives.rows])
        positive = np.minimum.reduceat(similarity, positives.offsets[:-1])
        positive_texts = [[self.corpus.texts[row] for row in rows] for rows in positives] if self.corpus.texts else ()
        generator = np.random.default_rng([options.seed, number])
        depth = min(options.depth + excluded.longest, len(self.corpus.vectors))
        proposals = []
        for find, count in self._finders:
            hits = find(anchors, depth, generator)
            table = CandidateTable(
                ids=hits.ids, similarity=hits.scores, positive=positive,
                allowed=(hits.ids >= 0) & ~excluded.contain(hits.ids),
                anchor_texts=anchors.texts, positive_texts=positive_texts, corpus_texts=self.corpus.texts,
            )
            proposals.append((table, allowed_by(options.rules, table), count))
        ids, scores = np.empty((len(positive), 0), np.int64), np.empty((len(positive), 0), np.float32)
        # each source's share, then what a source could not give
        for table, passing, count in [*proposals, *((*proposal[:2], options.negatives) for proposal in proposals)]:
            wanted = np.minimum(count, options.negatives - (ids >= 0).sum(axis=1))
            if not wanted.any():
                continue
            sampler = generator if options.sampling == "random" else None
            taken = take(table, passing & ~_among(table.ids, ids), wanted, sampler)
            ids, scores = np.concatenate([ids, taken[0]], axis=1), np.concatenate([scores, taken[1]], axis=1)
        order = np.argsort(ids < 0, axis=1, kind="stable")[:, : options.negatives]
        ids, scores = np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)
        full = np.flatnonzero((ids >= 0).sum(axis=1) == options.negatives)
        proposed = sum(int(table.allowed.sum()) for table, _, _ in proposals)
        return MinedBlock(
            anchors=full + start, negatives=ids[full], similarity=scores[full], positive=positive[full],
            considered=len(positive), proposed=proposed,
            refused=proposed - sum(int(passing.sum()) for _, passing, _ in proposals),
        )


def take(
    table: CandidateTable, passing: Mask, wanted: Ids, sampler: np.random.Generator | None
) -> tuple[Ids, Scores]:
    """``wanted[a]`` passing candidates of every anchor a: the first, or with a sampler random ones; -1 for none."""
    ids, scores, width = table.ids, table.similarity, min(int(wanted.max(initial=0)), table.ids.shape[1])
    keys = np.where(passing, sampler.random(ids.shape), 2) if sampler else ~passing
    order = np.argsort(keys, axis=1, kind="stable")[:, :width]
    is_real = np.take_along_axis(passing, order, axis=1) & (np.arange(width) < wanted[:, None])
    if sampler:  # best first
        order = np.sort(np.where(is_real, order, ids.shape[1]), axis=1)
        is_real, order = order < ids.shape[1], np.minimum(order, ids.shape[1] - 1)
    return (np.where(is_real, np.take_along_axis(ids, order, axis=1), -1),
            np.where(is_real, np.take_along_axis(scores, order, axis=1), np.float32(-np.inf)))


def _among(ids: Ids, chosen: Ids) -> Mask:
    """Which candidates (anchors, c) are among each anchor's chosen ones."""
    among = np.zeros(ids.shape, dtype=bool)
    for column in chosen.T:
        among |= ids == column[:, None]
    return among
