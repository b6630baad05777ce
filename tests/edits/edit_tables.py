"""What the edits' tests share beside their fixtures."""

from __future__ import annotations

import torch

from sentemb.types import PairScores, Rows


def permuted(rows: Rows, order: torch.Tensor) -> Rows:
    """The rows in another order."""
    return Rows(embedding=rows.embedding[order], ids=rows.ids[order], text=rows.text[order],
                label=None if rows.label is None else rows.label[order])


def contrast(table: PairScores, temperature: float = 0.5) -> torch.Tensor:
    """Mean over anchors of -log Σ_positives / Σ_all: what an edit's effect is measured through."""
    logits = table.sim / temperature + table.log_weight
    positive = logits.masked_fill(~table.positive, float("-inf"))
    return (logits.logsumexp(1) - positive.logsumexp(1)).mean()
