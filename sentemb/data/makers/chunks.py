"""Parts of long documents against their documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sentemb.data.makers.maker import Maker, Row
from sentemb.data.makers.sentences import sentences_of
from sentemb.parts import Count, Fraction


@dataclass(frozen=True, kw_only=True)
class Chunks(Maker):
    """Every chunk of a long document, and the document: search for passages without questions.

        rows:  anchor = a chunk, positive = title and text of its document, label = the document's number

    A chunk is whole sentences, of ``words`` words or a little more. Chunks of one document share its label: the edit
    ``same_label`` keeps them from being one another's negatives.

    Args:
        path: documents: a file with the columns text and, optionally, title.
        words: after how many words a chunk ends.
        removed: share of the rows whose document is without the chunk, so that shared words alone do not decide.

    Source: the idea of focused learning for long documents: a document's own chunks are its positives.
    Deviations: no judgement says which chunk is relevant, so all of them are; removing the chunk is ours.
    """

    words: Count = 60
    removed: Fraction = 0.5

    def rows(self, generator: np.random.Generator, left_out: Counter[str]) -> Iterator[Row]:
        for number, record in enumerate(self.records()):
            title, text = str(record.fields.get("title") or ""), str(self.cell(record, "text"))
            chunks = chunks_of(text, self.words)
            if len(chunks) < 2:
                left_out["documents of a single chunk"] += 1
                continue
            for i, chunk in enumerate(chunks):
                is_removed = generator.random() < self.removed
                document = " ".join([*chunks[:i], *chunks[i + 1 :]] if is_removed else chunks)
                yield {"anchor": chunk, "positive": f"{title} {document}".strip(), "label": number}


def chunks_of(text: str, words: int) -> list[str]:
    """Whole sentences in order, each chunk of ``words`` words or a little more; a short end joins the last chunk."""
    chunks: list[list[str]] = [[]]
    for sentence in sentences_of(text):
        if sum(len(part.split()) for part in chunks[-1]) >= words:
            chunks.append([])
        chunks[-1].append(sentence)
    if len(chunks) > 1 and sum(len(part.split()) for part in chunks[-1]) < words / 2:
        last = chunks.pop()
        chunks[-1] += last
    return [" ".join(sentences) for sentences in chunks if sentences]
