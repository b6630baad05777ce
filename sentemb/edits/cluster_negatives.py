"""Negatives from the clusters of the embeddings."""

from __future__ import annotations

from sentemb.companions.clusters import Clusters
from sentemb.companions.companion import find_companion
from sentemb.edits.edit import Edit
from sentemb.maths.table import add_candidates, extra_rows
from sentemb.types import Batch, PairScores


class ClusterNegatives(Edit):
    """Append every anchor's second nearest centroid, as a negative of all anchors:

        g_i = c_k with the second largest cos(h_i, c_k)

    The nearest centroid is the anchor's own cluster; the second nearest one is near it and of another cluster. The n
    columns take no gradient and have no identity. Until the companion starts, there are none.

    Args:
        companion: name of the ``clusters``.
    Returns:
        The table with n more columns.
    Source: Deng et al. 2023, Findings of ACL, "Clustering-aware negative sampling for unsupervised sentence
        representation" (ClusterNS), its released code.
    Deviations: none known. As in the release, an anchor is pushed from its own centroid, too, where that is another
        anchor's second nearest.
    """

    def __init__(self, *, companion: str = "clusters") -> None:
        super().__init__()
        self.companion = companion
        self.needs = frozenset({f"companion:{companion}"})

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        clusters = find_companion(batch.companions, self.companion, Clusters, self.name)
        if not clusters.has_started:
            return table
        second = clusters.similarity(table.anchor.embedding).topk(2, dim=1).indices[:, 1]
        rows = clusters.centroids[second].to(table.candidate.embedding.dtype)
        return add_candidates(table, extra_rows(rows, table.candidate))
