"""A slowly following copy of the encoder, and the queue of what it has encoded."""

from __future__ import annotations

import copy
from typing import Annotated

import torch
from annotated_types import Ge, Lt
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sentemb.companions.companion import Companion
from sentemb.distributed import devices, gather_detached, split_sizes
from sentemb.parts import Count
from sentemb.types import Batch, Build, SentenceModule, Services


class Momentum(Companion):
    """Exponential moving average of the encoder, and a first-in-first-out queue of its embeddings:

        θ_k ← m θ_k + (1 - m) θ,    queue ← queue ∪ f(anchors; θ_k)  without its oldest rows

    After every step the average is updated first and then encodes the step's anchors, without dropout. The queue
    holds embeddings behind the train-time heads, example ids and content hashes, of the whole batch over all
    devices, so it is equal on every device. It starts empty. ``reference``, its sibling, never moves.

    Args:
        momentum: m; 0.995 in ESimCSE, section 4.2.
        queue_size: rows kept; 160 = 2.5 batches of 64 is ESimCSE's best (table 7).
    Source: He et al. 2020, CVPR, "Momentum contrast" (MoCo), section 3.2; Wu et al. 2022, COLING, "ESimCSE",
        section 3.2 (dropout of the momentum encoder turned off).
    Deviations: none from ESimCSE. MoCo encodes positives with the average too; here positives come from the
        trained encoder, as in ESimCSE.
    """

    needs = frozenset({"tokens"})
    model_bytes = 4

    def __init__(self, *, momentum: Annotated[float, Ge(0), Lt(1)] = 0.995, queue_size: Count = 160) -> None:
        super().__init__()
        self.momentum, self.queue_size = momentum, queue_size
        self.encoder: nn.Module
        self.embedding: Float[Tensor, "size d"]
        self.ids: Int[Tensor, " size"]
        self.text: Int[Tensor, " size"]
        self.seen: Int[Tensor, ""]

    def bind(self, build: Build) -> None:
        encoder = copy.deepcopy(build.encoder)
        assert isinstance(encoder, nn.Module)
        self.encoder = encoder.eval().requires_grad_(False)
        unknown = torch.full((self.queue_size,), -1, dtype=torch.int64)
        self.register_buffer("embedding", torch.zeros(self.queue_size, build.width))
        self.register_buffer("ids", unknown)
        self.register_buffer("text", unknown.clone())
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))  # rows ever put in

    def train(self, mode: bool = True) -> Momentum:
        return super().train(False)

    @property
    def is_filled(self) -> Bool[Tensor, " size"]:
        """Which slots hold an embedding."""
        return torch.arange(self.queue_size, device=self.seen.device) < self.seen

    @torch.no_grad()
    def after_step(self, batch: Batch, encoder: SentenceModule, services: Services) -> None:
        """Follow the encoder, then put the batch's anchors into the queue."""
        average = self.encoder
        assert isinstance(encoder, nn.Module)
        for mine, theirs in zip(average.parameters(), encoder.parameters(), strict=True):
            mine.lerp_(theirs.detach().to(mine.dtype), 1 - self.momentum)
        for own, current in zip(average.buffers(), encoder.buffers(), strict=True):
            own.copy_(current)  # counters and running statistics are averages already
        keys = average.project(average(batch.tokens["anchor"]).pooled)  # type: ignore[operator]
        anchor = batch.views["anchor"]
        self._put(gather_detached(keys, split_sizes(len(anchor), devices())), anchor.ids, anchor.text)

    def _put(self, keys: Float[Tensor, "n d"], ids: Int[Tensor, " n"], text: Int[Tensor, " n"]) -> None:
        n = len(keys)
        first = max(n - self.queue_size, 0)  # of a batch longer than the queue, only the end stays
        # the slot is arithmetic on a device tensor: no synchronisation
        slot = (self.seen + torch.arange(first, n, device=self.seen.device)) % self.queue_size
        self.embedding[slot] = keys[first:].to(self.embedding.dtype)
        self.ids[slot] = ids[first:]
        self.text[slot] = text[first:]
        self.seen += n
