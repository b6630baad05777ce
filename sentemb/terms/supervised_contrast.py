"""Supervised contrast: every positive of an anchor must be found, not only the easiest."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from sentemb.maths.softmax import live_pairs, masked_logsumexp, mean_over_pairs, table_logits
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores, Temperature


class SupervisedContrast(Term):
    """Cross-entropy of an anchor's row against the uniform distribution over its positives (L_out).

        ℓ_ij = s_ij / τ + w_ij
        L = -1/n Σ_i 1/|P(i)| Σ_{p ∈ P(i)} ( ℓ_ip - log Σ_j exp ℓ_ij )

    P(i) is what the table says: classes set it through the edit ``same_label``. With one positive it equals
    ``info_nce``; with several, ``info_nce`` sums them inside the logarithm (L_in), and this term outside.

    Args:
        temperature: τ; 0.05 as in SimCSE; 0.1 in the paper, for images.
    Returns: 0 for one example with no other candidate.
    Source: Khosla et al. 2020, NeurIPS, eq. 2 (L_out).
    Deviations: anchors are the anchor view and candidates the others, n × m; the paper contrasts all 2n views with
        each other except themselves.
    """

    def __init__(self, *, temperature: Temperature = 0.05) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        logits, live = table_logits(table, self.temperature), live_pairs(table)
        return (masked_logsumexp(logits, live) - mean_over_pairs(logits, table.positive & live)).mean()
