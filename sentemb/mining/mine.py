"""Hard negatives for pairs or unlabelled texts: dense, BM25 and random candidates under one set of rules.

Equal texts are one row of the corpus, so a negative is never the text of the anchor or of any of its positives,
however often either occurs. Anchors go through in blocks: memory is the corpus' vectors and one block's candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import DataError, NumericError, SearchError
from sentemb.maths.neighbours import best_device, compared
from sentemb.mining.rules import MiningRules, Rows, Scores, members, refuse, take, window
from sentemb.search.query.words import Bm25
from sentemb.search.store.words import words_of_texts

Vectors = NDArray[np.float32]
BLOCK = 4096  # anchors at a time
Neighbours = Callable[[Vectors, int], tuple[Scores, Rows]]  # (anchor vectors, k) -> scores and corpus rows
PairScorer = Callable[[list[tuple[str, str]]], NDArray[np.float32]]


@dataclass(frozen=True)
class Pairs:
    """Texts as rows: what is mined, without a text twice.

    ``positives[a]`` are corpus rows; ``excluded[a]`` are further corpus rows that are never anchor a's negatives.
    """

    anchors: list[str]
    corpus: list[str]
    positive_offsets: Rows  # (anchors + 1,)
    positive_rows: Rows
    excluded_offsets: Rows
    excluded_rows: Rows
    is_unlabelled: bool = False

    def positives_of(self, anchor: int) -> list[str]:
        """Texts of an anchor's positives; the anchor itself for unlabelled text."""
        if self.is_unlabelled:
            return [self.anchors[anchor]]
        rows = self.positive_rows[self.positive_offsets[anchor] : self.positive_offsets[anchor + 1]]
        return [self.corpus[row] for row in rows.tolist()]


def pairs_of(
    anchors: Sequence[str], positives: Sequence[str] | None, corpus: Sequence[str] = (), *,
    anchor_ids: Sequence[Any] | None = None, positive_ids: Sequence[Any] | None = None,
    corpus_ids: Sequence[Any] | None = None,
) -> Pairs:
    """Merge equal texts and gather what must never be a negative.

    Args:
        positives: beside ``anchors``, one each; None for unlabelled text, whose corpus is the texts themselves.
        corpus: further texts that may become negatives.
        anchor_ids, positive_ids, corpus_ids: where given, a corpus text that carries an anchor's id, or the id of one
            of its positives, is excluded for that anchor (a passage in another wording, a query's own document).

    Raises:
        DataError: lengths differ, or there is nothing to mine from.
    """
    if positives is not None and len(anchors) != len(positives):
        raise DataError(f"{len(anchors)} anchors, but {len(positives)} positives")
    beside = anchors if positives is None else positives
    rows = {text: i for i, text in enumerate(dict.fromkeys([*corpus, *beside]))}
    numbers = {text: i for i, text in enumerate(dict.fromkeys(anchors))}
    if len(rows) < 2:
        raise DataError("mining needs at least two different texts")
    given: list[tuple[int, int]] = [(numbers[a], rows[p]) for a, p in zip(anchors, beside, strict=True)]
    own = [(number, rows[text]) for text, number in numbers.items() if text in rows]
    own += _by_id(anchors, beside, corpus, numbers, rows, anchor_ids, positive_ids, corpus_ids)
    offsets, flat = _ragged(given, len(numbers))
    excluded_offsets, excluded = _ragged([*given, *own], len(numbers))
    return Pairs(list(numbers), list(rows), offsets, flat, excluded_offsets, excluded, positives is None)


def _by_id(
    anchors: Sequence[str], beside: Sequence[str], corpus: Sequence[str], numbers: dict[str, int], rows: dict[str, int],
    anchor_ids: Sequence[Any] | None, positive_ids: Sequence[Any] | None, corpus_ids: Sequence[Any] | None,
) -> list[tuple[int, int]]:
    carriers: dict[Any, set[int]] = {}
    for texts, ids in ((beside, positive_ids), (corpus, corpus_ids)):
        for text, name in zip(texts, ids or (), strict=bool(ids)):
            carriers.setdefault(name, set()).add(rows[text])
    found: list[tuple[int, int]] = []
    for ids in (anchor_ids, positive_ids):
        for text, name in zip(anchors, ids or (), strict=bool(ids)):
            found += [(numbers[text], row) for row in sorted(carriers.get(name, ()))]
    return found


def _ragged(pairs: Sequence[tuple[int, int]], count: int) -> tuple[Rows, Rows]:
    table = np.unique(np.array(pairs, dtype=np.int64).reshape(-1, 2), axis=0)
    return np.searchsorted(table[:, 0], np.arange(count + 1)).astype(np.int64), table[:, 1].copy()


