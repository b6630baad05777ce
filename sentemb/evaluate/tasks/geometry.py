"""The shape of an embedding space, as a description: alignment, uniformity, isotropy, effective rank, hubness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from sentemb.errors import EvaluationError
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.reading.tables import number_of, read_rows
from sentemb.evaluate.reports.results import TaskResult
from sentemb.evaluate.statistics.geometry import geometry
from sentemb.evaluate.task import EvalSetup, Task, Texts
from sentemb.parts import Count


@dataclass(frozen=True, kw_only=True)
class SpaceTexts:
    """Texts whose space is described, and pairs of them that mean the same."""

    texts: Sequence[str]
    positives: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, kw_only=True)
class Geometry(Task):
    """Figures of the space that a file's texts span.

    Args:
        path: a file with sentence pairs (those rated above 4/5 of the best are positive pairs), or with texts.
        most_texts: of more texts a seeded sample is described: pairwise figures are quadratic.
        metric: the figure that stands in the report; ``uniformity`` is better the lower it is.

    Source: see ``sentemb.evaluate.statistics.geometry``.
    """

    task_type: ClassVar[str] = "Geometry"
    higher_is_better: ClassVar[bool] = False

    path: str
    most_texts: Count = 20_000
    metric: Literal["uniformity", "average_cosine", "isoscore", "effective_rank", "hubness"] = "uniformity"

    def load(self, setup: EvalSetup) -> SpaceTexts:
        data = read_space_texts(setup.data.path(self.path))
        if len(data.texts) <= self.most_texts:
            return data
        generator = np.random.default_rng(setup.seed)
        chosen = np.sort(generator.choice(len(data.texts), self.most_texts, replace=False))
        return replace(data, texts=[data.texts[i] for i in chosen])

    def texts(self, data: SpaceTexts) -> Sequence[Texts]:
        return [Texts(texts=[*data.texts, *(text for pair in data.positives for text in pair)])]

    def run(self, data: SpaceTexts, model: EvalModel, setup: EvalSetup) -> TaskResult:
        sides = [[pair[side] for pair in data.positives] for side in (0, 1)]
        figures = geometry(
            self.encode(model, data.texts),
            pairs=(self.encode(model, sides[0]), self.encode(model, sides[1])) if data.positives else None,
            seed=setup.seed,
        )
        return self.result(
            setup, metric=self.metric, metrics=figures, protocol="geometry", count=len(data.texts),
            interval_note="no interval: a description of one space, not an estimate",
        )  # fmt: skip


def read_space_texts(path: Path) -> SpaceTexts:
    """The distinct texts of a file of pairs or of texts.

    Raises: DataError, EvaluationError: a row is neither; names file and line.
    """
    texts: dict[str, None] = {}
    rated: list[tuple[float, str, str]] = []
    for row in read_rows(path):
        first, second, text = (row.fields.get(name) for name in ("sentence1", "sentence2", "text"))
        if isinstance(first, str) and isinstance(second, str):
            score = number_of(row, "score") if row.fields.get("score") is not None else 0.0
            rated.append((score, first, second))
            texts |= {first: None, second: None}
        elif isinstance(text, str):
            texts[text] = None
        else:
            raise EvaluationError(f'{row.where}: needed is "text", or "sentence1" and "sentence2"')
    best = max((score for score, _, _ in rated), default=0.0)
    # the usual choice: pairs of STS rated above 4 of 5
    positives = [(first, second) for score, first, second in rated if score > 0.8 * best]
    return SpaceTexts(texts=list(texts), positives=positives)
