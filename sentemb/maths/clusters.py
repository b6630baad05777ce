"""Clusters of unit vectors, and their spreading over prototypes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_SIMILARITIES_AT_ONCE = 2**24


def k_means(rows: Float[Tensor, "n d"], count: int, *, seed: int, iterations: int = 20) -> Int[Tensor, " n"]:
    """The cluster of every unit row by spherical k-means: centres are normalised means, nearest is by cosine.

    Starts from ``count`` different rows. A cluster that loses all of its rows starts again at the row that is farthest
    from its own centre. Holds n · d numbers and blocks of similarities, never n · count.
    """
    generator = torch.Generator().manual_seed(seed)
    centres = rows[torch.randperm(len(rows), generator=generator)[:count]]
    cluster, similarity = nearest_centres(rows, centres)
    for _ in range(iterations):
        centres = torch.zeros_like(centres).index_add_(0, cluster, rows)
        empty = torch.bincount(cluster, minlength=count) == 0
        centres[empty] = rows[similarity.argsort(stable=True)[: int(empty.sum())]]
        previous = cluster
        cluster, similarity = nearest_centres(rows, torch.nn.functional.normalize(centres, dim=1))
        if torch.equal(cluster, previous):
            break
    return cluster


def nearest_centres(
    rows: Float[Tensor, "n d"], centres: Float[Tensor, "k d"]
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Every row's centre with the largest inner product, and that product."""
    best = [(block @ centres.T).max(dim=1) for block in rows.split(max(1, _SIMILARITIES_AT_ONCE // len(centres)))]
    return torch.cat([block.indices for block in best]), torch.cat([block.values for block in best])


def sinkhorn(log_scores: Float[Tensor, "r k"], iterations: int) -> Float[Tensor, "r k"]:
    """Log of how every row is spread over k columns so that all columns get as much, near ``exp(log_scores)``.

    Alternates between columns of equal sums and rows that sum to 1; the rows come last.
    """
    for _ in range(iterations):
        log_scores = log_scores.log_softmax(dim=0).log_softmax(dim=1)
    return log_scores
