"""Classification of frozen embeddings: a linear classifier, a few examples a label, or nearest neighbours.

* ``logistic``: SentEval's protocol: logistic regression on frozen embeddings, the strength of its L2 penalty chosen on
  held-out training data; a test split where there is one, else 10-fold cross-validation.
  Source: Conneau & Kiela 2018, LREC. Deviation: scikit-learn's solver in place of their torch optimiser.
* ``fewshot``: MTEB's protocol: logistic regression (100 iterations) on 8 texts a label, 10 draws, mean accuracy.
  Source: Muennighoff et al. 2023, EACL, section 3.2.
* ``knn``: majority of the 5 nearest training texts by cosine, ties broken by the summed cosine.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import EvaluationError
from sentemb.evaluate.groups import scores_by_group
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.reading import LabelledTexts, read_rows, read_splits
from sentemb.evaluate.results import Items, TaskResult, fingerprint
from sentemb.evaluate.task import EvalSetup, Task, Texts
from sentemb.maths.neighbours import top
from sentemb.types import Vectors

PENALTIES = tuple(2.0**power for power in range(-2, 6))  # C of the logistic regression
FOLDS = 10
NEIGHBOURS = 5
DRAWS = 10
SAMPLES_PER_LABEL = 8

Labels = NDArray[Any]
Splits = tuple[LabelledTexts, LabelledTexts | None]
Predict = Callable[[Vectors, Labels, Vectors, int], Labels]


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
        from sklearn.metrics import f1_score

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
            predict = predict_logistic if self.method == "logistic" else predict_nearest
            if test is not None:
                predicted, protocol = predict(x, y, vectors[len(train) :], setup.seed), "train/test"
            else:
                predicted, protocol = cross_validated(x, y, predict, setup.seed), f"{FOLDS}-fold"
            gold = np.array(scored.labels)
            right = (predicted == gold).astype(np.float64)
            f1 = float(f1_score(gold, predicted, average="macro", zero_division=0))
            metrics = {"accuracy": 100 * float(right.mean()), "f1_macro": 100 * f1}
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


def cross_validated(x: Vectors, y: Labels, predict: Predict, seed: int) -> Labels:
    """A prediction for every text by a classifier that has not seen it, over ``FOLDS`` stratified folds.

    Raises: EvaluationError: a label has a single text.
    """
    from sklearn.model_selection import StratifiedKFold

    folds = min(FOLDS, int(np.unique(y, return_counts=True)[1].min()))
    if folds < 2:
        raise EvaluationError("a label has a single text, so it cannot be in training and test; give a test split")
    predicted = np.empty_like(y)
    for fit, held_out in StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y):
        predicted[held_out] = predict(x[fit], y[fit], x[held_out], seed)
    return predicted


def predict_logistic(x: Vectors, y: Labels, x_test: Vectors, seed: int) -> Labels:
    """Logistic regression; its penalty is chosen on a tenth of the training data, then refitted on all."""
    from sklearn.model_selection import train_test_split

    counts = np.unique(y, return_counts=True)[1]
    stratify = y if counts.min() >= 2 and len(y) // 10 >= len(counts) else None
    x_fit, x_dev, y_fit, y_dev = train_test_split(x, y, test_size=0.1, random_state=seed, stratify=stratify)
    best = PENALTIES[len(PENALTIES) // 2]
    if len(np.unique(y_fit)) > 1:
        fits = [_fitted(x_fit, y_fit, penalty=c, iterations=200, seed=seed) for c in PENALTIES]
        best = PENALTIES[int(np.argmax([np.mean(fit.predict(x_dev) == y_dev) for fit in fits]))]
    return np.asarray(_fitted(x, y, penalty=best, iterations=1000, seed=seed).predict(x_test))


def predict_nearest(x: Vectors, y: Labels, x_test: Vectors, seed: int) -> Labels:
    """The majority label of the ``NEIGHBOURS`` nearest texts."""
    hits = top(x_test, x, NEIGHBOURS, metric="cosine")
    classes, index = np.unique(y, return_inverse=True)
    votes = np.zeros((len(x_test), len(classes)))
    rows = np.arange(len(x_test))[:, None]
    # a summed cosine below 1/10 of a vote decides between equal counts only
    np.add.at(votes, (rows, index[hits.ids]), 1 + hits.scores / (10 * NEIGHBOURS))
    return np.asarray(classes[votes.argmax(axis=1)])


def few_shot(x: Vectors, y: Labels, x_test: Vectors, y_test: Labels, seed: int) -> dict[str, NDArray[np.float64]]:
    """The accuracy and the macro F1 of every draw."""
    from sklearn.metrics import f1_score

    accuracies, f1 = [], []
    for draw in range(DRAWS):
        order = np.random.default_rng([seed, draw]).permutation(len(y))
        chosen = np.concatenate([order[y[order] == label][:SAMPLES_PER_LABEL] for label in np.unique(y)])
        predicted = _fitted(x[chosen], y[chosen], penalty=1.0, iterations=100, seed=seed).predict(x_test)
        accuracies.append(float(np.mean(predicted == y_test)))
        f1.append(f1_score(y_test, predicted, average="macro", zero_division=0))
    return {"accuracy": np.array(accuracies), "f1_macro": np.array(f1)}


def _fitted(x: Vectors, y: Labels, *, penalty: float, iterations: int, seed: int) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a cut-off fit is part of both protocols
        return LogisticRegression(C=penalty, max_iter=iterations, random_state=seed).fit(x, y)
