"""Pairs that are duplicates (paraphrases) or not: how well a similarity tells the two kinds apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from sentemb.errors import EvaluationError
from sentemb.evaluate.metrics import PairSimilarity, pair_similarities
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.reading import PairSet, read_pairs
from sentemb.evaluate.results import Items, TaskResult, fingerprint
from sentemb.evaluate.significance import Values, score_of_items
from sentemb.evaluate.task import EvalSetup, Task, Texts


@dataclass(frozen=True, kw_only=True)
class Pairs(Task):
    """Average precision of duplicate pairs ranked by similarity; accuracy and F1 at the best threshold.

    Args:
        path: a file with the columns sentence1, sentence2 and label (1: duplicates, 0: not).
        similarity: by which pairs are ranked.
        metric: the main score.

    Source: Muennighoff et al. 2023, EACL, section 3.2 (PairClassification).
    Deviations: one similarity is chosen beforehand instead of the best of four afterwards.
    """

    task_type: ClassVar[str] = "PairClassification"
    packages: ClassVar[tuple[str, ...]] = ("scipy",)

    path: str
    similarity: PairSimilarity = "cosine"
    metric: Literal["average_precision", "accuracy", "f1"] = "average_precision"

    def load(self, setup: EvalSetup) -> PairSet:
        pairs = read_pairs(setup.data.path(self.path), score="label")
        if set(np.unique(pairs.score)) != {0.0, 1.0}:
            raise EvaluationError(f"{pairs.source}: labels 0 and 1 are needed, both of them")
        return pairs

    def texts(self, data: PairSet) -> Sequence[Texts]:
        return [Texts(texts=[*data.sentence1, *data.sentence2])]

    def run(self, data: PairSet, model: EvalModel, setup: EvalSetup) -> TaskResult:
        vectors = self.encode(model, [*data.sentence1, *data.sentence2])
        similarity = pair_similarities(vectors[: len(data)], vectors[len(data) :])[self.similarity]
        accuracy, f1, right = best_threshold(similarity, data.score)
        mark = fingerprint(data.sentence1, data.sentence2, data.score)
        predicted, gold = similarity.tolist(), data.score.tolist()
        pairs = Items(fingerprint=mark, predicted=predicted, gold=gold, statistic="average precision")
        precision = score_of_items(*pairs.columns, **pairs.score_options)
        metrics = {"average_precision": 100 * precision, "accuracy": 100 * accuracy, "f1": 100 * f1}
        items = {"average_precision": pairs, "accuracy": Items(fingerprint=mark, values=right.tolist())}
        return self.result(
            setup, metric=self.metric, metrics=metrics, protocol=self.similarity, count=len(data),
            items=items.get(self.metric), interval_note="no interval: F1 is not resampled",
        )  # fmt: skip


def best_threshold(similarity: Values, gold: Values) -> tuple[float, float, Values]:
    """The highest accuracy and the highest F1 over all thresholds, and who is right at the former's."""
    order = np.argsort(-similarity, kind="stable")
    ranked, positive = similarity[order], np.cumsum(gold[order])
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # the last of every run of equal ones
    taken, hits = last + 1.0, positive[last]
    accuracy = (hits + (len(gold) - positive[-1]) - (taken - hits)) / len(gold)
    f1 = 2 * hits / (taken + positive[-1])
    threshold = ranked[last[int(accuracy.argmax())]]
    right = ((similarity >= threshold) == (gold > 0)).astype(np.float64)
    return float(accuracy.max()), float(f1.max()), right
