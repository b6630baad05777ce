"""Sets of sentences that stand for a meaning each are pushed apart."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sentemb.errors import DataError, RecipeError
from sentemb.maths.similarity import at_least_float32, pairwise
from sentemb.maths.softmax import masked_logsumexp
from sentemb.terms.term import Term
from sentemb.types import UNKNOWN, Batch, Examples, PairScores, Services, Temperature


class InterSet(Term):
    """Similarity of the sentences of every set to those of all other sets, which reads the anchors, not the table:

        L = Σ_S log Σ_{m ∈ S} Σ_{n ∉ S} exp(s(h_m, h_n) / τ)

    A set is the texts of one label, a meaning given by examples; a text of unknown label (-1) takes no part. Nothing
    holds a set together, and nothing the rest of the space: stop after a few dozen steps, and measure STS before and
    after. ``all_views_contrast`` or ``supervised_contrast`` beside it draw the sentences of a set to one another. The
    loss is not a mean: it grows with the number of sets. Batches should hold examples of all sets.

    Args:
        temperature: τ.
    Returns: 0 where a batch holds one set.
    Raises:
        DataError: the data hold fewer than two sets.
    Source: Liu 2024, ICLR, "SetCSE: Set operations using contrastive learning of sentence embeddings" (the inter-set
        contrastive loss, as recalled: no code was found).
    Deviations: unknown.
    """

    needs = frozenset({"labels"})

    def __init__(self, *, temperature: Temperature = 0.05) -> None:
        super().__init__()
        self.temperature = temperature

    def prepare(self, dataset: Examples, services: Services) -> None:
        """Refuse data with nothing to push apart."""
        known = set() if dataset.label is None else set(dataset.label.tolist()) - {UNKNOWN}
        if len(known) < 2:
            raise DataError(f"term {self.name}: pushes sets of sentences apart, and the data hold {len(known)}; give "
                            "at least two labels")

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        anchor = batch.views["anchor"]
        if anchor.label is None:
            raise RecipeError(f"{self.name}: the data have no label column, which says the set of a sentence")
        rows, label = at_least_float32(anchor.embedding), anchor.label
        known = label != UNKNOWN
        both = known[:, None] & known
        same = (label[:, None] == label) & both
        logits = pairwise(rows, rows, table.similarity) / self.temperature
        to_others = masked_logsumexp(logits, both & ~same)  # of every sentence
        has_others = to_others > -torch.inf
        of_set = masked_logsumexp(to_others.expand(len(rows), -1), same & has_others)  # once for each of its sentences
        share = torch.where(has_others, of_set, 0.0) / same.sum(dim=1).clamp(min=1)
        return share.sum()
