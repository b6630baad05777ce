"""Texts of one label find one another: clones of a program, renamed variables, duplicates of a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import EvaluationError
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.reading import LabelledTexts, read_labelled
from sentemb.evaluate.results import Items, TaskResult, fingerprint
from sentemb.evaluate.significance import Values
from sentemb.evaluate.task import EvalSetup, Task, Texts
from sentemb.maths.inner_products import unit
from sentemb.maths.neighbours import top, without_own

_QUERIES = 1024  # at a time


@dataclass(frozen=True, kw_only=True)
class LabelRetrieval(Task):
    """How high the texts of a text's own label rank among all other texts.

        MAP@R = mean over texts of 1/R · Σ over ranks i ≤ R of a text of the label of (such texts up to i) / i

    R is the number of other texts of the label; a text that is alone with its label is no query.

    Args:
        path: a file with the columns text and label, e.g. programs and the problem that they solve.
        metric: ``map@r``, ``r_precision`` (share of the first R) or ``precision@1``.

    Source: Musgrave, Belongie & Lim 2020, ECCV (MAP@R); clones as solutions of one problem: Mou et al. 2016 (POJ-104).
    Deviations: none.
    """

    task_type: ClassVar[str] = "LabelRetrieval"

    path: str
    metric: Literal["map@r", "r_precision", "precision@1"] = "map@r"

    def load(self, setup: EvalSetup) -> LabelledTexts:
        data = read_labelled(setup.data.path(self.path))
        if len(set(data.labels)) in (1, len(data)):
            raise EvaluationError(f"{data.source}: needed are two labels, one of them of two texts")
        return data

    def texts(self, data: LabelledTexts) -> Sequence[Texts]:
        return [Texts(texts=data.texts)]

    def run(self, data: LabelledTexts, model: EvalModel, setup: EvalSetup) -> TaskResult:
        rows = unit(self.encode(model, data.texts))
        of = np.unique(data.labels, return_inverse=True)[1]
        others = np.bincount(of)[of] - 1
        queries = np.flatnonzero(others > 0)
        values: dict[str, list[float]] = {"map@r": [], "r_precision": [], "precision@1": []}
        depth = int(others.max())
        for start in range(0, len(queries), _QUERIES):
            part = queries[start : start + _QUERIES]
            ids = without_own(top(rows[part], rows, depth + 1), part).ids
            for name, scores in ranked_by_label(of[ids] == of[part, None], others[part]).items():
                values[name] += scores.tolist()
        items = Items(fingerprint=fingerprint(data.texts, data.labels), values=values[self.metric])
        means = {name: 100 * float(np.mean(scores)) for name, scores in values.items()}
        return self.result(setup, metric=self.metric, metrics=means, protocol="own label", items=items)


def ranked_by_label(right: NDArray[np.bool_], others: NDArray[np.int64]) -> dict[str, Values]:
    """The metrics of every query from which of its hits (queries, depth), best first, have its label; ``others``: R."""
    ranks = np.arange(1, right.shape[1] + 1)
    counted = right & (ranks <= others[:, None])
    precision = np.cumsum(counted, axis=1) / ranks
    return {
        "map@r": np.sum(counted * precision, axis=1) / others,
        "r_precision": counted.sum(axis=1) / others,
        "precision@1": right[:, 0].astype(np.float64),
    }
