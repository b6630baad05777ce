"""Sentences and their two halves, split where a clause ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sentemb.data.makers.maker import Maker, Row
from sentemb.parts import Fraction

_MARKS = (",", ";", ":", "–", "—")
_CONJUNCTIONS = frozenset({
    "and", "or", "but", "nor", "so", "yet", "because", "while", "when", "where", "which", "who", "that", "although",
    "though", "after", "before", "since", "until", "if", "unless", "as", "whereas",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Clauses(Maker):
    """Every sentence with its two halves: what CompCSE composes a positive of.

        rows:  anchor = the sentence, positive = its first half, positive_2 = its second half

    The split stands behind a comma, semicolon, colon or dash, or before a conjunction: at the one nearest to the
    middle by letters, where the halves' lengths allow it, else between the words nearest to the middle. Train on it
    with the view ``columns`` and the edit ``composed`` of positive and positive_2; the view ``halves`` splits at the
    middle token without a file.

    Args:
        path: sentences: a txt file, or a file with a column text.
        balance: largest difference of the halves' lengths in letters, as a share of the longer half.

    Source: Chanchani & Huang 2023, ACL (CompCSE): phrases of a sentence, and the bound of their lengths (released
        code).
    Deviations: the authors split by a discourse parser; this rule is ours, and English.
    """

    balance: Fraction = 0.5

    def rows(self, generator: np.random.Generator, left_out: Counter[str]) -> Iterator[Row]:
        for record in self.records():
            sentence = " ".join(str(self.cell(record, "text", "anchor")).split())
            if " " not in sentence:
                left_out["sentences of one word"] += 1
                continue
            first, second = halves_of(sentence, self.balance)
            yield {"anchor": sentence, "positive": first, "positive_2": second}


def halves_of(sentence: str, balance: float) -> tuple[str, str]:
    """The two halves of a sentence of at least two words.

    >>> halves_of("He ran back home, because it began to rain.", 0.5)
    ('He ran back home,', 'because it began to rain.')
    """
    words = sentence.split()
    ends = np.cumsum([len(word) + 1 for word in words])  # letters up to the end of each word and the space behind it
    splits = range(1, len(words))  # words of the first half

    def distance(split: int) -> float:
        return abs(float(ends[split - 1]) - len(sentence) / 2)

    def is_balanced(split: int) -> bool:
        first, second = int(ends[split - 1]) - 1, len(sentence) - int(ends[split - 1])
        return abs(first - second) < balance * max(first, second)

    clauses = [
        split for split in splits
        if (words[split - 1].endswith(_MARKS) or words[split].lower() in _CONJUNCTIONS) and is_balanced(split)
    ]
    split = min(clauses or splits, key=distance)
    return " ".join(words[:split]), " ".join(words[split:])
