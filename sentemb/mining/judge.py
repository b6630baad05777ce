"""How good mined negatives are before anything is trained on them: two scores and what they are made of.

They describe; they do not choose: in the one experiment that was run (eval/results/judge.md), files of
higher scores gained less from training.
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
RESAMPLES = 1000
_ROWS = 4096  # residuals at a time


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The scores of mined negatives: n anchors, k negatives each; s⁺, s⁻ cosines of anchor and positive, negative.

        hardness  H = mean over negatives of clip(s⁻ / s⁺, 0, 1)
        safety    S = mean over anchors of clip((s⁺ - max s⁻) / 0.05, 0, 1)
        eci         = ln(1 + n k) · 2 H S / (H + S)

    and with unit vectors q, p, n of anchor, positive, negative, r = n - (n · p) p, N = n k:

        safe    = σ((s⁺ - s⁻) / 0.05)
        near    = clip(s⁻ / s⁺, 0, 1)
        lexical = 1 - idf of the negative's words that the positive has too / idf of all its words
        eci_sem = log det(I + Σ safe · near · lexical · r rᵀ / (N σ²)) / d,   σ² = mean ‖r‖² / d

    Of several positives the least similar one counts.

    Source: the abstract of ECI: capacity times the harmonic mean of hardness and a max-margin safety; of its later
        version: target consistency, semantic locality, lexical residuality, a log-determinant for diversity.
    Deviations: no equations are published; all of these, and 0.05, are ours.
    """

    eci: float
    eci_low: float  # 95 % bootstrap interval over anchors
    eci_high: float
    hardness: float
    safety: float
    eci_sem: float
    safe: float  # means of its factors over negatives
    near: float
    lexical: float


def judge(
    blocks: Iterable[MinedBlock], texts: MiningTexts, anchors: Vectors, corpus: Vectors, *, seed: int = 42
) -> Judgement:
    """The judgement of all mined blocks, which hold at least one anchor.

    Args:
        anchors, corpus: unit vectors, row by row those of the texts.
        seed: of the bootstrap.
    """
    width = corpus.shape[1]
    information, squares, total = np.zeros((width, width)), 0.0, 0
    factors = np.zeros(3)
    hardness: list[NDArray[np.float64]] = []
    safety: list[NDArray[np.float64]] = []
    overlap = WordOverlap(texts.corpus)
    for block in blocks:
        positives = _least_similar(block.anchors, texts, anchors, corpus)
        ratio = np.clip(block.similarity / np.maximum(block.positive, 1e-6)[:, None], 0, 1).astype(np.float64)
        hardness.append(ratio.mean(axis=1))
        safety.append(np.clip((block.positive - block.similarity.max(axis=1)) / MARGIN, 0, 1).astype(np.float64))
        safe = 1 / (1 + np.exp(-(block.positive[:, None] - block.similarity).astype(np.float64) / MARGIN))
        lexical = 1 - overlap.of(block.negatives, positives)
        factors += [safe.sum(), ratio.sum(), lexical.sum()]
        weight, rows = (safe * ratio * lexical).ravel(), block.negatives.ravel()
        own = np.repeat(positives, block.negatives.shape[1])
        for part in (slice(start, start + _ROWS) for start in range(0, len(rows), _ROWS)):
            negative, positive = corpus[rows[part]].astype(np.float64), corpus[own[part]].astype(np.float64)
            residual = negative - np.einsum("nd,nd->n", negative, positive)[:, None] * positive
            information += (weight[part, None] * residual).T @ residual
            squares += float(np.sum(residual**2))
        total += len(rows)
    variance = squares / (total * width)
    _, volume = np.linalg.slogdet(np.eye(width) + information / max(total * variance, 1e-12))
    means = np.concatenate(hardness), np.concatenate(safety)
    low, high = _interval(*means, capacity=math.log1p(total), seed=seed)
    h, s = (float(values.mean()) for values in means)
    safe_mean, near_mean, lexical_mean = (factors / total).tolist()
    return Judgement(
        eci=math.log1p(total) * harmonic(h, s), eci_low=low, eci_high=high, hardness=h, safety=s,
        eci_sem=float(volume) / width, safe=safe_mean, near=near_mean, lexical=lexical_mean,
    )


def harmonic(a: float, b: float) -> float:
    """2 a b / (a + b); 0 where both are 0."""
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def _least_similar(rows: NDArray[np.int64], texts: MiningTexts, anchors: Vectors, corpus: Vectors) -> NDArray[np.int64]:
    """The corpus row of the positive that is least similar to each of the anchors."""
    offsets, own = texts.positives.offsets, texts.positives.rows
    lists = (own[offsets[row] : offsets[row + 1]] for row in rows.tolist())
    least = [ids[int(np.argmin(corpus[ids] @ anchors[row]))] for row, ids in zip(rows.tolist(), lists, strict=True)]
    return np.array(least, dtype=np.int64)


def _interval(
    hardness: NDArray[np.float64], safety: NDArray[np.float64], *, capacity: float, seed: int
) -> tuple[float, float]:
    """95 % bootstrap interval of ECI over anchors."""
    generator, n = np.random.default_rng(seed), len(hardness)
    scores = []
    for _ in range(RESAMPLES):
        chosen = generator.integers(n, size=n)
        scores.append(capacity * harmonic(float(hardness[chosen].mean()), float(safety[chosen].mean())))
    low, high = np.quantile(scores, [0.025, 0.975]).tolist()
    return low, high


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
