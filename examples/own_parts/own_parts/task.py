"""Triplet accuracy: how often a text is nearer to its positive than to its negative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sentemb.data import Triplets as TripletFile
from sentemb.evaluate import EvalModel, EvalSetup, Items, Task, TaskResult, Texts, fingerprint

Columns = tuple[list[str], list[str], list[str]]  # anchors, positives, negatives


@dataclass(frozen=True, kw_only=True)
class Triplets(Task):
    """How often the anchor is nearer to its positive than to its negative.

        accuracy = 1/n Σ_i 1[cos(a_i, p_i) > cos(a_i, n_i)]

    Args:
        path: a file with the columns anchor, positive and negative.
        name: what reports call the task; by default the stem of its path.

    Source: Schroff, Kalenichenko & Philbin 2015, CVPR, section 3.1 (the triplet condition, without its margin).
    Deviations: a tie counts as wrong.
    """

    task_type: ClassVar[str] = "Triplets"

    path: str

    def load(self, setup: EvalSetup) -> Columns:
        """Anchors, positives, negatives."""
        columns = TripletFile(path=str(setup.data.path(self.path))).load().columns
        return columns["anchor"], columns["positive"], columns["negative_1"]

    def texts(self, data: Columns) -> Sequence[Texts]:
        """All of them, with the model's prompt for this task."""
        return [Texts(texts=[text for column in data for text in column])]

    def run(self, data: Columns, model: EvalModel, setup: EvalSetup) -> TaskResult:
        """Accuracy ×100, with the bootstrap interval of its items."""
        anchor, positive, negative = (_unit(self.encode(model, column)) for column in data)
        is_right = ((anchor * positive).sum(axis=1) > (anchor * negative).sum(axis=1)).astype(float)
        items = Items(fingerprint=fingerprint(*data), values=is_right.tolist())
        return self.result(setup, metric="accuracy", main=100 * is_right.mean(), items=items)


def _unit(vectors: Any) -> Any:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
