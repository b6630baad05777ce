"""Logistic regression, on vectors and on frequencies of words."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sentemb.classify.method import ClassifierMethod, Encode, LabelledVectors, Posteriors, State, softmax
from sentemb.errors import DataError, needs_extra
from sentemb.parts import Count, Positive, Whole
from sentemb.types import Vectors

PENALTIES = tuple(2.0**power for power in range(-2, 6))  # values of C that are tried on held-out examples


@dataclass(frozen=True, kw_only=True)
class Logistic(ClassifierMethod):
    """Logistic regression on the vectors.

        P(label | v) = softmax(W v + b),   W, b = argmin Σ -log P + ‖W‖² / 2C

    Args:
        c: C, how little large weights cost; ``held_out``: the best of 1/4, 1/2 … 32 on a tenth of the examples.
        iterations: of the solver, at most.
        seed: of what is held out.

    Source: SetFit's classification head (the huggingface/setfit repository); with ``held_out`` Conneau & Kiela 2018,
        LREC (SentEval).
    Deviations: scikit-learn's solver.
    """

    c: Positive | Literal["held_out"] = 1.0
    iterations: Count = 1000
    seed: Whole = 42

    def fit(self, data: LabelledVectors, encode: Encode) -> State:
        c = best_c(data, self.seed) if self.c == "held_out" else self.c
        return linear_state(data.vectors, data.targets, c=c, iterations=self.iterations, seed=self.seed)

    def posteriors(self, state: State, texts: Sequence[str], vectors: Vectors) -> Posteriors:
        return softmax(vectors @ state["weights"].T + state["bias"])


@dataclass(frozen=True, kw_only=True)
class WordFrequencies(ClassifierMethod):
    """Logistic regression on TF-IDF weights of the words; the encoder plays no part.

    Args:
        c: how little large weights cost.

    Source: the word view of gFun (the andreapdr/gFun repository).
    Deviations: logistic regression in place of a support vector machine.
    """

    c: Positive = 1.0

    def fit(self, data: LabelledVectors, encode: Encode) -> State:
        words = self._words()
        try:
            weights = words.fit_transform(data.texts)
        except ValueError:
            raise DataError("tfidf: the examples have no words of two letters or more") from None
        vocabulary = json.dumps(words.get_feature_names_out().tolist(), ensure_ascii=False).encode()
        return {"vocabulary": np.frombuffer(vocabulary, dtype=np.uint8), "idf": words.idf_,
                **linear_state(weights, data.targets, c=self.c, iterations=1000, seed=0)}

    def posteriors(self, state: State, texts: Sequence[str], vectors: Vectors) -> Posteriors:
        words = self._words(json.loads(state["vocabulary"].tobytes()))
        words.idf_ = state["idf"]
        return softmax(words.transform(texts) @ state["weights"].T + state["bias"])

    def _words(self, vocabulary: list[str] | None = None) -> Any:
        needs_extra("sklearn", "eval")
        from sklearn.feature_extraction.text import TfidfVectorizer

        return TfidfVectorizer(vocabulary=vocabulary, sublinear_tf=True)


def linear_state(x: Any, y: Any, *, c: float, iterations: int, seed: int) -> dict[str, Any]:
    """Weights (labels, d) and biases (labels,) of a logistic regression."""
    fitted = _fitted(x, y, c=c, iterations=iterations, seed=seed)
    weights, bias = fitted.coef_, fitted.intercept_
    if len(weights) == 1:  # of two labels, scikit-learn keeps the second one's row
        weights, bias = (np.concatenate([np.zeros_like(one), one]) for one in (weights, bias))
    return {"weights": weights, "bias": bias}


def best_c(data: LabelledVectors, seed: int) -> float:
    """The C that is best on a tenth of the examples."""
    needs_extra("sklearn", "eval")
    from sklearn.model_selection import train_test_split

    x, y = data.vectors, data.targets
    counts = np.unique(y, return_counts=True)[1]
    stratify = y if counts.min() >= 2 and len(y) // 10 >= len(counts) else None
    x_fit, x_dev, y_fit, y_dev = train_test_split(x, y, test_size=0.1, random_state=seed, stratify=stratify)
    if len(np.unique(y_fit)) < 2:
        return PENALTIES[len(PENALTIES) // 2]
    fits = [_fitted(x_fit, y_fit, c=c, iterations=200, seed=seed) for c in PENALTIES]
    return PENALTIES[int(np.argmax([np.mean(fit.predict(x_dev) == y_dev) for fit in fits]))]


def _fitted(x: Any, y: Any, *, c: float, iterations: int, seed: int) -> Any:
    needs_extra("sklearn", "eval")
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a cut-off fit is part of the protocols that use it
        return LogisticRegression(C=c, max_iter=iterations, random_state=seed).fit(x, y)
