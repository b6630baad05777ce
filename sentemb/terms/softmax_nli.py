"""A classifier of pairs, as for natural language inference."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor, nn

from sentemb.errors import DataError, RecipeError
from sentemb.maths.similarity import at_least_float32
from sentemb.maths.softmax import mean_over
from sentemb.terms.term import Term
from sentemb.types import UNKNOWN, Batch, Build, Examples, PairScores, Services


class SoftmaxNLI(Term):
    """Cross-entropy of a linear classifier over both embeddings of a pair and their difference.

        p_i = softmax( W (u_i, v_i, |u_i - v_i|) + b )
        L = -mean_i log p_i[c_i]

    c_i is the class of the pair of anchor i and its own candidate, from the column ``label``: entailment, neutral or
    contradiction, or any other classes of pairs. The classifier is learned and left behind after training. Its data
    suit ``info_nce`` better, with entailments as positives and contradictions as negatives; this is the older method.

    Args:
        classes: number of classes. Labels that are names count in the order of the alphabet, whole numbers from 0.
    Returns: 0 where no class of the batch is known.
    Raises: DataError where a label is not below ``classes``, before training.
    Source: Reimers & Gurevych 2019, EMNLP, "Sentence-BERT", section 3 (classification objective function).
    Deviations: the classifier has a bias, as in sentence-transformers' ``SoftmaxLoss``.
    """

    needs = frozenset({"labels"})

    def __init__(self, *, classes: Annotated[int, Ge(2)] = 3) -> None:
        super().__init__()
        self.classes = classes
        self.classifier: nn.Linear | None = None

    def bind(self, build: Build) -> None:
        """Make the classifier."""
        self.classifier = nn.Linear(3 * build.width, self.classes)

    def prepare(self, dataset: Examples, services: Services) -> None:
        """Refuse labels that the classifier does not have."""
        for where, rows in self.sources_of(dataset).items():
            if rows.label is None:
                continue
            is_other = (rows.label < UNKNOWN) | (rows.label >= self.classes)
            if is_other.any():
                row = int(is_other.argmax())
                raise DataError(
                    f"term {self.name}: {where}row {row + 1} has the label {rows.label[row]}; with classes = "
                    f"{self.classes} labels are 0 to {self.classes - 1} (and -1 for an unknown one)"
                )

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        if self.classifier is None:
            raise RecipeError(f"{self.name} needs the encoder: it works in recipes, where bind() makes its classifier")
        label = table.anchor.label
        if label is None:
            raise RecipeError(f"{self.name}: the data have no label column; add one with the class of every pair")
        u, v = at_least_float32(table.anchor.embedding), at_least_float32(table.candidate.embedding[: len(label)])
        features = torch.stack([u, v, (u - v).abs()], dim=1)
        # fewer dimensions than the classifier has: nested ones, which are the leading ones of all three
        weight = self.classifier.weight.unflatten(1, (3, -1))[..., : features.shape[2]]
        logits = torch.einsum("nfd,cfd->nc", features, weight.to(features)) + self.classifier.bias.to(features)
        is_known = label != UNKNOWN
        return mean_over(F.cross_entropy(logits, label.clamp(min=0), reduction="none"), is_known)
