"""Transfer of frozen embeddings to labelled texts: a linear classifier, nearest neighbours, clustering.

* ``logistic``: SentEval's protocol: logistic regression on frozen embeddings, the strength of its L2 penalty chosen on
  held-out training data; a test split where there is one, else 10-fold cross-validation.
  Source: Conneau & Kiela 2018, LREC. Deviation: scikit-learn's solver in place of their torch optimiser.
* ``fewshot``: MTEB's protocol: logistic regression (100 iterations) on 8 texts a label, 10 draws, mean accuracy.
  Source: Muennighoff et al. 2023, EACL, section 3.2.
* ``knn``: majority of the k nearest training texts by cosine, ties broken by the summed cosine.
* ``clustering``: k-means with as many clusters as labels, v-measure, mean over seeds.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import EvaluationError, did_you_mean
from sentemb.evaluate.labelled import LabelledTexts
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.prompts import prompt_for
from sentemb.maths.neighbours import top

Method = Literal["logistic", "fewshot", "knn", "clustering"]
METHODS: tuple[Method, ...] = get_args(Method)

PENALTIES = tuple(2.0**power for power in range(-2, 6))  # C of the logistic regression
FOLDS = 10
NEIGHBOURS = 5
DRAWS = 10
SAMPLES_PER_LABEL = 8
CLUSTER_SEEDS = 5

Vectors = NDArray[np.float32]
Labels = NDArray[Any]


@dataclass(frozen=True)
class TransferScore:
    """Scores ×100; ``values`` holds what the main score averages: right or wrong a test text, or a value a draw."""

    name: str
    method: Method
    protocol: str
    metric: str
    main: float
    metrics: Mapping[str, float]
    values: NDArray[np.float64] = field(repr=False)
    per_text: bool = True  # whether values align with the test texts, so that two models can be paired


def evaluate_transfer(
    model: EvalModel,
    train: LabelledTexts,
    test: LabelledTexts | None,
    method: str = "logistic",
    *,
    seed: int = 42,
) -> TransferScore:
    """Score frozen embeddings on labelled texts; train and test are encoded in one deduplicated pass.

    Args:
        model: What ``open_model`` gave.
        train: Texts to learn from (for ``clustering``: to cluster).
        test: Texts to score; None: 10-fold cross-validation over ``train``.
        method: One of ``METHODS``.
        seed: Of folds, draws and k-means.

    Raises:
        EvaluationError: Fewer than two labels, a label unknown to training, or too few texts.
    """
    if method not in METHODS:
        raise EvaluationError(f'no transfer method "{method}"{did_you_mean(method, METHODS)}')
    _check_labels(train, test)
    kind = "Clustering" if method == "clustering" else "Classification"
    prompt = prompt_for(model.prompts, task=train.name, task_type=kind)
    vectors = model.encode([*train.texts, *(test.texts if test else [])], prompt=prompt)
    x, y = vectors[: len(train)], np.array(train.labels)
    x_test = vectors[len(train) :] if test else None
    y_test = np.array(test.labels) if test else None
    if method == "clustering":
        return _clustering(train.name, x if x_test is None else x_test, y if y_test is None else y_test, seed)
    if method == "fewshot":
        if x_test is None or y_test is None:
            raise EvaluationError(f"{train.source}: the few-shot protocol needs a train and a test split")
        return _few_shot(train.name, x, y, x_test, y_test, seed)
    return _classify(train.name, x, y, x_test, y_test, method, seed)


def _check_labels(train: LabelledTexts, test: LabelledTexts | None) -> None:
    if len(train.classes) < 2:
        raise EvaluationError(f"{train.source}: only the label {train.classes[0]!r}; at least two are needed")
    unknown = sorted(set(test.classes) - set(train.classes)) if test else []
    if unknown:
        raise EvaluationError(f"{test.source if test else ''}: labels that training lacks: {', '.join(unknown[:10])}")


def _classify(
    name: str, x: Vectors, y: Labels, x_test: Vectors | None, y_test: Labels | None, method: Method, seed: int
) -> TransferScore:
    predict = _logistic if method == "logistic" else _nearest
    if x_test is not None and y_test is not None:
        predicted, gold, protocol = predict(x, y, x_test, seed), y_test, "train/test"
    else:
        predicted, gold, protocol = _cross_validated(x, y, predict, seed), y, f"{FOLDS}-fold"
    right = (predicted == gold).astype(np.float64)
    metrics = {"accuracy": 100 * float(right.mean()), "f1_macro": 100 * _macro_f1(predicted, gold)}
    return TransferScore(name, method, protocol, "accuracy", metrics["accuracy"], metrics, right)


def _cross_validated(x: Vectors, y: Labels, predict: Any, seed: int) -> Labels:
    from sklearn.model_selection import StratifiedKFold

    folds = min(FOLDS, int(np.unique(y, return_counts=True)[1].min()))
    if folds < 2:
        raise EvaluationError("a label has a single text, so it cannot be in training and test; give a test split")
    predicted = np.empty_like(y)
    for fit, held_out in StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y):
        predicted[held_out] = predict(x[fit], y[fit], x[held_out], seed)
    return predicted


def _logistic(x: Vectors, y: Labels, x_test: Vectors, seed: int) -> Labels:
    """Logistic regression; its penalty is chosen on a tenth of the training data, then refitted on all."""
    from sklearn.model_selection import train_test_split

    smallest = int(np.unique(y, return_counts=True)[1].min())
    classes = len(np.unique(y))
    stratify = y if smallest >= 2 and len(y) // 10 >= classes else None
    x_fit, x_dev, y_fit, y_dev = train_test_split(x, y, test_size=0.1, random_state=seed, stratify=stratify)
    best = PENALTIES[len(PENALTIES) // 2]
    if len(np.unique(y_fit)) > 1:
        accuracies = [np.mean(_fitted(x_fit, y_fit, c, 200, seed).predict(x_dev) == y_dev) for c in PENALTIES]
        best = PENALTIES[int(np.argmax(accuracies))]
    return np.asarray(_fitted(x, y, best, 1000, seed).predict(x_test))


def _fitted(x: Vectors, y: Labels, penalty: float, iterations: int, seed: int) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a cut-off fit is part of both protocols
        return LogisticRegression(C=penalty, max_iter=iterations, random_state=seed).fit(x, y)


def _nearest(x: Vectors, y: Labels, x_test: Vectors, seed: int) -> Labels:
    hits = top(x_test, x, NEIGHBOURS, metric="cosine")
    classes, index = np.unique(y, return_inverse=True)
    votes = np.zeros((len(x_test), len(classes)))
    rows = np.arange(len(x_test))[:, None]
    # a summed cosine below 1/10 of a vote decides between equal counts only
    np.add.at(votes, (rows, index[hits.ids]), 1 + hits.scores / (10 * NEIGHBOURS))
    return np.asarray(classes[votes.argmax(axis=1)])


def _few_shot(name: str, x: Vectors, y: Labels, x_test: Vectors, y_test: Labels, seed: int) -> TransferScore:
    order = np.arange(len(y))
    accuracies = []
    f1 = []
    for draw in range(DRAWS):
        order = np.random.default_rng([seed, draw]).permutation(len(y))
        chosen = np.concatenate([order[y[order] == label][:SAMPLES_PER_LABEL] for label in np.unique(y)])
        predicted = _fitted(x[chosen], y[chosen], 1.0, 100, seed).predict(x_test)
        accuracies.append(float(np.mean(predicted == y_test)))
        f1.append(_macro_f1(predicted, y_test))
    metrics = {
        "accuracy": 100 * float(np.mean(accuracies)),
        "accuracy_sd": 100 * float(np.std(accuracies, ddof=1)),
        "f1_macro": 100 * float(np.mean(f1)),
    }
    return TransferScore(
        name,
        "fewshot",
        f"{SAMPLES_PER_LABEL} a label, {DRAWS} draws",
        "accuracy",
        metrics["accuracy"],
        metrics,
        np.array(accuracies),
        per_text=False,
    )


def _macro_f1(predicted: Labels, gold: Labels) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(gold, predicted, average="macro", zero_division=0))


def _clustering(name: str, x: Vectors, y: Labels, seed: int) -> TransferScore:
    from sklearn.cluster import KMeans
    from sklearn.metrics import v_measure_score

    clusters = len(np.unique(y))
    if len(x) < clusters:
        raise EvaluationError(f"{len(x)} texts cannot form {clusters} clusters")
    scores = np.array(
        [
            v_measure_score(y, KMeans(clusters, n_init=1, random_state=seed + run).fit_predict(x))
            for run in range(CLUSTER_SEEDS)
        ]
    )
    metrics = {"v_measure": 100 * float(scores.mean()), "v_measure_sd": 100 * float(scores.std(ddof=1))}
    return TransferScore(
        name,
        "clustering",
        f"k-means, {CLUSTER_SEEDS} seeds",
        "v_measure",
        metrics["v_measure"],
        metrics,
        scores,
        per_text=False,
    )