@dataclass(frozen=True)
class Mined:
    """Negatives of one block of anchors (those that have enough)."""

    anchors: Rows  # (n,)
    negatives: Rows  # (n, negatives) corpus rows
    scores: Scores  # (n, negatives) similarity to the anchor
    positive_scores: Scores  # (n,) least similarity of a positive
    considered: int  # anchors of the block
    refused: int  # candidates that the score rules or the filter refused
    looked_at: int  # candidates


class Miner:
    """Mines block by block.

    Args:
        anchor_vectors, corpus_vectors: unit vectors, (anchors, d) and (corpus, d).
        neighbours: how dense candidates are found; exact search over ``corpus_vectors`` where None.
        filter_model: a cross-encoder; refuses candidates that it rates near the positive.
        reference: (anchor vectors, corpus vectors) of another encoder, used like ``filter_model``.
    """

    def __init__(
        self, pairs: Pairs, anchor_vectors: Vectors, corpus_vectors: Vectors, rules: MiningRules, *,
        neighbours: Neighbours | None = None, filter_model: PairScorer | None = None,
        reference: tuple[Vectors, Vectors] | None = None,
    ) -> None:
        rules.check()
        if len(anchor_vectors) != len(pairs.anchors) or len(corpus_vectors) != len(pairs.corpus):
            raise SearchError(
                f"{len(anchor_vectors)} and {len(corpus_vectors)} vectors for {len(pairs.anchors)} anchors and "
                f"{len(pairs.corpus)} corpus texts"
            )
        self.pairs, self.rules = pairs, rules
        self._anchor_vectors, self._corpus_vectors = anchor_vectors, corpus_vectors
        self._neighbours = neighbours or _exact(corpus_vectors)
        self._filter, self._reference = filter_model, reference
        self._words = Bm25([words_of_texts(pairs.corpus)]) if rules.bm25 > 0 else None
        lists = np.diff(pairs.excluded_offsets)
        self._excluded = int(lists.max(initial=0))

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-len(self.pairs.anchors) // BLOCK)

    def mine(self, first_block: int = 0) -> Iterator[Mined]:
        """Blocks from ``first_block`` on; a block depends on nothing before it, so mining can resume anywhere."""
        for number in range(first_block, self.blocks):
            yield self._block(np.arange(number * BLOCK, min((number + 1) * BLOCK, len(self.pairs.anchors))), number)

    def _block(self, anchors: Rows, number: int) -> Mined:
        rules = self.rules
        generator = np.random.default_rng([rules.seed, number])
        positive = self._positive_scores(anchors)
        counts = rules.counts()
        chosen = np.empty((len(anchors), 0), dtype=np.int64)
        values = np.empty((len(anchors), 0), dtype=np.float32)
        refused_total = looked_at = 0
        offered: list[tuple[Rows, Scores, NDArray[np.bool_]]] = []
        for source, count in counts.items():
            if count == 0:
                continue
            rows, scores = self._candidates(source, anchors, generator)
            allowed = (rows >= 0) & ~self._members(rows, anchors) & ~_seen(rows, chosen)
            refused = allowed & self._refused(rows, scores, anchors, positive, allowed)
            refused_total += int(refused.sum())
            looked_at += int(allowed.sum())
            picked, found = take(rows, scores, allowed & ~refused, count, rules, generator)
            chosen, values = np.concatenate([chosen, picked], axis=1), np.concatenate([values, found], axis=1)
            offered.append((rows, scores, window(allowed & ~refused, rules)))
        chosen, values = _topped_up(chosen, values, offered, rules, generator)
        whole = (chosen >= 0).all(axis=1)
        return Mined(
            anchors[whole], chosen[whole], values[whole], positive[whole], len(anchors), refused_total, looked_at
        )

    def _candidates(self, source: str, anchors: Rows, generator: np.random.Generator) -> tuple[Rows, Scores]:
        """Corpus rows (anchors, c) with similarities, hardest first by the source's own measure."""
        total = len(self.pairs.corpus)
        asked = min(self.rules.window(self._excluded) + self._excluded, total)
        if source == "dense":
            scores, rows = self._neighbours(self._anchor_vectors[anchors], asked)
            return rows, scores
        if source == "bm25":
            assert self._words is not None  # made because the rules ask for it
            rows = self._words.top([self.pairs.anchors[a] for a in anchors.tolist()], asked).ids
        else:
            rows = generator.integers(0, total, size=(len(anchors), asked), dtype=np.int64)
            rows = np.where(_repeats(rows), -1, rows)
        return rows, self._similarity(anchors, rows)

    def _similarity(self, anchors: Rows, rows: Rows, vectors: tuple[Vectors, Vectors] | None = None) -> Scores:
        mine, theirs = vectors or (self._anchor_vectors, self._corpus_vectors)
        return compared(mine[anchors], rows, theirs.__getitem__)

    def _members(self, rows: Rows, anchors: Rows) -> NDArray[np.bool_]:
        offsets, flat = _slice(self.pairs.excluded_offsets, self.pairs.excluded_rows, anchors)
        return members(rows, offsets, flat, len(self.pairs.corpus))

    def _positive_scores(self, anchors: Rows, vectors: tuple[Vectors, Vectors] | None = None) -> Scores:
        """Least similarity of a positive; 1 for unlabelled text, which is its own positive."""
        if self.pairs.is_unlabelled:
            return np.ones(len(anchors), dtype=np.float32)
        mine, theirs = vectors or (self._anchor_vectors, self._corpus_vectors)
        offsets, flat = _slice(self.pairs.positive_offsets, self.pairs.positive_rows, anchors)
        owner = np.repeat(anchors, np.diff(offsets))
        scores = np.einsum("ij,ij->i", mine[owner], theirs[flat]).astype(np.float32)
        return np.minimum.reduceat(scores, offsets[:-1])

    def _refused(
        self, rows: Rows, scores: Scores, anchors: Rows, positive: Scores, allowed: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        refused = refuse(scores, positive if self.rules.has_margin else None, self.rules)
        if self._reference is not None:
            bar = self._positive_scores(anchors, self._reference) - np.float32(self.rules.filter_margin)
            refused |= self._similarity(anchors, rows, self._reference) > bar[:, None]
        if self._filter is not None:
            refused |= self._filtered(rows, anchors, allowed & ~refused)
        return refused

    def _filtered(self, rows: Rows, anchors: Rows, asked: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Candidates that the cross-encoder rates above the anchor's least positive, less the margin."""
        assert self._filter is not None  # only called where there is one
        texts, corpus = self.pairs.anchors, self.pairs.corpus
        judged, owners = [], []
        for place, anchor in enumerate(anchors.tolist()):
            for text in self.pairs.positives_of(anchor):
                judged.append((texts[anchor], text))
                owners.append(place)
        places, columns = np.nonzero(asked)
        judged += [(texts[anchors[p]], corpus[rows[p, c]]) for p, c in zip(places, columns, strict=True)]
        values = np.asarray(self._filter(judged), dtype=np.float32).reshape(-1)
        if len(values) != len(judged) or not np.isfinite(values).all():
            raise NumericError(f"the filter model gave {len(values)} scores of {len(judged)} pairs, or not finite ones")
        bar = np.full(len(anchors), np.inf, dtype=np.float32)
        np.minimum.at(bar, owners, values[: len(owners)])
        refused = np.zeros(rows.shape, dtype=bool)
        refused[places, columns] = values[len(owners) :] > bar[places] - self.rules.filter_margin
        return refused


def _exact(vectors: Vectors) -> Neighbours:
    from sentemb.maths.inner_products import ExactSearch

    return ExactSearch.of(vectors, best_device()).top


def _topped_up(
    chosen: Rows, values: Scores, offered: Sequence[tuple[Rows, Scores, NDArray[np.bool_]]], rules: MiningRules,
    generator: np.random.Generator,
) -> tuple[Rows, Scores]:
    """What one source could not give, from what the sources still have; -1 stays where none has more."""
    rules = replace(rules, rank_min=0, rank_max=None)  # what is offered lies in the window
    for rows, scores, inside in offered:
        owed = (chosen < 0).sum(axis=1)
        if not owed.any():
            break
        picked, found = take(rows, scores, inside & ~_seen(rows, chosen), int(owed.max()), rules, generator)
        picked = np.where(np.arange(picked.shape[1]) < owed[:, None], picked, -1)
        chosen, values = np.concatenate([chosen, picked], axis=1), np.concatenate([values, found], axis=1)
        order = np.argsort(chosen < 0, axis=1, kind="stable")[:, : rules.negatives]
        chosen, values = np.take_along_axis(chosen, order, axis=1), np.take_along_axis(values, order, axis=1)
    return chosen, values


def _slice(offsets: Rows, flat: Rows, anchors: Rows) -> tuple[Rows, Rows]:
    """The lists of consecutive anchors."""
    first, last = int(anchors[0]), int(anchors[-1]) + 1
    return offsets[first : last + 1] - offsets[first], flat[offsets[first] : offsets[last]]


def _seen(rows: Rows, chosen: Rows) -> NDArray[np.bool_]:
    found = np.zeros(rows.shape, dtype=bool)
    for column in range(chosen.shape[1]):
        found |= rows == chosen[:, column, None]
    return found


def _repeats(rows: Rows) -> NDArray[np.bool_]:
    """Entries that occurred before in their row."""
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    again = np.zeros(rows.shape, dtype=bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    out = np.empty_like(again)
    np.put_along_axis(out, order, again, axis=1)
    return out
