"""Losses of published methods, written from their equations by a reader who had not seen sentemb's code for them.

Plain loops over float64 numbers; nothing here is shared with sentemb. Rows are embeddings behind the heads unless a
name says ``pooled``. An argument ``held`` has the values that the method keeps free of gradient (a stop-gradient):
finite differences move the other arguments and leave it where it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]


def slope(loss: Callable[[Rows], float], at: Rows, direction: Rows, step: float = 1e-5) -> float:
    """The loss's derivative along a direction, by central differences."""
    return (loss(at + step * direction) - loss(at - step * direction)) / (2 * step)


def gradient(loss: Callable[[Rows], float], at: Rows) -> Rows:
    """All of its partial derivatives."""
    slopes = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        direction = np.zeros_like(at)
        direction[place] = 1.0
        slopes[place] = slope(loss, at, direction)
    return slopes


def cosine(a: Rows, b: Rows) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def cosines(a: Rows, b: Rows) -> list[list[float]]:
    return [[cosine(row, column) for column in b] for row in a]


def odds(logits: Sequence[float], place: int) -> float:
    """(1 - P) / P of the softmax's P at ``place``; logits of -inf take no part."""
    return sum(math.exp(logit - logits[place]) for j, logit in enumerate(logits) if j != place)


def cross_entropy(logits: Sequence[float], place: int) -> float:
    """-log softmax at ``place``."""
    return math.log1p(odds(logits, place))


def simcse(anchors: Rows, positives: Rows, temperature: float) -> float:
    """Mean over i of the cross-entropy of s(a_i, ·) / τ at the own positive."""
    sim = cosines(anchors, positives)
    rows = [cross_entropy([s / temperature for s in row], i) for i, row in enumerate(sim)]
    return sum(rows) / len(rows)


def mlp(pooled: Rows, weight: Rows, bias: Rows) -> Rows:
    """SimCSE's head, tanh(W x + b) of every row."""
    return np.array([np.tanh(weight @ row + bias) for row in pooled])


# ------------------------------------------------------------------------------------------------------------- DCLR
def too_similar(anchors: Rows, positives: Rows, threshold: float) -> list[list[bool]]:
    """Pairs that the frozen reference removes: s(f1_i, f2_j) > φ and i ≠ j."""
    sim = cosines(anchors, positives)
    return [[i != j and s > threshold for j, s in enumerate(row)] for i, row in enumerate(sim)]


def dclr_logits(
    anchors: Rows, positives: Rows, noise: Rows, removed: Sequence[Sequence[bool]], temperature: float
) -> list[list[float]]:
    """Every anchor against all positives and all noise; removed pairs leave the softmax."""
    table = []
    for i, anchor in enumerate(anchors):
        own = [
            -math.inf if removed[i][j] else cosine(anchor, positive) / temperature
            for j, positive in enumerate(positives)
        ]
        table.append(own + [cosine(anchor, vector) / temperature for vector in noise])
    return table


def dclr_noise(
    anchors: Rows, positives: Rows | None, noise: Rows, *, temperature: float, step: float, rounds: int
) -> Rows:
    """Gradient ascent e ← e + step · g/‖g‖, every vector with a norm of its own.

    With positives on the released code's loss, the cross-entropy of every anchor over all positives and all noise;
    without on U = Σ_i log Σ_k exp(s(a_i, e_k) / τ).
    """
    for _ in range(rounds):

        def ascended(vectors: Rows) -> float:
            total = 0.0
            for i, anchor in enumerate(anchors):
                over_noise = [cosine(anchor, vector) / temperature for vector in vectors]
                if positives is None:
                    total += math.log(sum(math.exp(logit) for logit in over_noise))
                else:
                    own = [cosine(anchor, positive) / temperature for positive in positives]
                    total += cross_entropy(own + over_noise, i)
            return total

        slopes = gradient(ascended, noise)
        noise = np.array([e + step * g / math.sqrt(float(g @ g)) for e, g in zip(noise, slopes, strict=True)])
    return noise


def dclr_softmax(
    anchors: Rows, positives: Rows, noise: Rows, removed: Sequence[Sequence[bool]], temperature: float
) -> float:
    """The softmax over the pairs that are left."""
    logits = dclr_logits(anchors, positives, noise, removed, temperature)
    return sum(cross_entropy(row, i) for i, row in enumerate(logits)) / len(logits)


def dclr_cells(
    anchors: Rows, positives: Rows, noise: Rows, removed: Sequence[Sequence[bool]], temperature: float
) -> float:
    """The released loss: binary cross-entropy of the softmax's p, mean over all n (n + k) cells; 0 where removed."""
    total, cells = 0.0, 0
    for i, logits in enumerate(dclr_logits(anchors, positives, noise, removed, temperature)):
        for j in range(len(logits)):
            cells += 1
            if logits[j] == -math.inf:
                continue  # -log(1 - 0)
            p = math.exp(-cross_entropy(logits, j))
            total -= math.log(p) if i == j else math.log(1 - p)
    return total / cells


# -------------------------------------------------------------------------------------------------------- ClusterNS
def mean_cosine(anchors: Rows, positives: Rows) -> float:
    sim = cosines(anchors, positives)
    return sum(sum(row) for row in sim) / sum(len(row) for row in sim)


