"""Negatives for blocks of anchors, from vectors: sources propose, rules refuse, the miner takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sentemb.errors import SearchError
from sentemb.maths.neighbours import Ids, Vectors, compared
from sentemb.mining.rules import CandidateTable, Mask, MiningRule, Scores, allowed_by
from sentemb.mining.sources import MiningSource, Nearest, Passages
from sentemb.mining.texts import Lists

Spaces = Callable[[str], tuple[Vectors, Vectors]]  # an encoder's name to its vectors of anchors and corpus
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
        """Negatives from each source: shares as whole numbers that add up (largest remainders)."""
        total = sum(source.share for source in self.sources)
        exact = [self.negatives * source.share / total for source in self.sources]
        counts = [int(value) for value in exact]
        for number in sorted(range(len(exact)), key=lambda n: counts[n] - exact[n])[: self.negatives - sum(counts)]:
            counts[number] += 1
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
        positives: corpus rows of each anchor's positives; None: each anchor's similarity to itself, 1.
        excluded: corpus rows that are never an anchor's negatives.
        spaces: vectors by other encoders, for rules that ask for them.
        folder: where sources may leave files for a resumed run.
    """

    def __init__(
        self, anchors: Passages, corpus: Passages, options: MiningOptions, *, positives: Lists | None,
        excluded: Lists, spaces: Spaces | None = None, folder: Path | None = None,
    ) -> None:
        if len(excluded.offsets) != len(anchors.vectors) + 1:
            raise SearchError(f"{len(excluded.offsets) - 1} lists of excluded rows for {len(anchors.vectors)} anchors")
        self.options, self.anchors, self.corpus = options, anchors, corpus
        self._positives, self._excluded, self._spaces = positives, excluded, spaces
        self._finders = [
            (source.open(corpus, folder, options.seed), count)
            for source, count in zip(options.sources, options.counts(), strict=True) if count
        ]

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-len(self.anchors.vectors) // BLOCK)

    def mine(self) -> Iterator[MinedBlock]:
        """All blocks."""
        return (self.block(number) for number in range(self.blocks))

    def block(self, number: int) -> MinedBlock:
        """The negatives of one block of anchors."""
        options = self.options
        part = slice(number * BLOCK, min((number + 1) * BLOCK, len(self.anchors.vectors)))
        anchors = Passages(vectors=self.anchors.vectors[part], texts=self.anchors.texts[part])
        excluded = self._excluded.part(part.start, part.stop)
        generator = np.random.default_rng([options.seed, number])
        sampler = generator if options.sampling == "random" else None
        positive = self._least_positive(part, (self.anchors.vectors, self.corpus.vectors))
        depth = min(options.depth + excluded.longest, len(self.corpus.vectors))
        ids, scores = np.empty((len(positive), 0), np.int64), np.empty((len(positive), 0), np.float32)
        tables, proposed = [], 0
        for find, count in self._finders:
            hits = find(anchors, depth, generator)
            allowed = (hits.ids >= 0) & ~excluded.contain(hits.ids) & ~_among(hits.ids, ids)
            table = self._table(part, hits.ids, hits.scores, positive, allowed)
            passing = allowed_by(options.rules, table)
            proposed += int(allowed.sum())
            tables.append((hits.ids, hits.scores, passing))
            taken = take(hits.ids, hits.scores, passing, np.full(len(positive), count), sampler)
            ids, scores = np.concatenate([ids, taken[0]], axis=1), np.concatenate([scores, taken[1]], axis=1)
        for table_ids, table_scores, passing in tables:  # what a source could not give
            lacking = options.negatives - (ids >= 0).sum(axis=1)
            if not lacking.any():
                break
            taken = take(table_ids, table_scores, passing & ~_among(table_ids, ids), lacking, sampler)
            ids, scores = np.concatenate([ids, taken[0]], axis=1), np.concatenate([scores, taken[1]], axis=1)
        order = np.argsort(ids < 0, axis=1, kind="stable")[:, : options.negatives]
        ids, scores = np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)
        full = np.flatnonzero((ids >= 0).sum(axis=1) == options.negatives)
        return MinedBlock(
            anchors=full + part.start, negatives=ids[full], similarity=scores[full], positive=positive[full],
            considered=len(positive), proposed=proposed,
            refused=proposed - sum(int(passing.sum()) for _, _, passing in tables),
        )

    def _table(self, part: slice, ids: Ids, similarity: Scores, positive: Scores, allowed: Mask) -> CandidateTable:
        spaces, texts = self._spaces, self.anchors.texts[part]
        positives = self._positives.part(part.start, part.stop) if self._positives else None

        def by_encoder(name: str) -> tuple[Scores, Scores]:
            assert spaces is not None
            anchors, corpus = spaces(name)
            return compared(anchors[part], ids, corpus.__getitem__), self._least_positive(part, (anchors, corpus))

        return CandidateTable(
            ids=ids, similarity=similarity, positive=positive, allowed=allowed,
            anchor_texts=texts, corpus_texts=self.corpus.texts,
            positive_texts=[
                [self.corpus.texts[row] for row in positives.part(a, a + 1).rows] if positives else [text]
                for a, text in enumerate(texts)
            ],
            by_encoder=by_encoder if spaces else None,
        )

    def _least_positive(self, part: slice, space: tuple[Vectors, Vectors]) -> Scores:
        if self._positives is None:
            return np.ones(part.stop - part.start, dtype=np.float32)
        positives, (anchors, corpus) = self._positives.part(part.start, part.stop), space
        owners = np.repeat(np.arange(part.start, part.stop), np.diff(positives.offsets))
        similarity = np.einsum("ij,ij->i", anchors[owners], corpus[positives.rows]).astype(np.float32)
        return np.minimum.reduceat(similarity, positives.offsets[:-1])


def take(
    ids: Ids, scores: Scores, passing: Mask, wanted: Ids, sampler: np.random.Generator | None
) -> tuple[Ids, Scores]:
    """``wanted[a]`` passing candidates of every anchor a: the first, or with a sampler random ones; -1 for none."""
    width = min(int(wanted.max(initial=0)), ids.shape[1])
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
