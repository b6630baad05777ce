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
    """Texts whose space is described, their labels if they have some, and pairs that mean the same."""

    texts: Sequence[str]
    labels: Sequence[str] = ()
    positives: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, kw_only=True)
class Geometry(Task):
    """Figures of the space that a file's texts span; with an output folder also a picture of it.

    Args:
        path: a file with sentence pairs (those rated above 4/5 of the best are positive pairs), or with texts and,
            optionally, labels.
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
        return replace(
            data,
            texts=[data.texts[i] for i in chosen],
            labels=[data.labels[i] for i in chosen] if data.labels else (),
        )

    def texts(self, data: SpaceTexts) -> Sequence[Texts]:
        return [Texts(texts=[*data.texts, *(text for pair in data.positives for text in pair)])]

    def run(self, data: SpaceTexts, model: EvalModel, setup: EvalSetup) -> TaskResult:
        sides = [[pair[side] for pair in data.positives] for side in (0, 1)]
        space = geometry(
            self.encode(model, data.texts),
            pairs=(self.encode(model, sides[0]), self.encode(model, sides[1])) if data.positives else None,
            labels=data.labels,
            seed=setup.seed,
        )
        picture = setup.output / f"geometry-{self.label}.png" if setup.output is not None else None
        if picture is not None:
            from sentemb.evaluate.reports.panel import draw_panel

            draw_panel(picture, space, title=f"{model.identity.name}: {self.label}")
        result = self.result(
            setup,
            metric=self.metric,
            main=space.metrics[self.metric],
            metrics=space.metrics,
            protocol="geometry",
            count=len(data.texts),
            interval_note="no interval: a description of one space, not an estimate",
        )
        return replace(result, notes=str(picture or ""))


def read_space_texts(path: Path) -> SpaceTexts:
    """Distinct texts of a file of pairs, or all rows of a file of texts.

    Raises:
        DataError, EvaluationError: a row is neither; names file and line.
    """
    texts: list[str] = []
    labels: list[str] = []
    rated: list[tuple[float, str, str]] = []
    for row in read_rows(path):
        cells = row.fields
        if isinstance(cells.get("sentence1"), str) and isinstance(cells.get("sentence2"), str):
            texts += [cells["sentence1"], cells["sentence2"]]
            score = number_of(row, "score") if cells.get("score") is not None else 0.0
            rated.append((score, cells["sentence1"], cells["sentence2"]))
        elif isinstance(cells.get("text"), str):
            texts.append(cells["text"])
            labels.append(str(cells.get("label", "")))
        else:
            raise EvaluationError(f'{row.where}: needed is "text", or "sentence1" and "sentence2"')
    best = max((score for score, _, _ in rated), default=0.0)
    # the usual choice: pairs of STS rated above 4 of 5
    positives = [(first, second) for score, first, second in rated if score > 0.8 * best]
    if any(labels):
        return SpaceTexts(texts=texts, labels=labels, positives=positives)
    return SpaceTexts(texts=texts if labels else list(dict.fromkeys(texts)), positives=positives)
