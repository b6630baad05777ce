"""Every pair of the table is a decision of its own."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sentemb.maths.softmax import live_pairs, table_logits
from sentemb.terms.info_nce import MIN_TEMPERATURE, learned_temperature
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores, Temperature


class SigmoidContrast(Term):
    """Logistic loss of every pair: positive or not.

        z_ij = 1 for a positive, else -1
        L = -mean_{(i,j) live} log σ( z_ij (s_ij / τ + w_ij + b) )

    A row may have any number of positives, also none, and no candidate competes with another, where ``info_nce`` asks
    which one of the row it is. Texts against the texts of their labels (a column ``positive`` with the label's words,
    the edit ``same_label``): a label that was never trained is scored like all others.

    Args:
        temperature: τ.
        bias: b. Nearly all pairs of a batch are negatives; -10 starts where they are expected.
        learn: learn log τ and b from these starts, τ kept at 0.01 or above.
    Source: Zhai et al. 2023, ICCV, "Sigmoid loss for language image pre-training" (SigLIP).
    Deviations: the mean over pairs, where SigLIP divides their sum by n: it takes a larger weight or learning rate. Any
        number of positives; matching with label texts is ours.
    """

    def __init__(self, *, temperature: Temperature = 0.1, bias: float = -10.0, learn: bool = False) -> None:
        super().__init__()
        if learn and temperature < MIN_TEMPERATURE:
            raise ValueError(f"temperature = {temperature}; a learned one starts at {MIN_TEMPERATURE} or above")
        self.temperature, self.bias, self.learn = temperature, bias, learn
        for name, start in (("log_temperature", math.log(temperature)), ("learned_bias", bias)):
            self.register_parameter(name, nn.Parameter(torch.tensor(start)) if learn else None)
        self.log_temperature: nn.Parameter | None
        self.learned_bias: nn.Parameter | None

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        temperature: float | Tensor = self.temperature
        bias: float | Tensor = self.bias
        if self.log_temperature is not None and self.learned_bias is not None:
            temperature = learned_temperature(self.log_temperature)
            bias = self.learned_bias
        live = live_pairs(table)
        logits = table_logits(table, temperature).masked_fill(~live, 0.0) + bias
        losses = F.softplus(torch.where(table.positive, -logits, logits))
        return torch.where(live, losses, 0.0).sum() / live.sum().clamp(min=1)
