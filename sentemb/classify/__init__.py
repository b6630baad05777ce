"""Classifiers of texts on a frozen encoder's vectors, for few labelled examples."""

from __future__ import annotations

from sentemb.classify.funnel import Funnel
from sentemb.classify.linear import Logistic, WordFrequencies
from sentemb.classify.method import ClassifierMethod, LabelledVectors
from sentemb.classify.nearest import LabelTexts, NearestNeighbours, Prototypes
from sentemb.classify.text_classifier import Predictions, TextClassifier

PARTS: dict[str, type[ClassifierMethod]] = {
    "funnel": Funnel, "knn": NearestNeighbours, "label_texts": LabelTexts, "logistic": Logistic,
    "prototypes": Prototypes, "tfidf": WordFrequencies,
}  # fmt: skip

__all__ = [
    "PARTS", "ClassifierMethod", "Funnel", "LabelTexts", "LabelledVectors", "Logistic", "NearestNeighbours",
    "Predictions", "Prototypes", "TextClassifier", "WordFrequencies",
]  # fmt: skip
