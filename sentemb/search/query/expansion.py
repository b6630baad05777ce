"""Pseudo-relevance feedback: a short query is widened by what its first results say, and asked again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sentemb.errors import SearchError
from sentemb.maths.neighbours import Ids
from sentemb.parts import NonNegative, Part, Whole
from sentemb.search.query.words import Bm25
from sentemb.search.store.generation import Hit
from sentemb.search.vectors.kind import Vectors
from sentemb.types import Hits

_SPELLING = re.compile(r"prf:(\d+)(?:,(\d+))?")


@dataclass(frozen=True, kw_only=True)
class Feedback(Part):
    """The first results of a query are taken to be relevant.

        worth(w) = idf(w) · Σ over the first documents tf(w)
        words:    the query's, and the ``terms`` others that are worth most, which together count ``weight`` times as
                  often as the query's, each by its share of their worth
        vectors:  q' = (q + weight · mean of the first documents' vectors) / (1 + weight)

    Args:
        documents: how many of the first results are read; 0 is the plain search.
        terms: how many words of theirs join a search by words; 0 adds none.
        weight: of what the first results add, beside the query; 0 is the plain search.

    Source: the idea of a query that is expanded by keywords (LREM); the expansion from first results is the field's
        common one.
    Deviations: no language model writes the keywords.
    """

    documents: Whole = 10
    terms: Whole = 10
    weight: NonNegative = 0.5

    @classmethod
    def of(cls, spelling: str) -> Feedback:
        """From ``prf:DOCUMENTS`` or ``prf:DOCUMENTS,TERMS``.

        Raises: SearchError: it is neither.
        """
        match = _SPELLING.fullmatch(spelling)
        if match is None:
            raise SearchError(f'expand = "{spelling}"; write prf:DOCUMENTS,TERMS, e.g. prf:10,20')
        documents, terms = match.groups()
        return cls(documents=int(documents), **({"terms": int(terms)} if terms else {}))

    def words(self, bm25: Bm25, query: str, first: Sequence[Hit]) -> dict[str, float]:
        """The query's words and those that its first results add, with weights; of equal ones the first by name."""
        own, counts = bm25.words(query), sum((bm25.words(hit.text or "") for hit in first), Counter[str]())
        worth = {word: bm25.idf(word) * count for word, count in counts.items() if word not in own}
        added = sorted(worth, key=lambda word: (-worth[word], word))[: self.terms] if self.weight else []
        unit = self.weight * own.total() / sum(worth[word] for word in added) if added else 0.0
        return {**own, **{word: unit * worth[word] for word in added}}

    def vectors(self, vectors_of: Callable[[Ids], Vectors], queries: Vectors, first: Hits) -> Vectors:
        """Queries (queries, d) moved towards their first results, whose vectors ``vectors_of`` gives; one without
        results stays where it is."""
        moved = queries.copy()
        for query, ids in enumerate(first.ids):
            ids = ids[ids >= 0]
            if len(ids) and self.weight:
                mean = vectors_of(ids).mean(axis=0)
                moved[query] = (queries[query] + self.weight * mean) / (1 + self.weight)
        return moved
