"""Decoupled contrast: the positive does not stand in its own denominator."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from sentemb.maths.softmax import live_pairs, masked_logsumexp, mean_over, mean_over_pairs, table_logits
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores, Temperature


class Decoupled(Term):
    """InfoNCE without the positive in the denominator (DCL).

        ℓ_ij = s_ij / τ + w_ij
        L = 1/n Σ_i ( -ℓ_ip + log Σ_{j ∉ P(i)} exp ℓ_ij )

    In ``info_nce`` the gradient of a row fades as its positive is found, all the faster in a small batch; here it
    does not. The loss can be negative. Several positives are averaged.

    Args:
        temperature: τ; 0.1 for ImageNet in the paper.
    Returns: anchors without a negative left are not counted (there is nothing to be pushed from);
        if all are, as for one example alone, the loss is 0.
    Source: Yeh et al. 2022, ECCV, "Decoupled contrastive learning" (L_DC).
    Deviations: negatives are those of the table; the paper's are the 2(n-1) views of other examples. The weighted
        form (L_DCW) is left out.
    """

    def __init__(self, *, temperature: Temperature = 0.1) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        logits, live = table_logits(table, self.temperature), live_pairs(table)
        positive, negative = table.positive & live, ~table.positive & live
        loss = masked_logsumexp(logits, negative, empty=0.0) - mean_over_pairs(logits, positive)
        # a row without positives is counted, whatever its negatives: it is infinite and gets diagnosed
        return mean_over(loss, negative.any(dim=1) | ~positive.any(dim=1))
