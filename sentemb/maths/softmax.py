"""Logits of the score table, and sums of exponentials over parts of its rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sentemb.errors import RecipeError
from sentemb.maths.similarity import at_least_float32
from sentemb.types import PairScores


def row_temperature(table: PairScores, temperature: float | Float[Tensor, ""]) -> float | Tensor:
    """The temperature of every row as a column, (n, 1): ``temperature · scale``."""
    return temperature if table.scale is None else temperature * table.scale[:, None]


def table_logits(table: PairScores, temperature: float | Float[Tensor, ""]) -> Float[Tensor, "n m"]:
    """``sim / (temperature · scale) + log_weight`` in float32 or better; a removed pair is -inf."""
    return at_least_float32(table.sim) / row_temperature(table, temperature) + table.log_weight


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


def masked_log_softmax(logits: Float[Tensor, "n m"], mask: Bool[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """Over every row's chosen entries; 0 elsewhere."""
    normaliser = masked_logsumexp(logits, mask, empty=0.0)
    return torch.where(mask, logits.masked_fill(~mask, 0.0) - normaliser[:, None], 0.0)


def weighted_mean(losses: Float[Tensor, " n"], weight: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """``Σ w ℓ / Σ w``; a row of weight 0 may have an infinite loss, and rows of no weight at all give 0."""
    weight = weight.to(losses.dtype)
    return torch.where(weight > 0, weight * losses, 0.0).sum() / weight.sum().clamp(min=torch.finfo(losses.dtype).tiny)


def mean_over(values: Float[Tensor, " n"], rows: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean of the chosen rows; 0, with a zero gradient, where none is chosen."""
    return torch.where(rows, values, torch.zeros_like(values)).sum() / rows.sum().clamp(min=1)


def positive_share(table: PairScores) -> Float[Tensor, "n m"]:
    """How every row's attraction is divided over its live positives: each row sums to 1, or to 0 where it has none.

    Equal shares where the table names none, or none of the row's live positives.
    """
    live = table.positive & live_pairs(table)
    equal = live.to(torch.promote_types(table.log_weight.dtype, torch.float32))
    if table.share is None:
        return equal / live.sum(dim=1, keepdim=True).clamp(min=1)
    share = torch.where(live, table.share.to(equal.dtype), 0.0)
    share = torch.where(share.sum(dim=1, keepdim=True) > 0, share, equal)
    return share / share.sum(dim=1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)


def mean_over_positives(values: Float[Tensor, "n m"], table: PairScores) -> Float[Tensor, " n"]:
    """Mean of every row's live positives, by ``positive_share``; -inf, with a zero gradient, where a row has none."""
    live = table.positive & live_pairs(table)
    mean = (positive_share(table) * values.masked_fill(~live, 0.0)).sum(dim=1)
    return torch.where(live.any(dim=1), mean, -torch.inf)


def log_remainder(logits: Float[Tensor, "n m"], live: Bool[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """``log(1 - p_ij)`` of every row's softmax over its live pairs, exact where p rounds to 1.

    That can only be a row's largest, whose others are summed without it. 0 where a row has one live pair; dead pairs
    have any number.
    """
    normaliser = masked_logsumexp(logits, live, empty=0.0)
    log_p = torch.where(live, logits.masked_fill(~live, 0.0) - normaliser[:, None], -1.0)
    index = logits.masked_fill(~live, -torch.inf).argmax(dim=1, keepdim=True)
    largest = torch.zeros_like(live).scatter(1, index, True)
    others = live & ~largest
    log_others = torch.where(others.any(dim=1), masked_logsumexp(logits, others, empty=0.0) - normaliser, 0.0)
    return torch.where(largest, log_others[:, None], torch.log1p(-log_p.masked_fill(largest, -1.0).exp()))


def refuse_shares(table: PairScores, part: str) -> None:
    """Refuse a table that divides attraction over several positives, for terms that have only one of them in mind."""
    if table.share is not None:
        raise RecipeError(
            f"{part} does not divide attraction over several positives, which an edit of this recipe asks for; use "
            "supervised_contrast or decoupled, or leave that edit out for this term: without = [\"NAME\"]"
        )


def faults_of_spread(rho: float, recipe: Mapping[str, Any]) -> list[str]:
    """A divergence of an anchor's negatives from all alike cannot exceed the logarithm of their number.

    ``recipe`` has a recipe's fields by name; what a queue adds to a batch is not known.
    """
    if "train" not in recipe or any(edit.name == "queue" for edit in recipe.get("edits", ())):
        return []
    batch_size = recipe["train"].batch_size
    limit = math.log(max(batch_size - 1, 1))
    if rho < limit:
        return []
    return [f"rho = {rho}: with a batch of {batch_size} it must be below log(batch_size - 1) = {limit:.2f}"]
