"""Synthetic negatives between the hardest ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sentemb.edits.edit import Edit
from sentemb.maths.similarity import at_least_float32
from sentemb.maths.table import add_candidates, extra_rows
from sentemb.parts import Count, Whole
from sentemb.types import Batch, PairScores


class Mixed(Edit):
    """Append, for every anchor, mixtures of its hardest negatives, and of them with the anchor itself:

        z ∝ α n_a + (1 - α) n_b,   α ~ U(0, 1)       ``count`` of them
        z ∝ β h_i + (1 - β) n_b,   β ~ U(0, 0.5)     ``with_anchor`` of them

    n_a, n_b are drawn from the ``hardest`` live negatives of anchor i in the table so far (list this edit after those
    that add or remove negatives). Vectors have length 1 before and after mixing, unless the similarity is ``dot``.
    Mixtures take no gradient, belong to their anchor alone (-inf for the others) and have no identity.

    Args:
        hardest: N, size of the pool of hardest negatives; fewer where the table has fewer.
        count: s, mixtures of two negatives.
        with_anchor: s', mixtures with the anchor; each is harder than any negative it was made of.
    Returns:
        The table with n · (count + with_anchor) more columns.
    Raises:
        ValueError: ``hardest`` below 1, or no mixture asked for.
    Source: Kalantidis et al. 2020, NeurIPS, "Hard negative mixing for contrastive learning" (MoCHi), equations 2
        to 4.
    Deviations: negatives come from the table (the batch, and a queue where there is one) instead of a queue of
        65,536 keys, so N, s and s' are small; the paper uses N = 1024, s = 1024, s' = 128 with that queue.
    """

    def __init__(self, *, hardest: Count = 32, count: Whole = 16, with_anchor: Whole = 0) -> None:
        super().__init__()
        if count + with_anchor < 1:
            raise ValueError("count and with_anchor are both 0: no mixture is asked for")
        self.hardest, self.count, self.with_anchor = hardest, count, with_anchor

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        n, m = table.sim.shape
        is_cosine = table.similarity == "cosine"
        anchor = at_least_float32(table.anchor.embedding.detach())
        candidate = at_least_float32(table.candidate.embedding.detach())
        if is_cosine:
            anchor, candidate = F.normalize(anchor, dim=1), F.normalize(candidate, dim=1)
        is_negative = ~table.positive & (table.log_weight > float("-inf"))
        sim = table.sim.detach().masked_fill(~is_negative, float("-inf"))
        pool = sim.topk(min(self.hardest, m), dim=1)  # removed pairs come last
        available = torch.isfinite(pool.values).sum(dim=1)
        first, second, share = self._draw(n, available, batch.generator)
        one = candidate[pool.indices.gather(1, first)]
        own = anchor[:, None].expand(-1, self.with_anchor, -1)
        one = torch.cat([one[:, : self.count], own], dim=1)
        other = candidate[pool.indices.gather(1, second)]
        share = share.to(one)[..., None]
        mixture = share * one + (1 - share) * other
        if is_cosine:
            mixture = F.normalize(mixture, dim=2)
        rows = extra_rows(mixture.flatten(0, 1).to(table.candidate.embedding.dtype), table.candidate)
        # anchor i's own columns are i·s … (i + 1)·s - 1
        own_column = torch.eye(n, dtype=torch.bool, device=sim.device) & (available > 0)[:, None]
        weight = torch.zeros(n, n, device=sim.device).masked_fill(~own_column, float("-inf"))
        return add_candidates(table, rows, log_weight=weight.repeat_interleave(mixture.shape[1], dim=1))

    def _draw(
        self, n: int, available: Int[Tensor, " n"], generator: torch.Generator | None
    ) -> tuple[Int[Tensor, "n s"], Int[Tensor, "n s"], Float[Tensor, "n s"]]:
        """Places in the pool of both partners, and the first one's share; drawn on the CPU, equal on every device."""
        total = self.count + self.with_anchor
        drawn = torch.rand(3, n, total, generator=generator).to(available.device)
        size = available.clamp(min=1)[:, None]
        first = (drawn[0] * size).long().minimum(size - 1)
        # a partner other than the first, where the pool has one
        step = 1 + (drawn[1] * (size - 1)).long().minimum((size - 2).clamp(min=0))
        second = torch.where(size > 1, (first + step) % size, first)
        share = drawn[2]
        share[:, self.count :] *= 0.5
        return first, second, share
