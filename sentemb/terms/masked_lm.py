"""Masked-language modelling beside the contrast, so that the encoder keeps what it knows of words."""

from __future__ import annotations

import warnings

import torch.nn.functional as F
from torch import nn

from sentemb.encoder.pretrained import load_masked_lm_head
from sentemb.maths.similarity import at_least_float32
from sentemb.terms.term import Term
from sentemb.types import Batch, Build, PairScores, Share
from sentemb.views.view import ViewNames


class MaskedLM(Term):
    """Predict the hidden tokens of masked copies.

        L = -Σ_{t: chosen} log softmax(head(hidden_t))[x_t] / Σ_{t: chosen} 1

    The encoder sees the masked copy in a pass of its own; the head is the checkpoint's where it has one, else fresh.

    Args:
        of: views whose masked copies are encoded; the anchors by default. Needs ``[views] copies`` of use "masked".
    Returns: this device's share; a batch without a chosen token counts 0.
    Raises: ModelError (when built) where the architecture's head is of an unknown shape.
    Source: Devlin et al. 2019, NAACL, section 3.1; beside the contrast: Gao, Yao & Chen 2021, EMNLP (weight
        0.1 in the released train.py).
    Deviations: the head's output weights are a copy of the word embeddings and learn apart from them, as in SimCSE's
        released code. That code masks every sentence it encodes; the default here is the anchors.
    """

    def __init__(self, *, of: ViewNames = ("anchor",)) -> None:
        super().__init__()
        self.of = of
        self.encodes = frozenset(f"{name}.masked" for name in self.of)
        self.needs = frozenset({"hidden", "tokens", *(f"view:{name}" for name in self.encodes)})
        self.head: nn.Sequential | None = None

    def bind(self, build: Build) -> None:
        """Load the head; a warning says where the checkpoint has none."""
        folder = build.folder_of(build.backbone)
        self.head, is_trained = load_masked_lm_head(
            folder, seed=build.seed, trust_remote_code=build.trust_remote_code
        )
        if not is_trained:
            warnings.warn(
                f"masked_lm: {build.backbone} has no masked-language-model head, so a fresh one is trained; a "
                "checkpoint saved with its head (BertForMaskedLM and the like) starts from what it knows", stacklevel=2,
            )

    def forward(self, table: PairScores, batch: Batch) -> Share:
        """The share of this device's chosen tokens."""
        assert self.head is not None
        total, count = table.sim.new_zeros((), dtype=at_least_float32(table.sim).dtype), 0
        for name in self.of:
            hidden, targets = batch.encoded[f"{name}.masked"].hidden, batch.tokens[f"{name}.masked"].targets
            assert hidden is not None
            assert targets is not None
            # choosing waits for the device, but saves six sevenths of the largest product of the step
            chosen = targets != -100
            logits = at_least_float32(self.head(hidden[chosen]))
            total = total + F.cross_entropy(logits, targets[chosen], reduction="sum")
            count += logits.shape[0]
        return Share(total=total, count=total.new_tensor(float(count)))
