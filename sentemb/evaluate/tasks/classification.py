"""Classification of frozen embeddings: a linear classifier, a few examples a label, or nearest neighbours.

* ``logistic``: SentEval's protocol: logistic regression on frozen embeddings, the strength of its L2 penalty chosen on
  held-out training data; a test split where there is one, else 10-fold cross-validation.
  Source: Conneau & Kiela 2018, LREC. Deviation: scikit-learn's solver in place of their torch optimiser.
* ``fewshot``: MTEB's protocol: logistic regression (100 iterations) on 8 texts a label, 10 draws, mean accuracy.
  Source: Muennighoff et al. 2023, EACL, section 3.2.
* ``knn``: majority of the 5 nearest training texts by cosine, ties broken by the summed cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from sentemb.classify.linear import Logistic
from sentemb.classify.method import ClassifierMethod, LabelledVectors
from sentemb.classify.nearest import NearestNeighbours
from sentemb.classify.text_classifier import TextClassifier
from sentemb.errors import EvaluationError
from sentemb.evaluate.groups import scores_by_group
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.reading import LabelledTexts, read_rows, read_splits
from sentemb.evaluate.results import Items, TaskResult, fingerprint
from sentemb.evaluate.task import EvalSetup, Task, Texts
from sentemb.types import Vectors

FOLDS = 10
NEIGHBOURS = 5
DRAWS = 10
SAMPLES_PER_LABEL = 8

Labels = NDArray[Any]
Splits = tuple[LabelledTexts, LabelledTexts | None]


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """Accuracy, or macro F1, of a classifier on frozen embeddings of labelled texts.

    Args:
        path: a file with the columns text and label (10-fold cross-validation), or a folder with train and test.
        method: ``logistic`` (SentEval), ``fewshot`` (MTEB) or ``knn``.
        metric: the main score.
        by: also the accuracy by group, with the worst group and the gap: the name of a column of the file, or of the
            test split; not for ``fewshot``, which predicts every text several times.
    """

    task_type: ClassVar[str] = "Classification"
    packages: ClassVar[tuple[str, ...]] = ("sklearn",)

    path: str
    method: Literal["logistic", "fewshot", "knn"] = "logistic"
    metric: Literal["accuracy", "f1_macro"] = "accuracy"
    by: str = ""

    def __post_init__(self) -> None:
        if self.by and self.method == "fewshot":
            raise ValueError(f'by = "{self.by}": scores by group need method = "logistic" or "knn"')

    def missing(self, setup: EvalSetup) -> list[str]:
        check_splits(setup.data.path(self.path))
        return []

    def load(self, setup: EvalSetup) -> Splits:
        train, test = read_splits(setup.data.path(self.path), by=self.by)
        check_labels(train, test)
        if test is None and self.method == "fewshot":
            raise EvaluationError(f"{train.source}: the few-shot protocol needs a train and a test split")
        return train, test

    def texts(self, data: Splits) -> Sequence[Texts]:
        train, test = data
        return [Texts(texts=[*train.texts, *(test.texts if test else ())])]

    def run(self, data: Splits, model: EvalModel, setup: EvalSetup) -> TaskResult:
        train, test = data
        vectors = self.encode(model, [*train.texts, *(test.texts if test else ())])
        x, y = vectors[: len(train)], np.array(train.labels)
        scored = test or train
        note, interval, items = "", None, None
        if self.method == "fewshot":
            assert test is not None
            draws = few_shot(x, y, vectors[len(train) :], np.array(test.labels), setup.seed)
            metrics = {name: 100 * float(scores.mean()) for name, scores in draws.items()}
            metrics["accuracy_sd"] = 100 * float(draws["accuracy"].std(ddof=1))
            protocol = f"{SAMPLES_PER_LABEL} a label, {DRAWS} draws"
            note = f"interval over the repetitions ({protocol}), not over its texts"
            interval = setup.interval_of_runs(draws[self.metric])
        else:
            linear = Logistic(c="held_out", seed=setup.seed)
            method: ClassifierMethod = linear if self.method == "logistic" else NearestNeighbours(k=NEIGHBOURS)
            if test is not None:
                predicted, protocol = predictions_of(method, x, y, vectors[len(train) :]), "train/test"
            else:
                predicted, protocol = cross_validated(x, y, method, setup.seed), f"{FOLDS}-fold"
            right, metrics = scores_of(scored.labels, predicted)
            if self.by:
                metrics |= scores_by_group(scored.group, self.by, lambda rows: 100 * float(right[rows].mean()))
            note = "no interval: macro F1 is not resampled"
            if self.metric == "accuracy":
                items = Items(fingerprint=fingerprint(scored.texts, scored.labels), values=right.tolist())
        return self.result(
            setup, metric=self.metric, metrics=metrics, protocol=f"{self.method} ({protocol})", items=items,
            count=len(scored), split="test", interval=interval, interval_note=note,
        )  # fmt: skip


def check_splits(path: Path) -> None:
    """Whether a folder has a train and a test split; a file needs none.

    Raises: DataError: it lacks one.
    """
    for split in ("train", "test") if path.is_dir() else ():
        next(read_rows(path, split), None)


def check_labels(train: LabelledTexts, test: LabelledTexts | None = None) -> None:
    """Whether there is something to tell apart.

    Raises: EvaluationError: fewer than two labels, or a test label that training lacks.
    """
    known = set(train.labels)
    if len(known) < 2:
        raise EvaluationError(f"{train.source}: only the label {train.labels[0]!r}; at least two are needed")
    unknown = sorted(set(test.labels) - known) if test is not None else []
    if test is not None and unknown:
        raise EvaluationError(f"{test.source}: labels that training lacks: {', '.join(unknown[:10])}")


def score_classifier(classifier: TextClassifier, data: LabelledTexts, setup: EvalSetup) -> TaskResult:
    """Accuracy, with its interval, and macro F1 of a fitted classifier on labelled texts."""
    start = perf_counter()
    predicted = classifier.predict(data.texts).labels
    right, metrics = scores_of(data.labels, np.array(predicted))
    result = Classification(path=data.source or "texts").result(
        setup, metric="accuracy", metrics=metrics, protocol=f"classifier ({type(classifier.method).__name__})",
        items=Items(fingerprint=fingerprint(data.texts, data.labels), values=right.tolist()), count=len(data),
    )  # fmt: skip
    known = {*classifier.labels, *predicted}
    unknown = sorted(set(data.labels) - known)
    notes = f"labels that the classifier does not know, whose texts count as wrong: {', '.join(unknown[:10])}"
    return replace(result, seconds=perf_counter() - start, notes=notes if unknown else "")


def scores_of(gold: Sequence[str], predicted: Labels) -> tuple[NDArray[np.float64], dict[str, float]]:
    """Whether every prediction is right (1 or 0), and accuracy and macro F1 ×100."""
    from sklearn.metrics import f1_score

    right = (np.asarray(predicted) == np.asarray(gold)).astype(np.float64)
    f1 = float(f1_score(gold, predicted, average="macro", zero_division=0))
    return right, {"accuracy": 100 * float(right.mean()), "f1_macro": 100 * f1}


def predictions_of(method: ClassifierMethod, x: Vectors, y: Labels, x_test: Vectors) -> Labels:
    """The labels that a method that reads vectors alone gives."""
    labels, targets = np.unique(y, return_inverse=True)
    data = LabelledVectors(texts=[""] * len(x), vectors=x, targets=targets, labels=labels.tolist())
    state = method.fit(data, lambda texts: x[:0])
    return np.asarray(labels[method.posteriors(state, [""] * len(x_test), x_test).argmax(axis=1)])


def cross_validated(x: Vectors, y: Labels, method: ClassifierMethod, seed: int) -> Labels:
    """A prediction for every text by a classifier that has not seen it, over ``FOLDS`` stratified folds.

    Raises: EvaluationError: a label has a single text.
    """
    from sklearn.model_selection import StratifiedKFold

    folds = min(FOLDS, int(np.unique(y, return_counts=True)[1].min()))
    if folds < 2:
        raise EvaluationError("a label has a single text, so it cannot be in training and test; give a test split")
    predicted = np.empty_like(y)
    for fit, held_out in StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y):
        predicted[held_out] = predictions_of(method, x[fit], y[fit], x[held_out])
    return predicted


def few_shot(x: Vectors, y: Labels, x_test: Vectors, y_test: Labels, seed: int) -> dict[str, NDArray[np.float64]]:
    """The accuracy and the macro F1 of every draw."""
    from sklearn.metrics import f1_score

    accuracies, f1 = [], []
    for draw in range(DRAWS):
        order = np.random.default_rng([seed, draw]).permutation(len(y))
        chosen = np.concatenate([order[y[order] == label][:SAMPLES_PER_LABEL] for label in np.unique(y)])
        predicted = predictions_of(Logistic(iterations=100, seed=seed), x[chosen], y[chosen], x_test)
        accuracies.append(float(np.mean(predicted == y_test)))
        f1.append(f1_score(y_test, predicted, average="macro", zero_division=0))
    return {"accuracy": np.array(accuracies), "f1_macro": np.array(f1)}
