"""The shape of an embedding space, as a description: alignment, uniformity, isotropy, effective rank, norms, hubness.

* alignment: mean ‖u − v‖² over positive pairs; uniformity: log mean exp(−2‖u − v‖²) over all pairs, unit vectors.
  Source: Wang & Isola 2020, ICML, eq. 1–2 (α = 2, t = 2).
* average cosine between random texts: 0 in an isotropic space. Source: Ethayarajh 2019, EMNLP.
* IsoScore: 1 where the variance is spread evenly over all dimensions, 0 where one holds it all.
  Source: Rudman et al. 2022, Findings of ACL, algorithm 1.
* effective rank: exp of the entropy of the normalised singular values. Source: Roy & Vetterli 2007, EUSIPCO.
* hubness: skewness of how often a text is among the 10 nearest of others. Source: Radovanović et al. 2010, JMLR.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import EvaluationError
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.reading import number_of, read_rows
from sentemb.evaluate.results import TaskResult
from sentemb.evaluate.task import EvalSetup, Task, Texts
from sentemb.maths.neighbours import nearest
from sentemb.parts import Count
from sentemb.types import Vectors

HUB_NEIGHBOURS = 10
_BLOCK = 1024

Space = tuple[list[str], list[list[str]]]  # texts, and the two sides of pairs that mean the same


@dataclass(frozen=True, kw_only=True)
class Geometry(Task):
    """Figures of the space that a file's texts span.

    Args:
        path: a file with sentence pairs (those rated above 4/5 of the best are positive pairs), or with texts.
        most_texts: of more texts a seeded sample is described: pairwise figures are quadratic.
        metric: the figure that stands in the report; ``uniformity`` is better the lower it is.

    Source: at the head of this file.
    """

    task_type: ClassVar[str] = "Geometry"
    higher_is_better: ClassVar[bool] = False

    path: str
    most_texts: Count = 20_000
    metric: Literal["uniformity", "average_cosine", "isoscore", "effective_rank", "hubness"] = "uniformity"

    def load(self, setup: EvalSetup) -> Space:
        texts, positives = read_space(setup.data.path(self.path))
        if len(texts) > self.most_texts:
            chosen = np.random.default_rng(setup.seed).choice(len(texts), self.most_texts, replace=False)
            texts = [texts[i] for i in np.sort(chosen)]
        return texts, positives

    def texts(self, data: Space) -> Sequence[Texts]:
        return [Texts(texts=column) for column in (data[0], *data[1])]

    def run(self, data: Space, model: EvalModel, setup: EvalSetup) -> TaskResult:
        texts, sides = data
        figures = geometry(self.encode(model, texts), pairs=[self.encode(model, side) for side in sides])
        return self.result(
            setup, metric=self.metric, metrics=figures, protocol="geometry", count=len(texts),
            interval_note="no interval: a description of one space, not an estimate",
        )  # fmt: skip


def read_space(path: Path) -> Space:
    """The distinct texts of a file of pairs or of texts, and the two sides of its positive pairs.

    Raises: DataError, EvaluationError: a row is neither; names file and line.
    """
    texts: dict[str, None] = {}
    rated: list[tuple[float, str, str]] = []
    for row in read_rows(path):
        first, second, text = (row.fields.get(name) for name in ("sentence1", "sentence2", "text"))
        if isinstance(first, str) and isinstance(second, str):
            rated.append((number_of(row, "score") if row.fields.get("score") is not None else 0.0, first, second))
            texts |= {first: None, second: None}
        elif isinstance(text, str):
            texts[text] = None
        else:
            raise EvaluationError(f'{row.where}: needed is "text", or "sentence1" and "sentence2"')
    best = max((score for score, _, _ in rated), default=0.0)
    # the usual choice: pairs of STS rated above 4 of 5
    positives = [pair for score, *pair in rated if score > 0.8 * best]
    return list(texts), [list(side) for side in zip(*positives, strict=True)]


# ------------------------------------------------------------------------------------------------- figures
def geometry(vectors: Vectors, *, pairs: Sequence[Vectors] = ()) -> dict[str, float]:
    """Figures of the space of vectors (texts, d), by name (not ×100); ``pairs`` are both sides (pairs, d) of positive
    pairs, for the alignment, or none.

    Raises: EvaluationError: fewer than 3 texts, or all vectors equal or zero.
    """
    n = len(vectors)
    if n < 3:
        raise EvaluationError(f"{n} texts; the geometry of a space needs at least 3")
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not norms.min() > 0:
        raise EvaluationError(f"{int(np.sum(norms == 0)):,} vectors are zero; they have no direction")
    unit = vectors / norms[:, None]
    variance = principal_variances(vectors)
    if not variance.sum() > 1e-12 * float(np.sum(norms**2)):
        raise EvaluationError("all vectors are equal: the encoder has collapsed")
    figures = {
        "uniformity": uniformity(unit),
        "average_cosine": float((np.sum(unit.sum(axis=0) ** 2) - n) / (n * (n - 1))),  # over all pairs of texts
        "isoscore": iso_score(variance),
        "effective_rank": effective_rank(variance),
        "norm_mean": float(norms.mean()),
        "norm_sd": float(norms.std()),
        "hubness": hubness(unit.astype(np.float32)),
    }
    if pairs:
        one, two = (side / np.linalg.norm(side.astype(np.float64), axis=1, keepdims=True) for side in pairs)
        figures = {"alignment": float(np.mean(np.sum((one - two) ** 2, axis=1))), **figures}
    return figures


def principal_variances(vectors: Vectors) -> NDArray[np.float64]:
    """Σ of squares along every principal component of vectors (n, d), largest first, (d,)."""
    variance = np.zeros(vectors.shape[1])
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    singular = np.linalg.svd(centred, compute_uv=False)
    variance[: len(singular)] = singular**2
    return variance


def uniformity(unit: NDArray[np.float64]) -> float:
    """log mean exp(−2‖u − v‖²) over all pairs of different rows of unit vectors (n, d)."""
    total, n = 0.0, len(unit)
    for start in range(0, n, _BLOCK):
        square = np.clip(2 - 2 * unit[start : start + _BLOCK] @ unit.T, 0, None)
        total += float(np.exp(-2 * square).sum())
    return float(np.log((total - n) / (n * (n - 1))))  # a row with itself adds exp(0)


def iso_score(variance: NDArray[np.float64]) -> float:
    """IsoScore of the principal variances (d,): how evenly they are spread, scaled to 0…1."""
    d = len(variance)
    if d == 1:
        return 1.0
    scaled = np.sqrt(d) * variance / np.linalg.norm(variance)
    defect = np.linalg.norm(scaled - 1) / np.sqrt(2 * (d - np.sqrt(d)))
    used = (d - defect**2 * (d - np.sqrt(d))) ** 2 / d**2  # share of dimensions in use
    return float((d * used - 1) / (d - 1))


def effective_rank(variance: NDArray[np.float64]) -> float:
    """exp of the entropy of the singular values, whose squares are the principal variances."""
    singular = np.sqrt(variance[variance > 0])
    p = singular / singular.sum()
    return float(np.exp(-np.sum(p * np.log(p))))


def hubness(vectors: Vectors) -> float:
    """Skewness of how often each of the unit vectors is among the ``HUB_NEIGHBOURS`` nearest of another."""
    ids, _ = nearest(vectors, min(HUB_NEIGHBOURS, len(vectors) - 1))
    count = np.bincount(ids.ravel(), minlength=len(vectors)).astype(np.float64)
    sd = count.std()
    return float(np.mean((count - count.mean()) ** 3) / sd**3) if sd > 0 else 0.0
