"""Methods without training: nearest examples, nearest class means, nearest label texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentemb.classify.method import ClassifierMethod, Encode, LabelledVectors, Posteriors, State, softmax
from sentemb.maths.inner_products import unit
from sentemb.maths.neighbours import top
from sentemb.parts import Count, Positive
from sentemb.types import Vectors


@dataclass(frozen=True, kw_only=True)
class NearestNeighbours(ClassifierMethod):
    """The label that most of the k nearest examples have, by cosine; equal counts are decided by the summed cosine.

    A saved classifier keeps its examples in a search index: ``sentemb index upsert CLASSIFIER/index more.jsonl`` adds
    some, also of new labels, without fitting.

    Args:
        k: neighbours that vote.

    Source: the inference of DeTeCtive (the heyongxin233/DeTeCtive repository).
    Deviations: k is given, where DeTeCtive tries several; ties go by similarity, where there they go to one class.
    """

    k: Count = 5

    def fit(self, data: LabelledVectors, encode: Encode) -> State:
        return {"vectors": unit(data.vectors), "targets": data.targets, "labels": np.array([len(data.labels)])}

    def posteriors(self, state: State, texts: Sequence[str], vectors: Vectors) -> Posteriors:
        hits = top(vectors, np.asarray(state["vectors"], dtype=np.float32), self.k, metric="cosine")
        return self.votes(state["targets"][hits.ids].astype(np.int64), hits.scores, int(state["labels"][0]))

    def votes(self, targets: NDArray[np.int64], scores: NDArray[np.float32], labels: int) -> Posteriors:
        """Shares of the votes of every text's neighbours (texts, k); -1 is no neighbour."""
        # a summed cosine below 1/10 of a vote decides between equal counts only
        votes = np.zeros((len(targets), labels + 1))
        weights = np.where(targets >= 0, 1 + scores.astype(np.float64) / (10 * self.k), 0.0)
        np.add.at(votes, (np.arange(len(targets))[:, None], targets), weights)
        shares: Posteriors = votes[:, :labels] / votes[:, :labels].sum(axis=1, keepdims=True)
        return shares


@dataclass(frozen=True, kw_only=True)
class Prototypes(ClassifierMethod):
    """The label whose mean vector is nearest by cosine. Examples may also be descriptions of the labels.

        P(label | v) = softmax over labels of cos(v, mean of the label's unit vectors) / τ

    Args:
        temperature: τ; it changes probabilities, not which label is best.

    Source: the mean classifier of Arora et al.'s theory of contrastive learning.
    Deviations: cosine, where the theory has inner products.
    """

    temperature: Positive = 0.05

    def fit(self, data: LabelledVectors, encode: Encode) -> State:
        vectors = unit(data.vectors)
        means = [vectors[data.targets == label].mean(axis=0) for label in range(len(data.labels))]
        return {"prototypes": unit(np.stack(means))}

    def posteriors(self, state: State, texts: Sequence[str], vectors: Vectors) -> Posteriors:
        return softmax(unit(vectors) @ state["prototypes"].T / self.temperature)


@dataclass(frozen=True, kw_only=True)
class LabelTexts(ClassifierMethod):
    """The label whose own name, read as a text, is nearest by cosine: the examples' texts are not used (zero-shot).

        P(label | v) = softmax over labels of cos(v, vector of the label's text) / τ

    Args:
        template: the text of a label; underscores of its name become spaces.
        temperature: τ; it changes probabilities, not which label is best.

    Source: the assignment of a label by the similarity of text and label text (TTP, abstract).
    Deviations: nothing is learned.
    """

    template: str = "{label}"
    temperature: Positive = 0.05

    def __post_init__(self) -> None:
        if "{label}" not in self.template:
            raise ValueError(f'template = "{self.template}": it must contain {{label}}')

    def fit(self, data: LabelledVectors, encode: Encode) -> State:
        texts = [self.template.replace("{label}", label.replace("_", " ")) for label in data.labels]
        return {"prototypes": unit(encode(texts))}

    def posteriors(self, state: State, texts: Sequence[str], vectors: Vectors) -> Posteriors:
        return softmax(unit(vectors) @ state["prototypes"].T / self.temperature)
