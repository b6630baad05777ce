"""Pairs of labelled texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sentemb.data.makers.maker import Maker, Row
from sentemb.errors import DataError
from sentemb.parts import Count

MOST_PAIRS = 20_000_000  # in memory as two whole numbers and a truth value each


@dataclass(frozen=True, kw_only=True)
class LabelPairs(Maker):
    """Pairs of a few labelled texts: score 1 where they share a label, else 0.

        pairs:  (i, j) with i ≤ j, shuffled;  score = 1 if labels(i) ∩ labels(j) ≠ ∅ else 0
        rows:   a pair of score 1, a pair of score 0, a pair of score 1, …

    n texts have n (n + 1) / 2 pairs, each text with itself among them. Columns of the rows: anchor, positive, score.

    Args:
        path: a file with the columns text (or sentence) and label; a list of labels is a text with several.
        sampling: ``oversampling`` repeats the rarer kind of pairs until there are as many of both, ``undersampling``
            leaves the commoner kind's rest out, ``unique`` takes every pair once.
        iterations: so many pairs of either kind for every text, instead of ``sampling``.

    Source: Tunstall et al. 2022 (SetFit), released code.
    Deviations: pairs are shuffled by this run's seed.
    """

    sampling: Literal["oversampling", "undersampling", "unique"] = "oversampling"
    iterations: Count | None = None

    def rows(self, generator: np.random.Generator, left_out: Counter[str]) -> Iterator[Row]:
        texts, is_of = self._labelled()
        n = len(texts)
        if n * (n + 1) // 2 > MOST_PAIRS:
            raise DataError(
                f"{self.path}: {n:,} texts make {n * (n + 1) // 2:,} pairs, more than {MOST_PAIRS:,}; give a few texts "
                "of every label (with many labelled texts, train on batches of labels: recipe supcon-minilm)"
            )
        first, second = np.triu_indices(n)
        order = generator.permutation(len(first))
        first, second = first[order], second[order]
        shared = np.zeros(len(first), dtype=bool)
        for column in is_of.T:
            shared |= column[first] & column[second]
        kinds = np.flatnonzero(shared), np.flatnonzero(~shared)
        if not len(kinds[1]):
            raise DataError(f"{self.path}: all texts share a label; texts of two labels or more are needed")
        sizes = self._sizes(n, [len(kind) for kind in kinds])
        # repeated from the start where there are too few
        columns = [np.resize(kind, size) for kind, size in zip(kinds, sizes, strict=True)]
        for pair in _alternating(*columns):
            row = {"anchor": texts[first[pair]], "positive": texts[second[pair]], "score": float(shared[pair])}
            yield row
        for name, kind, size in zip(("alike", "unlike"), kinds, sizes, strict=True):
            if size < len(kind):
                left_out[f"pairs of {name} texts"] += len(kind) - size

    def _labelled(self) -> tuple[list[str], NDArray[np.bool_]]:
        """The texts, and which labels (texts, labels) each has."""
        texts, labels = [], []
        for record in self.records():
            text, label = self.cell(record, "text", "sentence"), self.cell(record, "label", "labels")
            if not isinstance(text, str):
                raise DataError(f'{record.where}: column "text" holds {text!r}; a text is needed')
            names = {str(name) for name in label} if isinstance(label, list) else {str(label)}
            if not names:
                raise DataError(f'{record.where}: column "label" is an empty list; a label is needed')
            texts.append(text.strip())
            labels.append(names)
        if len(texts) < 2:
            raise DataError(f"{self.path}: {len(texts)} texts; at least two are needed")
        numbers = {name: number for number, name in enumerate(sorted(set(chain.from_iterable(labels))))}
        is_of = np.zeros((len(texts), len(numbers)), dtype=bool)
        for row, names in enumerate(labels):
            is_of[row, [numbers[name] for name in names]] = True
        return texts, is_of

    def _sizes(self, texts: int, counts: list[int]) -> list[int]:
        """Pairs of either kind to write."""
        if self.iterations is not None:
            return [self.iterations * texts] * 2
        match self.sampling:
            case "oversampling":
                return [max(counts)] * 2
            case "undersampling":
                return [min(counts)] * 2
            case _:
                return counts


def _alternating(one: NDArray[np.int64], other: NDArray[np.int64]) -> Iterator[int]:
    """One of either, in turn; what the longer one has more comes last."""
    shorter = min(len(one), len(other))
    turns = np.stack([one[:shorter], other[:shorter]], axis=1).ravel()
    yield from np.concatenate([turns, one[shorter:], other[shorter:]]).tolist()
