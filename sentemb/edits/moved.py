"""Embeddings that are shifted and shaken before they are compared."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sentemb.companions.centre import Centre
from sentemb.companions.companion import find_companion
from sentemb.edits.edit import Edit
from sentemb.maths.similarity import at_least_float32, pairwise
from sentemb.parts import NonNegative
from sentemb.types import Batch, PairScores


class Moved(Edit):
    """Move every anchor and candidate on the unit sphere, and compare them again:

        u ← normalise(u - c)                    with ``centre``: c is the companion's
        u ← normalise(u + noise · sign(u) ⊙ v / ‖v‖),   v ~ U(0, 1)^d, drawn anew for every row

    Seen from the centre of the cone in which an untuned encoder puts all sentences, their angles are wide. Noise is an
    augmentation that costs no encoding. What is exported stays u. List this edit before those that read similarities.

    Args:
        centre: subtract the mean embedding of the start.
        noise: length of the noise; the cosine of u and the moved u is at least 1 / √(1 + noise²).
        companion: name of the companion that holds the centre.
    Returns:
        The table with moved rows and their similarities; log-weights and positives stay.
    Raises:
        ValueError: neither is asked for.
        RecipeError: the similarity is not the cosine.
    Source: centre: Reiss & Hoshen 2023, AAAI, "Mean-shifted contrastive loss for anomaly detection"; noise: Yu et al.
        2022, SIGIR, "Are graph augmentations necessary?" (SimGCL) and Yu et al. 2024, TKDE (XSimGCL).
    Deviations: SimGCL adds noise of length 0.1 to embeddings of any length in every layer; here it is relative to unit
        vectors, at the end.
    """

    def __init__(self, *, centre: bool = False, noise: NonNegative = 0.0, companion: str = "centre") -> None:
        super().__init__()
        if not centre and not noise:
            raise ValueError("centre = false and noise = 0 move nothing; set one of them")
        self.centre, self.noise, self.companion = centre, noise, companion
        self.needs = frozenset({"cosine", *([f"companion:{companion}"] if centre else ())})

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        anchor, candidate = (
            replace(rows, embedding=self._moved(rows.embedding, batch)) for rows in (table.anchor, table.candidate)
        )
        sim = pairwise(anchor.embedding, candidate.embedding, table.similarity)
        return replace(table, anchor=anchor, candidate=candidate, sim=sim)

    def _moved(self, embedding: Float[Tensor, "n d"], batch: Batch) -> Float[Tensor, "n d"]:
        unit = F.normalize(at_least_float32(embedding), dim=1)
        if self.centre:
            centre = find_companion(batch.companions, self.companion, Centre, self.name).vector
            unit = F.normalize(unit - centre.to(unit), dim=1)
        if self.noise:
            # drawn on the CPU: the same on every device and machine
            drawn = F.normalize(torch.rand(unit.shape, generator=batch.generator), dim=1).to(unit)
            unit = F.normalize(unit + self.noise * unit.detach().sign() * drawn, dim=1)
        return unit
