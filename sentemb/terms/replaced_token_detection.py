"""Conditional replaced-token detection: the part that DiffCSE adds to SimCSE."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sentemb.companions.companion import find_companion
from sentemb.companions.detector import Detector
from sentemb.maths.similarity import at_least_float32
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores, Share
from sentemb.views.view import ViewNames


class ReplacedTokenDetection(Term):
    """Tell from a sentence's embedding and its edited text which tokens were replaced.

        L = -Σ_views Σ_i Σ_t log ŷ_it[y_it] / Σ_views Σ_i Σ_t 1

    over all tokens that are neither special nor padding, where y says whether token t was replaced and ŷ is what
    the companion ``detector`` makes of the edited sentence and the embedding of the unedited one. A good embedding
    must hold what the edit changed: it becomes sensitive to edits, where dropout twins make it insensitive.

    Args:
        of: views whose embeddings condition the detection and whose masked copies are edited; both by default.
        companion: name of the companion that edits and detects.
    Returns: this device's share; a batch of special tokens alone counts 0.
    Source: Chuang et al. 2022, NAACL, section 3; its weight λ = 0.005 from the released run_diffcse.sh.
    Deviations: the mean is over the tokens that count. The released code's is over all positions with padding, and
        so smaller by the share of padding and special tokens in the batch; see ``Detector`` for the rest.
    """

    def __init__(self, *, of: ViewNames = ("anchor", "positive"), companion: str = "detector") -> None:
        super().__init__()
        self.of, self.companion = of, companion
        views = [f"view:{name}" for name in self.of] + [f"view:{name}.masked" for name in self.of]
        self.needs = frozenset({"tokens", f"companion:{companion}", *views})

    def forward(self, table: PairScores, batch: Batch) -> Share:
        """The share of this device's tokens."""
        detector = find_companion(batch.companions, self.companion, Detector, self.name)
        detection = detector.detect(
            [batch.tokens[f"{name}.masked"] for name in self.of],
            [batch.views[name].embedding[batch.local] for name in self.of],
        )
        losses = F.cross_entropy(
            at_least_float32(detection.logits).flatten(0, 1), detection.replaced.flatten().long(), reduction="none"
        )
        counted = detection.counted.flatten()
        return Share(total=torch.where(counted, losses, 0.0).sum(), count=counted.sum().to(losses.dtype))
