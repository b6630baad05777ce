"""Whether the right label is among a few labelled examples that are retrieved for a text, as prompts show them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import comb
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import EvaluationError
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.reading import LabelledTexts, read_labelled
from sentemb.evaluate.results import Items, TaskResult, fingerprint
from sentemb.evaluate.task import EvalSetup, Task, Texts
from sentemb.evaluate.tasks.classification import check_labels, check_splits
from sentemb.maths.inner_products import unit
from sentemb.maths.neighbours import top
from sentemb.parts import Count
from sentemb.types import Vectors

POOL = 100  # nearest examples among which labels are covered

Splits = tuple[LabelledTexts, LabelledTexts]


@dataclass(frozen=True, kw_only=True)
class Demonstrations(Task):
    """Coverage@k: the share of test texts whose label is among the labels of k retrieved training texts.

    The k texts are those of ``sentemb search --cover label``: the nearest one of every label before a second of any,
    out of the 100 nearest. Beside it stand the k nearest texts as they are, and k texts at random.

    Args:
        path: a folder with train and test, of the columns text and label.
        k: how many training texts are retrieved for a text; one with the same text is never among them.

    Source: the abstract of meta-training with retrieved demonstrations (labelled examples similar to the text).
    Deviations: no language model reads them; covering labels is ours.
    """

    task_type: ClassVar[str] = "Demonstrations"

    path: str
    k: Count = 8

    def missing(self, setup: EvalSetup) -> list[str]:
        check_splits(setup.data.path(self.path))
        return []

    def load(self, setup: EvalSetup) -> Splits:
        path = setup.data.path(self.path)
        if not path.is_dir():
            raise EvaluationError(f"{path}: a folder with train and test is needed")
        train, test = read_labelled(path, "train"), read_labelled(path, "test")
        check_labels(train, test)
        if self.k >= len(train):
            raise EvaluationError(f"{train.source}: {len(train):,} training texts; k = {self.k} must be fewer")
        return train, test

    def texts(self, data: Splits) -> Sequence[Texts]:
        return [Texts(texts=[*data[0].texts, *data[1].texts])]

    def run(self, data: Splits, model: EvalModel, setup: EvalSetup) -> TaskResult:
        train, test = data
        vectors = unit(self.encode(model, [*train.texts, *test.texts]))
        labels, of = np.unique([*train.labels, *test.labels], return_inverse=True)
        gold = of[len(train) :]
        right = {name: np.zeros((len(test), self.k), dtype=bool) for name in ("nearest", "")}
        for row, both in enumerate(retrieved(vectors, of, train, test, self.k)):
            for is_right, ids in zip(right.values(), both, strict=True):
                is_right[row, : len(ids)] = of[ids] == gold[row]
        metrics = {
            f"{name} coverage@{k}".strip(): 100 * float(is_right[:, :k].any(axis=1).mean())
            for name, is_right in right.items() for k in sorted({1, 2, 4, self.k} & set(range(1, self.k + 1)))
        }  # fmt: skip
        counts = np.bincount(of[: len(train)], minlength=len(labels))
        chance = [1 - comb(len(train) - int(count), self.k) / comb(len(train), self.k) for count in counts[gold]]
        metric = f"coverage@{self.k}"
        covered: list[float] = np.any(right[""], axis=1).astype(np.float64).tolist()
        items = Items(fingerprint=fingerprint(test.texts, test.labels), values=covered)
        result = self.result(setup, metric=metric, metrics=metrics, protocol="own label among k", items=items)
        baselines = {"k nearest": metrics[f"nearest {metric}"], "k at random": 100 * float(np.mean(chance))}
        return replace(result, baselines=baselines)


def retrieved(
    vectors: Vectors, of: NDArray[np.int64], train: LabelledTexts, test: LabelledTexts, k: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For every test text the k nearest training texts, and the k that cover labels; none of them has its text."""
    from sentemb.search.query.diversity import marginal

    hits = top(vectors[len(train) :], vectors[: len(train)], min(max(POOL, k) + 1, len(train)))
    for text, ids, scores in zip(test.texts, hits.ids, hits.scores, strict=True):
        others = np.array([train.texts[row] != text for row in ids.tolist()])
        ids, scores = ids[others], scores[others]
        yield ids[:k], ids[marginal(scores, vectors[ids], k, 1.0, of[ids].tolist())]
