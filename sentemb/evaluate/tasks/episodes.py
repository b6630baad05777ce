"""Few-shot classification in episodes: a few labels, a few texts of each, prototypes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge

from sentemb.data import iter_texts
from sentemb.errors import EvaluationError
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.reading import LabelledTexts, read_splits
from sentemb.evaluate.results import Items, TaskResult, fingerprint
from sentemb.evaluate.task import EvalSetup, Task, Texts
from sentemb.maths.inner_products import unit
from sentemb.maths.neighbours import top
from sentemb.parts import Count, Fraction
from sentemb.types import Vectors

MIXES = (0.0, 0.25, 0.5, 0.75)  # λ that are tried

Data = tuple[LabelledTexts, list[str]]  # labelled texts, and texts without labels


@dataclass(frozen=True, kw_only=True)
class Episodes(Task):
    """Accuracy of nearest prototypes, mean over episodes of a few labels with a few texts each.

        prototype(c)  = mean of the vectors of the label's ``shots`` texts
        prototype'(c) = (1 - λ) · prototype(c) + λ · mean of its ``neighbours`` nearest texts without labels

    An episode draws ``ways`` labels, ``shots`` texts of each for the prototypes and ``queries`` others to classify by
    cosine.

    Args:
        path: a file with the columns text and label, or a folder with a test split, which then is used.
        ways: labels of an episode.
        shots: texts of each label that make its prototype.
        queries: texts of each label that are classified.
        episodes: how many are drawn.
        unlabelled: a file with texts that may join prototypes; none: λ = 0.
        neighbours: how many of them join each prototype.
        mix: λ; None: of 0, ¼, ½ and ¾ the best on the episode's own shots, each left out in turn: two shots at least.

    Source: the abstract of retrieval-augmented meta learning for text classification (RAML): episodes, and unlabelled
        texts that are retrieved.
    Deviations: its learned fusion of views is not published; the mean with λ is ours.
    """

    task_type: ClassVar[str] = "FewShot"

    path: str
    ways: Annotated[int, Ge(2)] = 5
    shots: Count = 1
    queries: Count = 15
    episodes: Count = 600
    unlabelled: str | None = None
    neighbours: Count = 5
    mix: Fraction | None = None

    def __post_init__(self) -> None:
        if self.unlabelled is not None and self.mix is None and self.shots < 2:
            raise ValueError("unlabelled with shots = 1: leaving one out leaves none; give mix, e.g. mix = 0.5")
        if self.unlabelled is None and self.mix is not None:
            raise ValueError(f"mix = {self.mix}: without unlabelled texts nothing is mixed in")

    def missing(self, setup: EvalSetup) -> list[str]:
        for path in (self.path, self.unlabelled):
            if path is not None:
                setup.data.path(path)
        return []

    def load(self, setup: EvalSetup) -> Data:
        train, test = read_splits(setup.data.path(self.path))
        data = test or train
        labels, counts = np.unique(data.labels, return_counts=True)
        able = int((counts >= self.shots + self.queries).sum())
        if able < self.ways:
            raise EvaluationError(
                f"{data.source}: {able} of {len(labels)} labels have {self.shots} + {self.queries} texts; an episode "
                f"needs {self.ways} such labels; ask for fewer shots or queries"
            )
        return data, [] if self.unlabelled is None else list(iter_texts(setup.data.path(self.unlabelled)))

    def texts(self, data: Data) -> Sequence[Texts]:
        return [Texts(texts=[*data[0].texts, *data[1]])]

    def run(self, data: Data, model: EvalModel, setup: EvalSetup) -> TaskResult:
        labelled, others = data
        vectors = unit(self.encode(model, [*labelled.texts, *others]))
        own, pool = vectors[: len(labelled)], vectors[len(labelled) :]
        labels, of = np.unique(labelled.labels, return_inverse=True)
        rows = [np.flatnonzero(of == label) for label in range(len(labels))]
        rows = [row for row in rows if len(row) >= self.shots + self.queries]
        accuracies, mixes = [], []
        for episode in range(self.episodes):
            generator = np.random.default_rng([setup.seed, episode])
            chosen = [generator.permutation(rows[label])[: self.shots + self.queries]
                      for label in generator.permutation(len(rows))[: self.ways]]
            table = own[np.stack(chosen)]  # (ways, shots + queries, d)
            support, queries = table[:, : self.shots], table[:, self.shots :]
            mix = self._mix(support, pool)
            mixes.append(mix)
            accuracies.append(accuracy(self._prototypes(support, pool, mix), queries))
        items = Items(fingerprint=fingerprint(labelled.texts, labelled.labels, [self.episodes]), values=accuracies)
        metrics = {"accuracy": 100 * float(np.mean(accuracies)), "accuracy_sd": 100 * float(np.std(accuracies))}
        if len(pool):
            metrics["mix"] = float(np.mean(mixes))
        protocol = f"{self.ways} ways, {self.shots} shots" + (", unlabelled" if len(pool) else "")
        return self.result(setup, metric="accuracy", metrics=metrics, protocol=protocol, items=items)

    def _mix(self, support: Vectors, pool: Vectors) -> float:
        """λ of an episode: given, or the best (of equal ones the smallest) where every shot is left out in turn."""
        if not len(pool):
            return 0.0
        if self.mix is not None:
            return self.mix
        right = np.zeros(len(MIXES))
        for shot in range(self.shots):
            rest = np.delete(support, shot, axis=1)
            right += [accuracy(self._prototypes(rest, pool, mix), support[:, [shot]]) for mix in MIXES]
        return MIXES[int(np.argmax(right))]

    def _prototypes(self, support: Vectors, pool: Vectors, mix: float) -> Vectors:
        prototypes: Vectors = support.mean(axis=1)
        if mix == 0:
            return prototypes
        ids = top(prototypes, pool, self.neighbours, metric="cosine").ids
        mixed: Vectors = (1 - mix) * prototypes + mix * pool[ids].mean(axis=1)
        return mixed


def accuracy(prototypes: Vectors, queries: Vectors) -> float:
    """Share of the queries (ways, queries, d) whose own prototype (ways, d) has the largest cosine."""
    similarity = queries @ unit(prototypes).T
    return float(np.mean(similarity.argmax(axis=2) == np.arange(len(prototypes))[:, None]))
