"""Logits of the score table, and sums of exponentials over parts of its rows."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sentemb.maths.similarity import at_least_float32
from sentemb.types import PairScores


def table_logits(table: PairScores, temperature: float | Float[Tensor, ""]) -> Float[Tensor, "n m"]:
    """``sim / temperature + log_weight`` in float32 or better; a removed pair is -inf."""
    return at_least_float32(table.sim) / temperature + table.log_weight


def live_pairs(table: PairScores) -> Bool[Tensor, "n m"]:
    """The pairs that no edit has removed."""
    return table.log_weight > -torch.inf


def masked_logsumexp(
    logits: Float[Tensor, "n m"], mask: Bool[Tensor, "n m"], *, empty: float = -torch.inf
) -> Float[Tensor, " n"]:
    """``log Σ_{j: mask_ij} exp logits_ij`` of every row.

    A row whose mask is all False is ``empty``, with a zero gradient: what a logsumexp of -inf alone sends back is
    NaN, but masked_fill lets none of it through. So the chosen entries themselves must be finite.
    """
    chosen = logits.masked_fill(~mask, -torch.inf)
    return torch.where(mask.any(dim=1), torch.logsumexp(chosen, dim=1), empty)


def mean_over(values: Float[Tensor, " n"], rows: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean of the chosen rows; 0, with a zero gradient, where none is chosen."""
    return torch.where(rows, values, torch.zeros_like(values)).sum() / rows.sum().clamp(min=1)


def mean_over_pairs(
    logits: Float[Tensor, "n m"], mask: Bool[Tensor, "n m"], *, empty: float = -torch.inf
) -> Float[Tensor, " n"]:
    """Mean of every row's chosen entries; ``empty``, with a zero gradient, where a row has none."""
    count = mask.sum(dim=1)
    mean = logits.masked_fill(~mask, 0.0).sum(dim=1) / count.clamp(min=1)
    return torch.where(count > 0, mean, empty)
