"""Pairs that a search finds only when the anchor is widened by its own first results."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.files import atomic_file
from sentemb.maths.neighbours import Vectors, best_device
from sentemb.mining.texts import MiningTexts
from sentemb.parts import Count, Part, Positive
from sentemb.progress import Progress
from sentemb.search.query.expansion import Feedback
from sentemb.types import Hits

_BLOCK = 4096  # anchors that are searched for at a time


@dataclass(frozen=True, kw_only=True)
class FoundByExpansion(Part):
    """Which pairs are mined: those whose positive is found only after the anchor was widened.

        first(q) = the k corpus rows with the largest cos(q, c)
        a'       = (a + weight · m) / (1 + weight),  m = the mean of the ``documents`` rows nearest to a
        kept:      (a, p) with p in first(a') and not in first(a)

    Both searches are exact, over the corpus that negatives come from: what ``sentemb search`` finds in an index of it,
    plain and with ``--expand prf:DOCUMENTS``. A positive that is not kept is no negative of its anchor either.

    Args:
        k: how many results count as found.
        documents: how many of the plain search's first results widen the anchor.
        weight: of their mean, beside the anchor.

    Source: LREM: train on the items that a search finds only with an expanded query.
    Deviations: the expansion is pseudo-relevance feedback by vectors; LREM's are keywords by a language model.
    """

    k: Count = 10
    documents: Count = 10
    weight: Positive = 0.5


@dataclass(frozen=True, kw_only=True)
class ExpansionReport:
    """How many pairs there are, and whose positives are among the first k."""

    pairs: int
    found: int  # by the plain search
    found_expanded: int  # by the expanded one
    kept: int  # by the expanded one alone


def chosen_pairs(
    texts: MiningTexts, anchors: Vectors, corpus: Vectors, rule: FoundByExpansion, folder: Path
) -> tuple[MiningTexts, Vectors, ExpansionReport]:
    """The anchors and pairs that the rule keeps, with the anchors' vectors.

    Args:
        folder: where the outcome of the searches is left for a resumed run.

    Raises: SearchError: the rule keeps no pair.
    """
    file = folder / "expansion.npy"
    if not file.exists():
        with atomic_file(file) as temporary, temporary.open("wb") as handle:
            np.save(handle, _in_first_k(texts, anchors, corpus, rule))
    plain, expanded = np.load(file, allow_pickle=False)
    is_kept = expanded & ~plain
    report = ExpansionReport(
        pairs=len(is_kept), found=int(plain.sum()), found_expanded=int(expanded.sum()), kept=int(is_kept.sum())
    )
    if not report.kept:
        raise SearchError(
            f"of {report.pairs:,} pairs none has its positive among the first {rule.k} only by expansion "
            f"({report.found:,} without it, {report.found_expanded:,} with it): choose another k or documents, or give "
            "a larger corpus"
        )
    numbers = np.unique(texts.positives.owners[is_kept])
    chosen = replace(
        texts, anchors=[texts.anchors[number] for number in numbers.tolist()],
        positives=texts.positives.where(is_kept).of_anchors(numbers), excluded=texts.excluded.of_anchors(numbers),
    )
    return chosen, anchors[numbers], report


def _in_first_k(
    texts: MiningTexts, anchors: Vectors, corpus: Vectors, rule: FoundByExpansion
) -> NDArray[np.bool_]:
    """Whether every pair's positive is among the first k, (2, pairs): of the plain and of the expanded search."""
    from sentemb.maths.inner_products import ExactSearch

    search = ExactSearch.of(corpus, best_device())
    feedback = Feedback(documents=rule.documents, weight=rule.weight)
    k, documents = (min(count, len(corpus)) for count in (rule.k, rule.documents))
    in_first_k: list[Any] = []
    with Progress("expanding", total=len(anchors), unit="anchors") as bar:
        for start in range(0, len(anchors), _BLOCK):
            part = slice(start, start + _BLOCK)
            queries, positives = anchors[part], texts.positives.part(part)
            scores, first = search.top(queries, max(k, documents))
            hits = Hits(ids=first[:, :documents], scores=scores[:, :documents])
            _, again = search.top(feedback.vectors(corpus.__getitem__, queries, hits), k)
            in_first_k.append([positives.are_in(first[:, :k]), positives.are_in(again)])
            bar.advance(len(queries))
    return np.concatenate(in_first_k, axis=1)
