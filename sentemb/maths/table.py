"""Making and widening the score table."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sentemb.maths.similarity import pairwise
from sentemb.types import PairScores, Rows, Similarity


def score_table(anchor: Rows, candidate: Rows, similarity: Similarity = "cosine") -> PairScores:
    """The in-batch table: anchor i's positive is candidate i, every other candidate is a negative."""
    sim = pairwise(anchor.embedding, candidate.embedding, similarity)
    positive = torch.eye(*sim.shape, dtype=torch.bool, device=sim.device)
    return PairScores(sim, positive, torch.zeros_like(sim), anchor, candidate, similarity)


def add_candidates(
    table: PairScores,
    rows: Rows,
    *,
    positive: Bool[Tensor, "n k"] | None = None,
    log_weight: Float[Tensor, "n k"] | None = None,
) -> PairScores:
    """Append k columns; they are negatives of weight 1 unless said otherwise."""
    sim = pairwise(table.anchor.embedding, rows.embedding, table.similarity)
    if positive is None:
        positive = torch.zeros_like(sim, dtype=torch.bool)
    if log_weight is None:
        log_weight = torch.zeros_like(sim)
    return table.with_(
        sim=torch.cat([table.sim, sim], dim=1),
        positive=torch.cat([table.positive, positive], dim=1),
        log_weight=torch.cat([table.log_weight, log_weight.to(table.log_weight.dtype)], dim=1),
        candidate=concatenate_rows(table.candidate, rows),
    )


def concatenate_rows(first: Rows, second: Rows) -> Rows:
    """One set of rows after the other; labels survive only where both have them."""
    label = None
    if first.label is not None and second.label is not None:
        label = torch.cat([first.label, second.label])
    return Rows(
        torch.cat([first.embedding, second.embedding.to(first.embedding.dtype)]),
        torch.cat([first.ids, second.ids]),
        torch.cat([first.text, second.text]),
        label,
    )
