"""Classification in place of contrast: the partner's words as labels."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentemb.maths.similarity import at_least_float32
from sentemb.parts import Count
from sentemb.terms.term import Term
from sentemb.types import Batch, Build, Examples, PairScores, Services, Share


class Words(Term):
    """Predict from an embedding which frequent tokens the other view holds:

        L = -Σ_i Σ_{k ≤ K} [ y_ik log σ(z_ik) + (1 - y_ik) log(1 - σ(z_ik)) ] / n,   z_i = W f_i + b

    y_ik says whether the other view's text holds word k, once or several times. The K words are the tokens that stand
    in most texts of the data, special ones excepted; b starts at the log-odds of their frequency, so that the first
    steps do not only learn it. Without contrast this is a bag-of-words baseline.

    Args:
        of: the view whose embedding predicts.
        target: the view whose words are predicted; of dropout twins they are the embedding's own words.
        vocabulary: K.
    Returns: this device's share.
    Source: Mehta et al. 2024, "CatLIP: CLIP-level visual recognition accuracy with 2.7x faster pre-training on
        web-scale image-text data".
    Deviations: tokens in place of nouns with WordNet senses, pairs of texts in place of images; the bias is ours.
    """

    def __init__(self, *, of: str = "anchor", target: str = "positive", vocabulary: Count = 8000) -> None:
        super().__init__()
        self.of, self.target, self.vocabulary = of, target, vocabulary
        self.needs = frozenset({"tokens", f"view:{of}", f"view:{target}"})
        self.number: Tensor  # (vocabulary,) of every token among the K words, or -1

    def bind(self, build: Build) -> None:
        """Make the linear map; its weights are drawn from the run's seed."""
        ordinary = np.setdiff1d(np.arange(build.vocabulary.size), np.fromiter(build.vocabulary.special, dtype=np.int64))
        self._ordinary = ordinary
        self.head = nn.Linear(build.width, min(self.vocabulary, len(ordinary)))
        with torch.no_grad():
            self.head.weight.normal_(std=0.02, generator=torch.Generator().manual_seed(build.seed))
            self.head.bias.zero_()
        self.register_buffer("number", torch.full((build.vocabulary.rows,), -1, dtype=torch.int64))

    def prepare(self, dataset: Examples, services: Services) -> None:
        """Count the words of the data."""
        column = dataset.columns.get(self.target) or dataset.columns["anchor"]
        row = np.repeat(np.arange(len(column)), column.lengths)
        once = np.unique(row * len(self.number) + column.flat) % len(self.number)  # a token twice counts once
        texts = np.bincount(once, minlength=len(self.number))
        words = self._ordinary[np.argsort(-texts[self._ordinary], kind="stable")[: len(self.head.bias)]]
        self.number[torch.from_numpy(words)] = torch.arange(len(words), device=self.number.device)
        share = torch.from_numpy((texts[words] + 0.5) / (len(column) + 1))
        with torch.no_grad():
            self.head.bias.copy_(torch.logit(share))

    def forward(self, table: PairScores, batch: Batch) -> Share:
        """The share of this device's examples."""
        embedding = batch.views[self.of].embedding[batch.local]
        number = self.number[batch.tokens[self.target].input_ids]  # padding is a special token: -1
        words = torch.zeros(len(embedding), len(self.head.bias) + 1, device=embedding.device)
        words.scatter_(1, torch.where(number < 0, len(self.head.bias), number), 1.0)
        logits = at_least_float32(self.head(embedding))
        total = F.binary_cross_entropy_with_logits(logits, words[:, :-1].to(logits.dtype), reduction="sum")
        return Share(total=total, count=total.new_tensor(float(len(embedding))))
