"""Sentences of one cluster stay apart, but not far apart."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Le
from jaxtyping import Float
from torch import Tensor

from sentemb.companions.clusters import Clusters
from sentemb.companions.companion import find_companion
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores

Margin = Annotated[float, Ge(0), Le(2)]


class BidirectionalMargin(Term):
    """Two hinges that hold the candidates of an anchor's own cluster in a band below its positive:

        x_ij = s_ij - s_ii,    L = 1/n² Σ_{i ≠ j, cluster(i) = cluster(j)} max(0, x_ij + α) + max(0, -x_ij - β)

    They are the likely false negatives: at least α less similar than the positive, at most β less. Beside a
    contrastive term, for which they stay negatives. Compared are in-batch pairs only. Until the companion starts, L
    is 0.

    Args:
        inner: α.
        outer: β, at least α.
        companion: name of the ``clusters``.
    Raises:
        ValueError: outer below inner.
    Source: Deng et al. 2023, Findings of ACL, "Clustering-aware negative sampling for unsupervised sentence
        representation" (ClusterNS), its released code.
    Deviations: in the release the other pairs of the n² add the constant α each, which has no gradient.
    """

    def __init__(self, *, inner: Margin = 0.0, outer: Margin = 0.3, companion: str = "clusters") -> None:
        super().__init__()
        if outer < inner:
            raise ValueError(f"outer = {outer} is below inner = {inner}")
        self.inner, self.outer, self.companion = inner, outer, companion
        self.needs = frozenset({f"companion:{companion}"})

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        clusters = find_companion(batch.companions, self.companion, Clusters, self.name)
        sim = table.sim[:, : len(table.anchor)]
        pairs = torch.zeros_like(sim, dtype=torch.bool)
        if clusters.has_started:
            cluster = clusters.similarity(batch.views["anchor"].embedding).argmax(dim=1)
            pairs = (cluster[:, None] == cluster).fill_diagonal_(False)
        x = sim - sim.diagonal()[:, None]
        band = (x + self.inner).clamp(min=0) + (-x - self.outer).clamp(min=0)
        return torch.where(pairs, band, 0.0).mean()
