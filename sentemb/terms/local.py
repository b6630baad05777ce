"""Tokens find the sentence that they stand in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sentemb.encoder.heads import refuse_coupling
from sentemb.maths.similarity import at_least_float32
from sentemb.terms.term import Term
from sentemb.types import Batch, Build, PairScores, SentenceModule, Share, Temperature


class Local(Term):
    """Softmax of every token's state over the sentences of the batch; the token's own sentence is the positive:

        L = -Σ_i Σ_{t ∈ i} log( exp(h_t · g_i / τ) / Σ_j exp(h_t · g_j / τ) ) / Σ_i Σ_{t ∈ i} 1

    h are the unit last states of ordinary tokens through the recipe's heads (also those that only training has), as
    constants; g the unit sentence embeddings of the whole batch. A sentence embedding that keeps what is in its tokens
    finds them.

    Args:
        of: the view; it is encoded once more where another part needs no states of it.
        temperature: τ; 0.07 in TCL.
    Returns: this device's share; one sentence alone gives 0.
    Raises: RecipeError (when built) where a head couples rows (a BatchNorm), which single tokens cannot pass.
    Source: Yang et al. 2022, CVPR, "Vision-language pre-training with triple contrastive learning" (TCL), its local
        mutual information.
    Deviations: TCL tells a sentence's tokens from those of other sentences; here every token tells its sentence from
        the others, which is exact over devices. TCL's tokens come from a momentum encoder.
    """

    def __init__(self, *, of: str = "anchor", temperature: Temperature = 0.07) -> None:
        super().__init__()
        self.of, self.temperature = of, temperature
        self.encodes = frozenset({of})
        self.needs = frozenset({"hidden", "tokens", f"view:{of}"})
        self.special: Tensor

    def bind(self, build: Build) -> None:
        """Remember the encoder's heads and the special tokens."""
        refuse_coupling(build.encoder, f"terms: {self.name} sends single tokens")
        self._encoder: tuple[SentenceModule] = (build.encoder,)  # not a module of its own
        self.register_buffer("special", torch.tensor(sorted(build.vocabulary.special)), persistent=False)

    def forward(self, table: PairScores, batch: Batch) -> Share:
        """The share of this device's tokens."""
        tokens, hidden = batch.tokens[self.of], batch.encoded[self.of].hidden
        assert hidden is not None
        ordinary = tokens.attention_mask.bool() & ~torch.isin(tokens.input_ids, self.special)
        row = ordinary.nonzero()[:, 0]
        with torch.no_grad():
            states = F.normalize(at_least_float32(self._encoder[0].project(hidden[ordinary])), dim=1)
        sentences = F.normalize(at_least_float32(batch.views[self.of].embedding), dim=1)
        with torch.autocast(device_type=states.device.type, enabled=False):
            logits = states.to(sentences.dtype) @ sentences.T / self.temperature
        total = F.cross_entropy(logits, batch.local.start + row, reduction="sum")
        return Share(total=total, count=total.new_tensor(float(len(row))))
