"""The sentences of documents in their order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sentemb.data.makers.maker import Maker, Row
from sentemb.parts import Count

_SENTENCE_END = re.compile(r"""(?:(?<=[.!?…])|(?<=[.!?…]["')\]]))\s+(?=["'(\[]*[A-Z0-9])""")


@dataclass(frozen=True, kw_only=True)
class Sentences(Maker):
    """Every sentence of every document, one after the other: what Quick-Thoughts trains on.

        rows:  anchor = a sentence, label = the document's number

    The label keeps the edit ``neighbours_in_text`` from crossing the border of two documents, whose batches are
    ``train.batches = "contiguous"``.

    Args:
        path: documents: a file with a column text, or one document a line.
        words: sentences of fewer words join the sentence before them, or, at the start, the one behind.

    Source: Logeswaran & Lee 2018, ICLR (Quick-Thoughts): sentences in the order of their text.
    Deviations: the paper's books were split before; here a sentence ends at . ! ? or … before a capital or a digit.
    """

    words: Count = 3

    def rows(self, generator: np.random.Generator, left_out: Counter[str]) -> Iterator[Row]:
        for number, record in enumerate(self.records()):
            sentences = joined(sentences_of(str(self.cell(record, "text"))), self.words)
            if len(sentences) < 2:
                left_out["documents of a single sentence"] += 1
                continue
            for sentence in sentences:
                yield {"anchor": sentence, "label": number}


def sentences_of(text: str) -> list[str]:
    """A text's sentences, white space made single.

    >>> sentences_of("It is 3.5 m. (Or so.) He left!")
    ['It is 3.5 m.', '(Or so.)', 'He left!']
    """
    return [sentence for sentence in _SENTENCE_END.split(" ".join(text.split())) if sentence]


def joined(sentences: list[str], words: int) -> list[str]:
    """The sentences, those of fewer words joined to the one before them, or the first to the one behind."""
    result: list[str] = []
    for sentence in sentences:
        if result and min(len(sentence.split()), len(result[-1].split())) < words:
            result[-1] = f"{result[-1]} {sentence}"
        else:
            result.append(sentence)
    return result