def first_centroids(anchors: Rows, positives: Rows, count: int, first: int) -> Rows:
    """Each next one is the not yet chosen row that is least similar to the last one chosen: s(z1_last, z2_j)."""
    chosen = [first]
    while len(chosen) < count:
        left = [j for j in range(len(anchors)) if j not in chosen]
        chosen.append(min(left, key=lambda j: cosine(anchors[chosen[-1]], positives[j])))
    return anchors[chosen]


def by_similarity(anchor: Rows, centroids: Rows) -> list[int]:
    """Numbers of the centroids, the most similar one first."""
    return sorted(range(len(centroids)), key=lambda k: -cosine(anchor, centroids[k]))


def moved_centroids(centroids: Rows, anchors: Rows, rate: float) -> Rows:
    """c_k ← ρ Σ of its members + (1 - ρ) c_k; a centroid without members stays."""
    moved = centroids.copy()
    assigned = [by_similarity(anchor, centroids)[0] for anchor in anchors]
    for k in range(len(centroids)):
        members = [anchor for anchor, cluster in zip(anchors, assigned, strict=True) if cluster == k]
        if members:
            moved[k] = rate * np.sum(members, axis=0) + (1 - rate) * centroids[k]
    return moved


def clusterns_negatives(anchors: Rows, centroids: Rows) -> Rows:
    """g_i, the second most similar centroid of every anchor."""
    return centroids[[by_similarity(anchor, centroids)[1] for anchor in anchors]]


def clusterns_contrast(anchors: Rows, positives: Rows, negatives: Rows, temperature: float) -> float:
    """Cross-entropy over all positives and all n columns g."""
    total = 0.0
    for i, anchor in enumerate(anchors):
        columns = [*positives, *negatives]
        total += cross_entropy([cosine(anchor, column) / temperature for column in columns], i)
    return total / len(anchors)


def clusterns_band(anchors: Rows, positives: Rows, centroids: Rows, inner: float, outer: float) -> float:
    """Mean over all n² cells of relu(x + α) + relu(-x - β); x = s_ij - s_ii for mates of one cluster, else 0."""
    assigned = [by_similarity(anchor, centroids)[0] for anchor in anchors]
    sim = cosines(anchors, positives)
    total = 0.0
    for i, row in enumerate(sim):
        for j, s in enumerate(row):
            x = s - row[i] if i != j and assigned[i] == assigned[j] else 0.0
            total += max(x + inner, 0.0) + max(-x - outer, 0.0)
    return total / len(anchors) ** 2


# ------------------------------------------------------------------------------------------------------------ miCSE
def micse_agreement(
    first: Sequence[Rows], second: Sequence[Rows], *, held: tuple[Sequence[Rows], Sequence[Rows]],
    real: NDArray[np.bool_] | None = None,
) -> float:
    """-mean over sentences, heads and the two members of a pair of MI · share², MI = -½ log(1 - ρ²).

    ``first`` and ``second`` are the maps (sentences, heads, t, t) of the layers in order, even in number; member m of
    the pairs has the layers m, m + 2, m + 4 … of them. ρ is the correlation of the logarithms over the cells that are
    above zero in both passes, share their part of all cells (those of ``real``, where it is given), without gradient.
    """
    sentences, heads, tokens, _ = first[0].shape
    total = 0.0
    for i in range(sentences):
        for k in range(heads):
            for member in (0, 1):
                x, y, cells = [], [], 0
                for layer in range(member, len(first), 2):
                    for q in range(tokens):
                        for r in range(tokens):
                            if real is not None and not (real[i, q] and real[i, r]):
                                continue
                            cells += 1
                            if held[0][layer][i, k, q, r] > 0 and held[1][layer][i, k, q, r] > 0:
                                x.append(math.log(first[layer][i, k, q, r]))
                                y.append(math.log(second[layer][i, k, q, r]))
                mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
                xy = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
                xx, yy = sum((a - mean_x) ** 2 for a in x), sum((b - mean_y) ** 2 for b in y)
                information = -0.5 * math.log(1 - min(xy**2 / (xx * yy), 1 - 1e-6))
                total -= information * (len(x) / cells) ** 2
    return total / (sentences * heads * 2)


# ------------------------------------------------------------------------------------------------------ WhitenedCSE
def whitened(view: Rows, groups: Sequence[Sequence[int]], eps: float, *, held: Rows | None = None) -> Rows:
    """Every group of columns centred and multiplied with Σ^(-1/2), Σ = XᵀX/n + ε I; W without gradient: of ``held``."""
    held = view if held is None else held
    out = np.zeros_like(view)
    for group in groups:
        columns = list(group)
        still = held[:, columns] - held[:, columns].mean(axis=0)
        values, vectors = np.linalg.eigh(still.T @ still / len(still) + eps * np.eye(len(columns)))
        root = sum(np.outer(v, v) / math.sqrt(value) for value, v in zip(values, vectors.T, strict=True))
        out[:, columns] = (view[:, columns] - view[:, columns].mean(axis=0)) @ root
    return out


def whitenedcse(views: Sequence[Rows], temperature: float) -> float:
    """CE(z1 → z2) + CE(z1 → z3)."""
    return sum(simcse(views[0], other, temperature) for other in views[1:])
