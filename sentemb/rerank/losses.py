"""What a cross-encoder learns from lists of candidates.

With σ the sigmoid and P the softmax over a list, the losses' gradients on one logit z are

    bce      positive: -(1 - σ(z_p))    negative: σ(z_n)    every pair for itself
    list     positive: -(1 - P_p)       negative: P_n       coupled by the list

so ``list`` cares for differences within a list alone, and weighs its hardest negative most; ``bce`` also fixes where 0
lies, and pushes a negative down that is far below its positive already.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sentemb.parts import Part


@dataclass(frozen=True, kw_only=True)
class ListLogits:
    """A cross-encoder's logits of n lists of up to c candidates; column 0 is each list's positive."""

    logits: Float[Tensor, "n c"]
    is_there: Bool[Tensor, "n c"]  # false where a list is shorter than the longest
    teacher: Float[Tensor, "n c"] | None = None  # scores of another model


class RerankLoss(Part, room="rerank_losses"):
    """Base of the losses.

    Attributes:
        needs_teacher: whether the lists must carry scores of another model.
    """

    needs_teacher: bool = False

    def __call__(self, lists: ListLogits) -> Float[Tensor, ""]:
        """The loss of a batch of lists."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class PairCrossEntropy(RerankLoss):
    """Every pair is classified for itself: relevant or not (supervised fine-tuning).

        L = mean over pairs of -log σ(z) for a positive, -log(1 - σ(z)) for a negative

    Source: a comparison of supervised fine-tuning with contrast for rerankers, of which only the abstract and a public
        review were at hand; no code was released.
    Deviations: the probability is the sigmoid of one logit, where language models have a softmax over "yes" and "no".
    """

    def __call__(self, lists: ListLogits) -> Float[Tensor, ""]:
        target = torch.zeros_like(lists.logits)
        target[:, 0] = 1
        return F.binary_cross_entropy_with_logits(lists.logits[lists.is_there], target[lists.is_there])


@dataclass(frozen=True, kw_only=True)
class ListContrast(RerankLoss):
    """The positive against the candidates of its own list.

        L = mean over lists of -log( exp z_p / Σ over candidates exp z )

    Source: the other side of the comparison that ``bce`` names. Its abstract recalls that contrast was often the better
        one for encoders such as BERT, which is why it is the default here.
    Deviations: no temperature: the output layer learns the logits' size.
    """

    def __call__(self, lists: ListLogits) -> Float[Tensor, ""]:
        logits = lists.logits.masked_fill(~lists.is_there, -torch.inf)
        return (logits.logsumexp(dim=1) - logits[:, 0]).mean()


@dataclass(frozen=True, kw_only=True)
class MarginError(RerankLoss):
    """The gap between the positive and a negative is a teacher's gap.

        L = mean over negatives of (z_p - z_n - (t_p - t_n))²

    Source: MarginMSE, as it is known from distillation; recalled.
    Deviations: not compared with a paper or its code.
    """

    needs_teacher = True

    def __call__(self, lists: ListLogits) -> Float[Tensor, ""]:
        assert lists.teacher is not None
        gap, wanted = (scores[:, :1] - scores[:, 1:] for scores in (lists.logits, lists.teacher))
        return ((gap - wanted)[lists.is_there[:, 1:]] ** 2).mean()


PARTS: dict[str, type[RerankLoss]] = {"bce": PairCrossEntropy, "list": ListContrast, "margin": MarginError}
