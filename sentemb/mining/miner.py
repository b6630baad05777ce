"""Negatives for blocks of anchors, from vectors: sources propose, rules refuse, the miner takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sentemb.errors import SearchError
from sentemb.maths.neighbours import Ids, Vectors
from sentemb.mining.rules import CandidateTable, Mask, MiningRule, Scores, allowed_by
from sentemb.mining.sources import MiningSource, Nearest, Passages
from sentemb.mining.texts import MiningTexts

BLOCK = 4096  # anchors at a time


@dataclass(frozen=True, kw_only=True)
class MiningOptions:
    """How negatives are chosen."""

    negatives: int = 5  # of each anchor; one with fewer is left out
    sources: Sequence[MiningSource] = (Nearest(),)  # what one cannot give comes from the others, in their order
    rules: Sequence[MiningRule] = ()  # which candidates are refused, in order
    sampling: Literal["top", "random"] = "top"  # each source's best, or draws among all that the rules allow
    candidates: int | None = None  # of each source and anchor; None: ten times the negatives where rules refuse some
    seed: int = 42  # of every draw

    def __post_init__(self) -> None:
        for name, least in (("negatives", 1), ("candidates", self.negatives), ("seed", 0)):
            if (value := vars(self)[name]) is not None and value < least:
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
        texts: empty where no source and no rule reads them.
        folder: where sources may leave files for a resumed run.
    """

    def __init__(
        self, texts: MiningTexts, anchors: Vectors, corpus: Vectors, options: MiningOptions, folder: Path | None = None
    ) -> None:
        self.texts, self.options, self.blocks = texts, options, -(-len(anchors) // BLOCK)
        self.anchors, self.corpus = anchors, Passages(vectors=corpus, texts=texts.corpus)
        counts = zip(options.sources, options.counts(), strict=True)
        self._finders = [(source.open(self.corpus, folder, options.seed), count) for source, count in counts if count]

    def mine(self) -> Iterator[MinedBlock]:
        """All blocks."""
        return map(self.block, range(self.blocks))

    def block(self, number: int) -> MinedBlock:
        """The negatives of one block of anchors."""
        options, start = self.options, number * BLOCK
        part = slice(start, start + BLOCK)
        anchors = Passages(vectors=self.anchors[part], texts=self.texts.anchors[part])
        positives, excluded = (lists.part(part) for lists in (self.texts.positives, self.texts.excluded))
        own = np.einsum("ij,ij->i", anchors.vectors[positives.owners], self.corpus.vectors[positives.rows])
        positive = np.minimum.reduceat(own, positives.offsets[:-1])
        generator = np.random.default_rng([options.seed, number])
        depth = min(options.depth + int(np.diff(excluded.offsets).max()), len(self.corpus.vectors))
        proposals = []
        for find, count in self._finders:
            hits = find(anchors, depth, generator)
            table = CandidateTable(
                ids=hits.ids, similarity=hits.scores, positive=positive, positives=positives,
                allowed=(hits.ids >= 0) & ~excluded.contain(hits.ids),
                anchor_texts=anchors.texts, corpus_texts=self.corpus.texts,
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
    columns = table.ids.shape[1]
    keys = np.where(passing, sampler.random(passing.shape) if sampler else 0, 2)
    order = np.argsort(keys, axis=1, kind="stable")[:, : wanted.max()]
    is_taken = np.take_along_axis(passing, order, axis=1) & (np.arange(order.shape[1]) < wanted[:, None])
    order = np.sort(np.where(is_taken, order, columns), axis=1)  # best first, then nothing
    ids = np.pad(table.ids, ((0, 0), (0, 1)), constant_values=-1)
    scores = np.pad(table.similarity, ((0, 0), (0, 1)), constant_values=-np.inf)
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _among(ids: Ids, chosen: Ids) -> Mask:
    """Which candidates (anchors, c) are among each anchor's chosen ones."""
    among = np.zeros(ids.shape, dtype=bool)
    for column in chosen.T:
        among |= ids == column[:, None]
    return among
