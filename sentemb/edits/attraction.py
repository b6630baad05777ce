"""Far positives attract more."""

from __future__ import annotations

from dataclasses import replace

import torch

from sentemb.edits.edit import Edit
from sentemb.maths.similarity import at_least_float32
from sentemb.maths.softmax import live_pairs, positive_share
from sentemb.parts import NonNegative
from sentemb.types import Batch, PairScores


class Attraction(Edit):
    """Divide every anchor's attraction over its positives by how far they are:

        share_ip ∝ exp( t · ‖u_i - u_p‖² ),   ‖u_i - u_p‖² = 2 - 2 s_ip,   p ∈ P(i)

    over the positives that no edit has removed, as constants. ``supervised_contrast``, ``decoupled`` and ``alignment``
    read the shares; ``hardness`` is the counterpart for negatives. It acts only where an anchor has several positives:
    the edits ``given`` (with the view ``repeat``) and ``same_label`` make them.

    Args:
        sharpness: t; 0 divides equally (t⁺ = 1 in the paper).
    Returns:
        The table with shares, multiplied onto those that it has.
    Source: Zheng et al. 2023, TMLR, "Contrastive attraction and contrastive repulsion for representation learning"
        (CACR), section 3.
    Deviations: the shares carry no gradient; of the three objectives that the release bears, its momentum variant does
        the same. Repulsion is that of the term: CACR's is ``decoupled`` at τ = 1 / (2 t⁻).
    """

    sets_shares = True

    def __init__(self, *, sharpness: NonNegative = 1.0) -> None:
        super().__init__()
        self.sharpness = sharpness

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        live = table.positive & live_pairs(table)
        logits = -2 * self.sharpness * at_least_float32(table.sim.detach()) + positive_share(table).log()
        chosen = torch.where(live, logits, -torch.inf)
        share = torch.where(live.any(dim=1, keepdim=True), chosen, 0.0).softmax(dim=1)  # of a lonely row: no NaN
        return replace(table, share=torch.where(live, share, 0.0))
