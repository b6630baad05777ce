"""GradCache: any batch size in the memory of a chunk, with the gradients of the whole batch.

    every chunk      ─► pooled rows, without graph (or with it, while the budget for kept graphs lasts)
    all pooled rows  ─► the objective's right side ─► loss ─► gradient of every pooled row
    every chunk      ─► again, with the same dropout ─► backward from its rows' gradient

The chain rule makes the sum of the chunks' gradients the batch's, because rows do not see each other left of the
cache boundary (``Objective``).

Source: Gao, Zhang, Han & Callan 2021, RepL4NLP, "Scaling deep contrastive learning batch size under memory limited
setup".
Deviations: graphs are kept where memory allows; heads run behind the cache, so they may couple rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sentemb.errors import RecipeError
from sentemb.training import generators
from sentemb.training.inputs import LengthGroup, StepInput
from sentemb.training.objective import EncodedViews, Losses, Objective, in_order, in_views

MIB = 2**20


def cache_faults(parts: Sequence[tuple[str, frozenset[str]]]) -> list[str]:
    """Why chunks would give wrong gradients, by the name and needs of every part; empty where they are exact."""
    return [
        f"train.chunk_size: {name} reads {' and '.join(sorted(needs & {'hidden', 'attentions'}))}, whose gradients do "
        "not pass through the cached embeddings; leave one of them out (train.gradient_checkpointing saves memory "
        "with every part)"
        for name, needs in parts
        if needs & {"hidden", "attentions"}
    ]


def check_backbone(backbone: nn.Module) -> None:
    """Raise ``RecipeError`` where a layer couples the rows of a batch, so that chunks would change the embeddings."""
    for name, module in backbone.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise RecipeError(
                f"train.chunk_size: the backbone's {name} is a BatchNorm, which couples the rows of a batch, so "
                "chunks would change the embeddings; leave train.chunk_size out"
            )


@dataclass(kw_only=True)
class _Chunk:
    group: LengthGroup
    pooled: Tensor  # with its graph where ``replay`` is None
    replay: dict[str, Tensor] | None  # generator states before the first pass


class GradCache:
    """Forward and backward of one batch, chunk by chunk; the gradients stay on this device (no synchronisation).

    Chunks are the groups of the input (``InputMaker.chunk_size``).
    """

    def __init__(self, objective: Objective, accelerator: Any, *, kept_graphs_mib: float = 0.0) -> None:
        self.objective, self.accelerator = objective, accelerator
        self.budget = kept_graphs_mib * MIB
        self.kept = 0  # chunks of the last batch whose graphs were kept
        # bytes that a token of padded input leaves in a graph, measured on rows of the longest length so far
        self._bytes_per_token, self._longest = 0.0, 0

    def __call__(self, inputs: StepInput, share: float) -> Losses:
        """Add ``share`` times the loss's gradients to the parameters' ``grad``."""
        device = inputs.groups[0].rows.device
        chunks = self._first_pass(inputs, device)
        leaf = in_order([chunk.pooled.detach() for chunk in chunks], [chunk.group for chunk in chunks])
        leaf.requires_grad_()
        with self.accelerator.autocast():
            losses = self.objective.finish(EncodedViews(pooled=in_views(leaf, inputs), separate={}), inputs)
        self.accelerator.backward(losses.total * share)
        losses = replace(losses, total=losses.total.detach())  # frees the score tables before the second pass
        if leaf.grad is not None:
            self._second_pass(chunks, leaf.grad, device)
        return losses

    def _encode(self, group: LengthGroup) -> Tensor:
        with self.accelerator.autocast():
            return self.objective.encode_group(group)

    def _first_pass(self, inputs: StepInput, device: torch.device) -> list[_Chunk]:
        """Encode all chunks, the longest rows first; ``kept`` of them with their graphs."""
        left, chunks = self.budget, []
        for group in reversed(inputs.groups):
            cost = self._cost(group)
            if cost is not None and cost <= left:
                left -= cost
                chunks.append(_Chunk(group=group, pooled=self._encode(group), replay=None))
                continue
            replay = generators.states(device)
            with torch.no_grad():
                chunks.append(_Chunk(group=group, pooled=self._encode(group), replay=replay))
        self.kept = sum(chunk.replay is None for chunk in chunks)
        return chunks

    def _second_pass(self, chunks: Sequence[_Chunk], gradient: Tensor, device: torch.device) -> None:
        """Backward through every chunk: kept graphs first, which frees them, then the others encoded again."""
        after = generators.states(device)
        for chunk in sorted(chunks, key=lambda chunk: chunk.replay is not None):
            if chunk.replay is not None:
                generators.restore(chunk.replay, device)
                chunk.pooled = self._measured(chunk.group)
            torch.autograd.backward(chunk.pooled, gradient[chunk.group.rows].to(chunk.pooled.dtype))
            chunk.pooled = chunk.pooled.detach()
        generators.restore(after, device)

    # -------------------------------------------------------------------------------------- graph memory
    def _cost(self, group: LengthGroup) -> float | None:
        """Bytes that a group's graph will hold, or None before the first one was measured."""
        if not self._bytes_per_token or not self.budget:
            return None
        rows, length = group.tokens.input_ids.shape
        # attention's share grows with the square of the length
        return self._bytes_per_token * rows * length * max(1.0, length / self._longest)

    def _measured(self, group: LengthGroup) -> Tensor:
        """Encode a group with its graph; the graph of rows longer than ever before is measured."""
        rows, length = group.tokens.input_ids.shape
        if not self.budget or length <= self._longest:
            return self._encode(group)
        sizes: dict[int, int] = {}
        weights = {parameter.untyped_storage().data_ptr() for parameter in self.objective.parameters()}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            pooled = self._encode(group)
        self._bytes_per_token, self._longest = sum(sizes.values()) / (rows * length), length
        return pooled
