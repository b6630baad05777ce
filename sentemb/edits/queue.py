"""Negatives from earlier batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from sentemb.companions.companion import find_companion
from sentemb.companions.momentum import Momentum, faults_of_keys
from sentemb.edits.edit import Edit
from sentemb.maths.table import add_candidates, extra_rows, with_candidates
from sentemb.types import Batch, PairScores


class Queue(Edit):
    """Append the momentum encoder's queue as negatives of every anchor:

        log_weight[i, slot] = 0 where the slot is filled, else -inf

    Queued embeddings carry no gradient, ids and content hashes let ``false_negative`` (listed after this edit) drop
    an example that comes back in the next epoch. Size and momentum belong to the companion ``momentum``.

    With ``keys`` the in-batch candidates become embeddings of the average too (MoCo): positives and queue then come
    from one encoder, and only the anchors carry gradients.

    Args:
        companion: name of the companion that holds the queue.
        keys: put the average's embeddings of the positives in the place of the trained encoder's; the companion needs
            ``keys = true`` as well.
    Returns:
        The table with ``queue_size`` more columns.
    Source: He et al. 2020, CVPR, "Momentum contrast", section 3.2; Wu et al. 2022, COLING, "ESimCSE", equation 7.
    Deviations: none from ESimCSE; with ``keys`` none from MoCo, but that the average has no dropout.
    """

    def __init__(self, *, companion: str = "momentum", keys: bool = False) -> None:
        super().__init__()
        self.companion, self.keys = companion, keys
        self.needs = frozenset({f"companion:{companion}"})

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """A momentum encoder that makes no keys."""
        return faults_of_keys(recipe, self.companion) if self.keys else []

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        momentum = find_companion(batch.companions, self.companion, Momentum, self.name)
        if self.keys:
            keys = momentum.keys_of("positive", batch.outputs)
            table = with_candidates(table, replace(batch.views["positive"], embedding=keys))
        # copies: after_step overwrites the buffers in place, and the table may outlive the step
        rows = extra_rows(
            momentum.embedding.clone(), table.candidate, ids=momentum.ids.clone(), text=momentum.text.clone()
        )
        empty = torch.where(momentum.is_filled, 0.0, float("-inf"))
        return add_candidates(table, rows, log_weight=empty.expand(len(table.anchor), -1))
