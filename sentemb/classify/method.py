"""What a classification method is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.parts import Part
from sentemb.types import Vectors

State = Mapping[str, NDArray[Any]]  # what fitting found, as safetensors can hold it
Posteriors = NDArray[np.float64]  # (texts, labels); rows sum to 1
Encode = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True, kw_only=True)
class LabelledVectors:
    """Examples with their vectors; every one of ``labels`` has some."""

    texts: Sequence[str]
    vectors: Vectors  # (texts, d)
    targets: NDArray[np.int64]  # (texts,) positions in ``labels``
    labels: Sequence[str]

    def take(self, rows: NDArray[np.int64]) -> LabelledVectors:
        """Some of the examples."""
        texts = [self.texts[row] for row in rows.tolist()]
        return LabelledVectors(texts=texts, vectors=self.vectors[rows], targets=self.targets[rows], labels=self.labels)


@dataclass(frozen=True, kw_only=True)
class ClassifierMethod(Part, room="classifiers"):
    """Base of the methods. A method is settings alone; what fitting found is a ``State`` of its own.

    Attributes:
        least: examples that every label needs.
    """

    least = 1

    def fit(self, data: LabelledVectors, encode: Encode) -> State:
        """What the examples say; ``encode`` is there for further texts, such as the labels' own."""
        raise NotImplementedError

    def posteriors(self, state: State, texts: Sequence[str], vectors: Vectors) -> Posteriors:
        """The probability of every label for every text."""
        raise NotImplementedError


def softmax(logits: NDArray[np.floating]) -> Posteriors:
    """Rows of probabilities."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: Posteriors = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
