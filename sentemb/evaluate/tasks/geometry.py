"""The shape of an embedding space, as a description: alignment, uniformity, tolerance, isotropy, rank, norms, hubness.

* alignment: mean ‖u − v‖² over positive pairs; uniformity: log mean exp(−2‖u − v‖²) over all pairs, unit vectors.
  Source: Wang & Isola 2020, ICML, eq. 1–2 (α = 2, t = 2).
* average cosine between random texts: 0 in an isotropic space. Source: Ethayarajh 2019, EMNLP.
* IsoScore: 1 where the variance is spread evenly over all dimensions, 0 where one holds it all.
  Source: Rudman et al. 2022, Findings of ACL, algorithm 1.
* effective rank: exp of the entropy of the normalised singular values. Source: Roy & Vetterli 2007, EUSIPCO.
* tolerance: mean cosine of texts of one label; a uniform space may tear them apart.
  Source: Wang & Liu 2021, CVPR, "Understanding the behaviour of contrastive loss".
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


@dataclass(frozen=True, kw_only=True)
class Space:
    """Texts, the two sides of pairs that mean the same, and each text's label, where texts have labels."""

    texts: list[str]
    positives: list[list[str]]
    labels: list[str]


@dataclass(frozen=True, kw_only=True)
class Geometry(Task):
    """Figures of the space that a file's texts span.

    Args:
        path: a file with sentence pairs (those rated above 4/5 of the best are positive pairs), or with texts; where
            texts have a column label, also the tolerance.
        most_texts: of more texts a seeded sample is described: pairwise figures are quadratic.
        metric: the figure that stands in the report; ``uniformity`` is better the lower it is.

    Source: at the head of this file.
    """

    task_type: ClassVar[str] = "Geometry"
    higher_is_better: ClassVar[bool] = False

    path: str
    most_texts: Count = 20_000
    metric: Literal["uniformity", "average_cosine", "isoscore", "effective_rank", "tolerance", "hubness"] = "uniformity"

    def load(self, setup: EvalSetup) -> Space:
        space = read_space(setup.data.path(self.path))
        if self.metric == "tolerance" and not space.labels:
            raise EvaluationError(f"{self.path}: tolerance needs texts with a column label")
        if len(space.texts) > self.most_texts:
            chosen = np.sort(np.random.default_rng(setup.seed).choice(len(space.texts), self.most_texts, replace=False))
            texts, labels = ([column[i] for i in chosen] if column else [] for column in (space.texts, space.labels))
            space = Space(texts=texts, positives=space.positives, labels=labels)
        return space

    def texts(self, data: Space) -> Sequence[Texts]:
        return [Texts(texts=column) for column in (data.texts, *data.positives)]

    def run(self, data: Space, model: EvalModel, setup: EvalSetup) -> TaskResult:
        pairs = [self.encode(model, side) for side in data.positives]
        figures = geometry(self.encode(model, data.texts), pairs=pairs, labels=data.labels)
        return self.result(
            setup, metric=self.metric, metrics=figures, protocol="geometry", count=len(data.texts),
            interval_note="no interval: a description of one space, not an estimate",
        )  # fmt: skip


def read_space(path: Path) -> Space:
    """The distinct texts of a file of pairs or of texts, the two sides of its positive pairs, the labels of its texts.

    Raises: DataError, EvaluationError: a row is neither; names file and line.
    """
    texts: dict[str, str | None] = {}  # text -> label
    rated: list[tuple[float, str, str]] = []
    for row in read_rows(path):
        first, second, text = (row.fields.get(name) for name in ("sentence1", "sentence2", "text"))
        if isinstance(first, str) and isinstance(second, str):
            rated.append((number_of(row, "score") if row.fields.get("score") is not None else 0.0, first, second))
            texts |= {first: None, second: None}
        elif isinstance(text, str):
            label = row.fields.get("label")
            texts[text] = None if label is None else str(label)
        else:
            raise EvaluationError(f'{row.where}: needed is "text", or "sentence1" and "sentence2"')
    best = max((score for score, _, _ in rated), default=0.0)
    # the usual choice: pairs of STS rated above 4 of 5
    positives = [pair for score, *pair in rated if score > 0.8 * best]
    labels = [label for label in texts.values() if label is not None]
    if labels and len(labels) < len(texts):
        raise EvaluationError(f"{path}: {len(labels):,} of {len(texts):,} texts have a label; give all one, or none")
    return Space(texts=list(texts), positives=[list(side) for side in zip(*positives, strict=True)], labels=labels)


# ------------------------------------------------------------------------------------------------- figures
def geometry(vectors: Vectors, *, pairs: Sequence[Vectors] = (), labels: Sequence[str] = ()) -> dict[str, float]:
    """Figures of the space of vectors (texts, d), by name (not ×100); ``pairs`` are both sides (pairs, d) of positive
    pairs, for the alignment, or none; ``labels`` are those of the texts, for the tolerance, or none.

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
    if labels:
        figures["tolerance"] = tolerance(unit, labels)
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


def tolerance(unit: NDArray[np.float64], labels: Sequence[str]) -> float:
    """Mean cosine over all pairs of different texts of one label, of unit vectors (n, d).

    Raises: EvaluationError: no label has two texts.
    """
    of = np.unique(list(labels), return_inverse=True)[1]
    count = np.bincount(of)
    sums = np.zeros((len(count), unit.shape[1]))
    np.add.at(sums, of, unit)
    pairs = count * (count - 1)
    if not pairs.sum():
        raise EvaluationError("no label has two texts, so there is no tolerance")
    # a class's squared sum holds every ordered pair once and every text with itself, which is 1
    return float((np.sum(sums**2) - len(unit)) / pairs.sum())


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
