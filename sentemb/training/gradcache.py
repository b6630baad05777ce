"""GradCache: any batch size in the memory of a chunk, with the gradients of the whole batch.

    every chunk      ─► pooled rows, without graph
    all pooled rows  ─► the objective's right side ─► loss ─► gradient of every pooled row
    every chunk      ─► again, with the same dropout ─► backward from its rows' gradient

The chain rule makes the sum of the chunks' gradients the batch's, because rows do not see each other left of the
cache boundary (``Objective``).

Source: Gao, Zhang, Han & Callan 2021, RepL4NLP, "Scaling deep contrastive learning batch size under memory limited
setup".
Deviations: heads run behind the cache, so they may couple rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sentemb.errors import RecipeError
from sentemb.training.device import generator_states, restore_generators
from sentemb.training.inputs import LengthGroup, StepInput
from sentemb.training.objective import EncodedViews, Losses, Objective
from sentemb.training.pooled_rows import in_order, in_views


def check_backbone(backbone: nn.Module) -> None:
    """Raise ``RecipeError`` where a layer couples the rows of a batch, so that chunks would change the embeddings."""
    for name, module in backbone.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise RecipeError(
                f"train.chunk_size: the backbone's {name} is a BatchNorm, which couples the rows of a batch, so "
                "chunks would change the embeddings; leave train.chunk_size out"
            )


class GradCache:
    """Forward and backward of one batch, chunk by chunk; the gradients stay on this device (no synchronisation).

    Chunks are the groups of the input (``Feed.chunk_size``).
    """

    def __init__(self, objective: Objective, accelerator: Any) -> None:
        self.objective, self.accelerator = objective, accelerator

    def __call__(self, inputs: StepInput, share: float) -> Losses:
        """Add ``share`` times the loss's gradients to the parameters' ``grad``."""
        groups = inputs.groups[::-1]  # the longest rows first: the peak of memory comes at once
        device = groups[0].rows.device
        replays, chunks = [], []
        for group in groups:
            replays.append(generator_states(device))
            with torch.no_grad():
                chunks.append(self._encode(group))
        leaf = in_order(chunks, groups).requires_grad_()
        with self.accelerator.autocast():
            losses = self.objective.finish(EncodedViews(pooled=in_views(leaf, inputs), separate={}), inputs)
        self.accelerator.backward(losses.total * share)
        losses = replace(losses, total=losses.total.detach())  # frees the score tables before the second pass
        if leaf.grad is not None:
            after = generator_states(device)
            for group, replay in zip(groups, replays, strict=True):
                restore_generators(replay, device)
                pooled = self._encode(group)
                torch.autograd.backward(pooled, leaf.grad[group.rows].to(pooled.dtype))
            restore_generators(after, device)
        return losses

    def _encode(self, group: LengthGroup) -> Tensor:
        with self.accelerator.autocast():
            return self.objective.encode_group(group)
