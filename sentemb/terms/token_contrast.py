"""Tokens of one text that stay apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sentemb.maths.similarity import at_least_float32
from sentemb.parts import Positive
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores, Share


class TokenContrast(Term):
    """Hinge on the cosines between the last states of different tokens of one text:

        L = Σ_i Σ_{s ≠ t ∈ i} max(0, margin - 1 + cos(h_s, h_t)) / Σ_i Σ_{s ≠ t ∈ i} 1

    States of untuned encoders are nearly parallel; tokens that differ keep a mean pooling informative.

    Args:
        of: the view.
        margin: ρ; cosines up to 1 - ρ are free; 0.5 in SimCTG.
    Returns: this device's share over all tokens but padding.
    Source: Su et al. 2022, NeurIPS, "A contrastive framework for neural text generation" (SimCTG), its loss L_CL.
    Deviations: an encoder's states in place of a decoder's.
    """

    def __init__(self, *, of: str = "anchor", margin: Positive = 0.5) -> None:
        super().__init__()
        self.of, self.margin = of, margin
        self.encodes = frozenset({of})
        self.needs = frozenset({"hidden", "tokens", f"view:{of}"})

    def forward(self, table: PairScores, batch: Batch) -> Share:
        """The share of this device's texts."""
        hidden, mask = batch.encoded[self.of].hidden, batch.tokens[self.of].attention_mask.bool()
        assert hidden is not None
        unit = F.normalize(at_least_float32(hidden), dim=2)
        with torch.autocast(device_type=unit.device.type, enabled=False):
            cosine = unit @ unit.transpose(1, 2)
        pairs = mask[:, :, None] & mask[:, None, :]
        pairs = pairs & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        hinge = (self.margin - 1 + cosine).clamp(min=0)
        return Share(total=torch.where(pairs, hinge, 0.0).sum(), count=pairs.sum().to(hinge.dtype))
