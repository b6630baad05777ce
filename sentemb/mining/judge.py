"""What mined negatives are like, before anything is trained on them.

A description: two scores made of it (ECI, and one with a log-determinant for diversity) did not predict what training
on a file brought, and were dropped (eval/results/judge.md).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sentemb.maths.neighbours import Vectors
from sentemb.mining.miner import MinedBlock
from sentemb.mining.texts import MiningTexts
from sentemb.search.store.words import WordRule

MARGIN = 0.05  # cosine below the positive's at which a negative is safe


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Means over mined negatives; s⁺, s⁻ are cosines of anchor and positive, negative.

        hardness  over negatives: clip(s⁻ / s⁺, 0, 1)
        safety    over anchors: clip((s⁺ - max s⁻) / 0.05, 0, 1)
        lexical   over negatives: 1 - idf of its words that the positive has too / idf of all its words

    Of several positives the least similar one counts.

    Source: the abstracts of ECI: hardness, a max-margin safety, lexical residuality.
    Deviations: no equations are published; these, and 0.05, are ours.
    """

    hardness: float
    safety: float
    lexical: float


def judge(blocks: Iterable[MinedBlock], texts: MiningTexts, anchors: Vectors, corpus: Vectors) -> Judgement:
    """The judgement of all mined blocks, which hold at least one anchor.

    Args:
        anchors, corpus: unit vectors, row by row those of the texts.
    """
    hardness, safety, lexical, rows, total = 0.0, 0.0, 0.0, 0, 0
    overlap = WordOverlap(texts.corpus)
    for block in blocks:
        positives = _least_similar(block.anchors, texts, anchors, corpus)
        hardness += float(np.clip(block.similarity / np.maximum(block.positive, 1e-6)[:, None], 0, 1).sum())
        safety += float(np.clip((block.positive - block.similarity.max(axis=1)) / MARGIN, 0, 1).sum())
        lexical += float((1 - overlap.of(block.negatives, positives)).sum())
        rows, total = rows + len(block.anchors), total + block.negatives.size
    return Judgement(hardness=hardness / total, safety=safety / rows, lexical=lexical / total)


def _least_similar(rows: NDArray[np.int64], texts: MiningTexts, anchors: Vectors, corpus: Vectors) -> NDArray[np.int64]:
    """The corpus row of the positive that is least similar to each of the anchors."""
    offsets, own = texts.positives.offsets, texts.positives.rows
    lists = (own[offsets[row] : offsets[row + 1]] for row in rows.tolist())
    least = [ids[int(np.argmin(corpus[ids] @ anchors[row]))] for row, ids in zip(rows.tolist(), lists, strict=True)]
    return np.array(least, dtype=np.int64)


class WordOverlap:
    """Share of a text's words, by idf, that another text has too."""

    def __init__(self, corpus: Sequence[str]) -> None:
        self._rule = WordRule(language="english")
        frequency = Counter(word for text in corpus for word in set(self._rule.words(text)))
        n = len(corpus)
        self._idf = {word: math.log(1 + (n - count + 0.5) / (count + 0.5)) for word, count in frequency.items()}
        self._words = cache(lambda row: frozenset(self._rule.words(corpus[row])))

    def of(self, negatives: NDArray[np.int64], positives: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of corpus rows (anchors, k) and each anchor's positive (anchors,); 0 for a text without words."""
        shares = np.zeros(negatives.shape)
        for anchor, (rows, positive) in enumerate(zip(negatives.tolist(), positives.tolist(), strict=True)):
            known = self._words(positive)
            for column, row in enumerate(rows):
                words = self._words(row)
                whole = sum(self._idf[word] for word in words)
                shares[anchor, column] = sum(self._idf[word] for word in words & known) / whole if whole else 0.0
        return shares
