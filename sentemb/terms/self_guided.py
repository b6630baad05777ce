"""The embedding follows all layers of the model that training started from."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sentemb.maths.similarity import at_least_float32, pairwise
from sentemb.terms.term import Term
from sentemb.types import Batch, Build, PairScores, SentenceModule, Temperature


class SelfGuided(Term):
    """Every anchor finds its own text in each layer of the frozen start checkpoint:

        L = -1/(nK) Σ_i Σ_k log [ e^{s(c_i, g_ik) / τ} / ( e^{s(c_i, g_ik) / τ} + Σ_{m ≠ i} Σ_l e^{s(c_i, g_ml) / τ} ) ]

    c are the anchors, g_ik = f(layer k of text i) with the recipe's heads f, which learn from both sides; s is the
    cosine. Own layers do not compete with each other. The candidates are the layers alone: the table, its positives
    and its edits are not read.

    Args:
        temperature: τ; 0.01 in SG-BERT.
        companion: name of the ``layers``.
    Returns: the loss; one text alone gives 0.
    Source: Kim, Yoo & Lee 2021, ACL, "Self-guided contrastive learning for BERT sentence representations" (SG-BERT),
        its objective SG-OPT in the released code.
    Deviations: none known; the release encodes one view, and ``twice`` encodes a second one that is not read.
    """

    def __init__(self, *, temperature: Temperature = 0.01, companion: str = "layers") -> None:
        super().__init__()
        self.temperature, self.companion = temperature, companion
        self.needs = frozenset({f"companion:{companion}"})

    def bind(self, build: Build) -> None:
        """Remember the encoder's heads."""
        self._encoder: tuple[SentenceModule] = (build.encoder,)  # not a module of its own

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        layers = batch.outputs[f"{self.companion}/anchor"]
        n, count, _ = layers.shape
        anchor = batch.views["anchor"].embedding
        guides = at_least_float32(self._encoder[0].project(layers.flatten(0, 1)))[:, : anchor.shape[1]]
        logits = pairwise(anchor, guides.to(anchor.dtype), "cosine").view(n, n, count) / self.temperature
        own = torch.eye(n, dtype=torch.bool, device=logits.device)
        others = logits.masked_fill(own[..., None], -torch.inf).flatten(1).logsumexp(dim=1)
        positive = logits[own]
        # log1p(e^x) of what the others exceed the own layer by
        return torch.nn.functional.softplus(others[:, None] - positive).mean()
