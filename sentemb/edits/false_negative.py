"""Negatives that are the anchor's own meaning again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le, MinLen
from jaxtyping import Bool, Int
from pydantic import AfterValidator
from torch import Tensor

from sentemb.companions.companion import find_companion
from sentemb.companions.reference import Reference
from sentemb.edits.edit import Edit
from sentemb.types import UNKNOWN, Batch, Cosine, PairScores

By = Annotated[Sequence[Literal["ids", "text", "reference"]], MinLen(1), AfterValidator(tuple)]


class FalseNegative(Edit):
    """Remove the pairs whose candidate is known to mean what the anchor means, but is not marked positive.

    With ``same(i)`` the identities (example ids, content hashes) of anchor i and of all its positives:

        log_weight[i, j] = -inf   if identity(candidate j) ∈ same(i) and not positive[i, j]

    By text, an in-batch candidate is also removed where its own anchor has the same text as anchor i: two
    examples with one anchor share their positives. Unknown identities (-1) equal nothing. Dropout makes equal
    texts differ as embeddings, so identity is that of the input.

    By reference, it is removed where a frozen encoder r finds it as good as equal to the anchor:

        log_weight[i, j] = -inf   if cos(r(anchor i), r(candidate j)) > φ_i and not positive[i, j]

    φ_i is one ``threshold``, or with a ``margin`` cos(r(anchor i), r(candidate i)) - margin: what the guide finds
    nearer to the anchor than its own positive is taken for a positive that nobody marked.

    Args:
        by: ``ids`` the same example (a queue brings back earlier epochs), ``text`` the same text, ``reference`` the
            companion's judgement: of the in-batch candidates, or of every text of the data set if it precomputes.
        threshold: φ, for ``reference`` only, in cosine; 0.9 in DCLR.
        margin: by how much less similar than the anchor's own positive a candidate must be for the ``reference``, in
            cosine; 0 in GISTEmbed. A positive that the reference does not know removes nothing.
        companion: name of the companion that judges.
    Returns:
        The table with some log-weights at -inf; positives are never removed.
    Raises:
        PartError: ``reference`` without a threshold or a margin, or with both, or one of them without it.
    Source: by reference: Zhou et al. 2022, ACL, "Debiased contrastive learning of unsupervised sentence
        representations" (DCLR), equation 6; with a margin: Solatorio 2024, arXiv:2402.16829, "GISTEmbed", and the
        absolute margin of sentence-transformers' ``GISTEmbedLoss``. By identity: Huynh et al. 2022, WACV, "Boosting
        contrastive self-supervised learning with false negative cancellation", section 3.2 (elimination).
    Deviations: identities are known, not estimated as in Huynh et al.; the reference need not be the paper's.
        GISTEmbed also contrasts anchors with anchors and positives with positives.
    """

    def __init__(
        self, *, by: By = ("ids", "text"), threshold: Cosine | None = None,
        margin: Annotated[float, Ge(0), Le(2)] | None = None, companion: str = "reference",
    ) -> None:
        super().__init__()
        if len(set(by)) != len(by):
            raise ValueError(f"by = {by}; must name each once")
        if ("reference" in by) != (threshold is not None or margin is not None):
            raise ValueError(f'by = {by}, threshold = {threshold}, margin = {margin}; "reference" takes one of the two')
        if threshold is not None and margin is not None:
            raise ValueError(f"threshold = {threshold} and margin = {margin}; give one of them")
        self.by, self.threshold, self.margin, self.companion = by, threshold, margin, companion
        if "reference" in by:
            self.needs = frozenset({f"companion:{companion}"})

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        same = torch.zeros_like(table.positive)
        if "ids" in self.by:
            same |= same_identity(table.anchor.ids, table.candidate.ids, table.positive)
        if "text" in self.by:
            same |= same_identity(table.anchor.text, table.candidate.text, table.positive)
            text = table.anchor.text
            n = len(text)
            same[:, :n] |= (text[:, None] == text[None, :]) & (text != UNKNOWN)[None, :]
        if "reference" in self.by:
            reference = find_companion(batch.companions, self.companion, Reference, self.name)
            sim, is_known = reference.similarity(table.anchor, table.candidate, batch.outputs)
            limit: float | Tensor = 1.0
            if self.margin is not None:
                is_known = is_known & is_known.diagonal()[:, None]
                limit = sim.diagonal()[:, None] - self.margin
            elif self.threshold is not None:
                limit = self.threshold
            same |= is_known & (sim > limit)
        return remove(table, same)


def remove(table: PairScores, pairs: Bool[Tensor, "n m"]) -> PairScores:
    """The table without the given pairs, positives excepted."""
    return replace(table, log_weight=table.log_weight.masked_fill(pairs & ~table.positive, float("-inf")))


def same_identity(
    anchor: Int[Tensor, " n"], candidate: Int[Tensor, " m"], positive: Bool[Tensor, "n m"]
) -> Bool[Tensor, "n m"]:
    """Whether candidate j is identical to anchor i or to one of i's positives, in O(n·(n + m)) memory."""
    # identities become small codes (first position among the sorted ones), so that set membership is a lookup
    order = torch.cat([anchor, candidate]).sort().values
    anchor_code, candidate_code = torch.searchsorted(order, anchor), torch.searchsorted(order, candidate)
    members = torch.zeros(len(anchor), len(order), dtype=torch.float32, device=anchor.device)
    members.index_add_(1, candidate_code, positive.float())
    members.scatter_(1, anchor_code[:, None], 1.0)
    return (members[:, candidate_code] > 0) & (candidate != UNKNOWN)[None, :]
