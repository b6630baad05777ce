"""Clusters of the embeddings, found while training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from jaxtyping import Float, Int
from torch import Tensor

from sentemb.companions.companion import Companion
from sentemb.maths.similarity import pairwise
from sentemb.parts import Fraction
from sentemb.types import Batch, Build, SentenceModule, Services

_PRIME = 1_000_003  # seeds of two runs' steps lie apart


class Clusters(Companion):
    """K centroids c_k that follow the anchors z of every batch (k-means in small steps):

        cluster(i) = argmax_k cos(z_i, c_k)
        c_k ← ρ Σ_{i in k} z_i + (1 - ρ) c_k        where k has anchors; others stay

    There are none until the batch is spread out: its cosines of all anchors with all candidates average at most
    ``start_below``. Then the first centroid is an anchor drawn at random, and each next one is the anchor, not chosen
    yet, whose candidate is least like the centroid before it. Unlike those of ``prototypes``, clusters are of
    embeddings, not of examples, and no text is encoded for them. The edit ``cluster_negatives`` and the term
    ``bidirectional_margin`` read them.

    Args:
        count: K, at most the batch size; 128 in ClusterNS.
        start_below: mean cosine from which on there are centroids; -1 never starts.
        rate: ρ.
    Source: Deng et al. 2023, Findings of ACL, "Clustering-aware negative sampling for unsupervised sentence
        representation" (ClusterNS), its released code.
    Deviations: centroids move after a step, one step later than in the release. A batch with fewer than K rows starts
        none, where the release fails.
    """

    def __init__(
        self, *, count: Annotated[int, Ge(2)] = 128, start_below: Annotated[float, Ge(-1), Le(1)] = 0.4,
        rate: Fraction = 1e-3,
    ) -> None:
        super().__init__()
        self.count, self.start_below, self.rate = count, start_below, rate
        self.centroids: Float[Tensor, "k d"]
        self.started: Int[Tensor, ""]

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """Batches that are too small to start from."""
        train = recipe.get("train")
        if train is None or train.batch_size >= self.count:
            return []
        return [f"count = {self.count} is above train.batch_size = {train.batch_size}: no batch has enough rows"]

    def bind(self, build: Build) -> None:
        """No centroids so far."""
        self._seed = build.seed
        self.register_buffer("centroids", torch.zeros(self.count, build.width))
        self.register_buffer("started", torch.zeros((), dtype=torch.int64))

    @property
    def has_started(self) -> bool:
        """Whether there are centroids."""
        return bool(self.started)

    def similarity(self, embedding: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Cosines of rows, of the embeddings' first dimensions if they are narrower, with the centroids."""
        rows = embedding.detach().to(self.centroids.dtype)
        return pairwise(rows, self.centroids[:, : rows.shape[1]], "cosine")

    @torch.no_grad()
    def after_step(self, batch: Batch, encoder: SentenceModule, services: Services) -> None:
        """Move the centroids, or start them."""
        anchor = batch.views["anchor"].embedding.to(self.centroids.dtype)
        if self.has_started:
            cluster = self.similarity(anchor).argmax(dim=1)
            own = (torch.arange(self.count, device=cluster.device)[:, None] == cluster).to(anchor.dtype)
            # a product, not a scattered sum, whose order differs between devices
            moved = self.rate * (own @ anchor) + (1 - self.rate) * self.centroids
            self.centroids.copy_(torch.where(own.any(dim=1, keepdim=True), moved, self.centroids))
            return
        candidate = batch.views["positive"].embedding.to(anchor.dtype)
        cosine = pairwise(anchor, candidate, "cosine")
        if len(anchor) >= self.count and bool(cosine.mean() <= self.start_below):
            generator = torch.Generator().manual_seed(self._seed * _PRIME + batch.step)
            first = int(torch.randint(len(anchor), (), generator=generator))
            self.centroids.copy_(anchor[chain(cosine, first, self.count)])
            self.started.fill_(1)


def chain(cosine: Float[Tensor, "n n"], first: int, count: int) -> Int[Tensor, " k"]:
    """``count`` different rows from ``first`` on, each the one whose candidate is least like the row before."""
    chosen = [first]
    free = torch.ones(len(cosine), dtype=torch.bool, device=cosine.device)
    while len(chosen) < count:
        free[chosen[-1]] = False
        chosen.append(int(cosine[chosen[-1]].masked_fill(~free, torch.inf).argmin()))
    return torch.tensor(chosen, device=cosine.device)
