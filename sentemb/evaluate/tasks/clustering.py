"""Clustering: whether k-means on frozen embeddings finds the labels again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.reading import LabelledTexts, read_splits
from sentemb.evaluate.results import TaskResult
from sentemb.evaluate.task import EvalSetup, Task, Texts
from sentemb.evaluate.tasks.classification import check_labels, check_splits
from sentemb.parts import Count
from sentemb.types import Vectors


@dataclass(frozen=True, kw_only=True)
class Clustering(Task):
    """v-measure of k-means with as many clusters as labels, mean over seeds.

    Args:
        path: a file with the columns text and label, or a folder with train and test (the test texts are clustered).
        repetitions: of k-means, each with a seed of its own.

    Source: Rosenberg & Hirschberg 2007, EMNLP (v-measure); Muennighoff et al. 2023, EACL, section 3.2.
    Deviations: full k-means in place of mini batches.
    """

    task_type: ClassVar[str] = "Clustering"
    packages: ClassVar[tuple[str, ...]] = ("sklearn",)

    path: str
    repetitions: Count = 5

    def missing(self, setup: EvalSetup) -> list[str]:
        check_splits(setup.data.path(self.path))
        return []

    def load(self, setup: EvalSetup) -> LabelledTexts:
        train, test = read_splits(setup.data.path(self.path))
        data = test or train
        check_labels(data)
        return data

    def texts(self, data: LabelledTexts) -> Sequence[Texts]:
        return [Texts(texts=data.texts)]

    def run(self, data: LabelledTexts, model: EvalModel, setup: EvalSetup) -> TaskResult:
        x, y = self.encode(model, data.texts), np.array(data.labels)
        scores = v_measures(x, y, repetitions=self.repetitions, seed=setup.seed)
        protocol = f"k-means, {self.repetitions} seeds"
        spread = float(scores.std(ddof=1)) if len(scores) > 1 else 0.0
        return self.result(
            setup, metric="v_measure", protocol=protocol, count=len(data), split="test",
            metrics={"v_measure": 100 * float(scores.mean()), "v_measure_sd": 100 * spread},
            interval=setup.interval_of_runs(scores),
            interval_note=f"interval over the repetitions ({protocol}), not over its texts",
        )  # fmt: skip


def v_measures(x: Vectors, y: NDArray[np.str_], *, repetitions: int, seed: int) -> NDArray[np.float64]:
    """The v-measure of every repetition, 0 to 1."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import v_measure_score

    clusters = len(np.unique(y))
    runs = [KMeans(clusters, n_init=1, random_state=seed + run).fit_predict(x) for run in range(repetitions)]
    return np.array([v_measure_score(y, clusters) for clusters in runs])
