"""Weights of pairs by the groups of both texts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sentemb.companions.companion import find_companion
from sentemb.companions.prototypes import Prototypes, class_numbers, prototypes_in
from sentemb.edits.edit import Edit
from sentemb.errors import DataError, RecipeError
from sentemb.maths.softmax import live_pairs
from sentemb.parts import NonNegative
from sentemb.types import UNKNOWN, Batch, Examples, PairScores, Rows, Services

Rule = Literal["apart", "together", "balance", "distance"]


class GroupWeights(Edit):
    """Add to the log-weights by group y: the class of the data, or the clusters of the companion ``prototypes``.

        apart      negatives: log( share of the clusterings in which y_i ≠ y_j ); -inf where they never differ
        together   negatives: -inf where y_i ≠ y_j in every clustering
        balance    all candidates: log π(y_j) - log n_i(y_j),  n_i(y) = candidates of group y left in row i
        distance   negatives: strength · log( |y_i - y_j| + 1 ),  for classes that are an order

    ``apart`` keeps texts of one cluster from being pushed apart, ``together`` leaves only the hard negatives of the own
    cluster. With ``balance`` every group weighs as much as its share π, however many of its texts are in the batch:
    with ``same_label`` and ``info_nce`` that is the class-wise log-mean-exp loss. A text of unknown group is a group of
    its own (``distance``: weight 1).

    Args:
        rule: see above.
        by: ``label``, or the name of a companion ``prototypes``.
        prior: π of ``balance``: ``uniform``, or the shares of the groups in the ``data``.
        strength: of ``distance``.
    Returns:
        The table with other log-weights; removed pairs stay removed.
    Raises:
        RecipeError: the rows have no labels; the shares of classes in the data are asked for without ``prepare``.
    Source: apart: weights of "MEOW" (released code). balance: the long-tail mutual-information loss (released code).
        distance: SupReMix (released code), its label-distance weights. together: ours, for batches of several clusters.
    Deviations: MEOW weighs by the number of clusterings, not their share, which adds a constant to ``decoupled``; its
        positive has the weight 0, here it keeps its own. balance weighs the columns of the table, where the release
        keeps a class-balanced queue.
    """

    def __init__(
        self, *, rule: Rule, by: str = "label", prior: Literal["uniform", "data"] = "uniform",
        strength: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        if rule == "distance" and by != "label":
            raise ValueError(f'by = "{by}"; clusters have no order: rule = "distance" takes by = "label"')
        self.rule, self.by, self.prior, self.strength = rule, by, prior, strength
        self.needs = frozenset({"labels" if by == "label" else f"companion:{by}"})
        self.register_buffer("classes", torch.empty(0, dtype=torch.int64), persistent=False)
        self.register_buffer("log_prior", torch.empty(0), persistent=False)
        self.classes: Int[Tensor, " k"]
        self.log_prior: Float[Tensor, " k"]
        self.examples = 0

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """A companion that has no groups, or too many for the rule."""
        known = prototypes_in(recipe.get("companions", ()), self.by)
        if known is not None and not known.has_groups:
            return [f'needs groups of "{self.by}": set its update = "average", or leave out its count']
        if known is not None and known.clusterings > 1 and self.rule == "balance":
            return [f'rule = "balance" takes one clustering; "{self.by}" has clusterings = {known.clusterings}']
        return []

    def prepare(self, dataset: Examples, services: Services) -> None:
        """Count the classes of the data."""
        if self.by == "label" and self.prior == "data" and dataset.label is not None:
            label = torch.from_numpy(dataset.label)
            self.classes, count = label[label != UNKNOWN].unique(return_counts=True)
            if not len(count):
                raise DataError(f'edit {self.name}: prior = "data", but no row has a known class (label {UNKNOWN})')
            self.log_prior, self.examples = (count.float() / count.sum()).log(), len(label)

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        anchor, candidate = self._groups(table.anchor, batch), self._groups(table.candidate, batch)
        if self.rule == "balance":
            return replace(table, log_weight=table.log_weight + self._balance(table, candidate[:, 0], batch))
        if self.rule == "distance":
            is_known = (anchor != UNKNOWN) & (candidate != UNKNOWN).T
            added = self.strength * torch.where(is_known, (anchor - candidate.T).abs(), 0).to(table.sim.dtype).log1p()
        else:
            differ = torch.zeros_like(table.sim)
            for own, other in zip(anchor.T, candidate.T, strict=True):
                differ += (own[:, None] != other) | (own == UNKNOWN)[:, None]
            share = differ / anchor.shape[1]
            added = share.log() if self.rule == "apart" else torch.where(share < 1, 0.0, -torch.inf)
        return replace(table, log_weight=table.log_weight + added.masked_fill(table.positive, 0.0))

    def _groups(self, rows: Rows, batch: Batch) -> Int[Tensor, "n c"]:
        if self.by != "label":
            return find_companion(batch.companions, self.by, Prototypes, self.name).groups_of(rows.ids)
        if rows.label is None:
            raise RecipeError(f'edit {self.name}: by = "label", but the data have no label column')
        return rows.label[:, None]

    def _balance(self, table: PairScores, group: Int[Tensor, " m"], batch: Batch) -> Float[Tensor, "n m"]:
        live = live_pairs(table)
        groups = group.unique()
        code = class_numbers(group, groups)
        count = torch.zeros(len(live), len(groups), dtype=table.sim.dtype, device=group.device)
        count = count.index_add(1, code, live.to(count.dtype))[:, code].clamp(min=1)
        is_known = group != UNKNOWN
        added = -torch.where(is_known, count, 1.0).log()
        if self.prior == "uniform":
            return added
        if self.by == "label":
            if not self.examples:
                raise RecipeError(f'edit {self.name}: prior = "data", but prepare(dataset, services) was not called')
            number, log_prior, examples = class_numbers(group, self.classes), self.log_prior, self.examples
        else:
            known = find_companion(batch.companions, self.by, Prototypes, self.name)
            number, log_prior, examples = group, known.log_prior[0], len(known.members)
        prior = log_prior[number.clamp(min=0)].to(added.dtype)
        return added + torch.where(number != UNKNOWN, prior, -math.log(examples))
