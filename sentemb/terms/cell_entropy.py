"""Binary cross-entropy of every cell of the table."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sentemb.maths.softmax import live_pairs, log_remainder, masked_logsumexp, refuse_shares, table_logits
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores, Temperature


class CellEntropy(Term):
    """Every cell of the softmax is a yes or no of its own:

        p_i = softmax_j(s_ij / τ + w_ij)
        L = -1/(nm) Σ_i Σ_j [ y_ij log p_ij + (1 - y_ij) log(1 - p_ij) ]

    y is 1 for positives. Unlike ``info_nce`` it also pays for each negative's share of the softmax, so that a single
    negative that takes most of it weighs more. The mean over all cells makes L and its gradient about m times as small;
    AdamW does not mind.

    Args:
        temperature: τ.
    Returns: 0 for one example with no other candidate; a removed pair has p = 0 and costs nothing.
    Raises: RecipeError where an edit divides attraction over several positives.
    Source: Zhou et al. 2022, ACL, "Debiased contrastive learning of unsupervised sentence representations" (DCLR), its
        released code.
    Deviations: removed pairs leave the softmax, where the release gives them the logit 0, a neutral cosine. log(1 - p)
        is computed from the other cells' sum and is finite at p = 1 in rounded numbers, where the release's is not.
    """

    refuses_shares = True

    def __init__(self, *, temperature: Temperature = 0.05) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        refuse_shares(table, self.name)
        logits, live = table_logits(table, self.temperature), live_pairs(table)
        whole = masked_logsumexp(logits, live, empty=0.0)[:, None]
        log_p = torch.where(live, logits.masked_fill(~live, 0.0) - whole, -1.0)
        is_positive = table.positive & live
        cells = torch.where(is_positive, log_p, torch.where(live, log_remainder(logits, live), 0.0))
        # as in info_nce, an anchor without a positive is an error that diagnose explains
        rows = torch.where(is_positive.any(dim=1), -cells.sum(dim=1), torch.inf)
        return rows.sum() / logits.numel()
