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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import EvaluationError
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.reading.tables import number_of, read_rows
from sentemb.evaluate.reports.results import TaskResult
from sentemb.evaluate.task import EvalSetup, Task, Texts
from sentemb.maths.neighbours import nearest
from sentemb.parts import Count
from sentemb.types import Vectors

HUB_NEIGHBOURS = 10
_BLOCK = 1024


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

    Source: at the head of this file.
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


# ------------------------------------------------------------------------------------------------- figures
def geometry(
    vectors: Vectors, *, pairs: tuple[Vectors, Vectors] | None = None, seed: int = 42
) -> dict[str, float]:
    """Figures of a space, by name (not ×100).

    Args:
        vectors: (texts, d), at least 3 distinct.
        pairs: positive pairs, two (pairs, d), for the alignment.
        seed: of the random pairs.

    Raises: EvaluationError: fewer than 3 texts, or all vectors equal or zero.
    """
    if len(vectors) < 3:
        raise EvaluationError(f"{len(vectors)} texts; the geometry of a space needs at least 3")
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not norms.min() > 0:
        raise EvaluationError(f"{int(np.sum(norms == 0)):,} vectors are zero; they have no direction")
    unit = vectors / norms[:, None]
    variance = _variances(vectors)
    if not variance.sum() > 1e-12 * float(np.sum(norms**2)):
        raise EvaluationError("all vectors are equal: the encoder has collapsed")
    figures = {
        "uniformity": uniformity(unit),
        "average_cosine": float(_random_cosines(unit, seed).mean()),
        "isoscore": iso_score(vectors),
        "effective_rank": float(np.exp(_entropy(np.sqrt(variance)))),
        "dimensions_90": float(np.searchsorted(np.cumsum(variance / variance.sum()), 0.9) + 1),
        "norm_mean": float(norms.mean()),
        "norm_sd": float(norms.std()),
        "hubness": hubness(unit.astype(np.float32)),
    }
    if pairs is not None:
        one, two = (side / np.linalg.norm(side.astype(np.float64), axis=1, keepdims=True) for side in pairs)
        figures = {"alignment": float(np.mean(np.sum((one - two) ** 2, axis=1))), **figures}
    return figures


def _variances(vectors: Vectors) -> NDArray[np.float64]:
    """Σ of squares along every principal component, largest first."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    return np.linalg.svd(centred, compute_uv=False) ** 2


def uniformity(unit: NDArray[np.float64]) -> float:
    """log mean exp(−2‖u − v‖²) over all pairs of different rows of unit vectors (n, d)."""
    total, n = 0.0, len(unit)
    for start in range(0, n, _BLOCK):
        square = np.clip(2 - 2 * unit[start : start + _BLOCK] @ unit.T, 0, None)
        total += float(np.exp(-2 * square).sum())
    own = float(np.exp(-2 * np.clip(2 - 2 * np.einsum("nd,nd->n", unit, unit), 0, None)).sum())
    return float(np.log((total - own) / (n * (n - 1))))


def iso_score(vectors: Vectors) -> float:
    """IsoScore of vectors (n, d): how evenly the principal variances are spread, scaled to 0…1."""
    d = vectors.shape[1]
    if d == 1:
        return 1.0
    variance = np.zeros(d)
    values = _variances(vectors) / max(len(vectors) - 1, 1)
    variance[: len(values)] = values
    scaled = np.sqrt(d) * variance / np.linalg.norm(variance)
    defect = np.linalg.norm(scaled - 1) / np.sqrt(2 * (d - np.sqrt(d)))
    used = (d - defect**2 * (d - np.sqrt(d))) ** 2 / d**2  # share of dimensions in use
    return float((d * used - 1) / (d - 1))


def hubness(vectors: Vectors, neighbours: int = HUB_NEIGHBOURS) -> float:
    """Skewness of the k-occurrences of unit vectors; k is cut to the texts there are."""
    k = min(neighbours, len(vectors) - 1)
    ids, _ = nearest(vectors, k)
    count = np.bincount(ids.ravel(), minlength=len(vectors)).astype(np.float64)
    sd = count.std()
    return float(np.mean((count - count.mean()) ** 3) / sd**3) if sd > 0 else 0.0


def _random_cosines(unit: NDArray[np.float64], seed: int, most: int = 100_000) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    n = len(unit)
    first = generator.integers(0, n, most)
    second = (first + generator.integers(1, n, most)) % n  # never the same row
    return np.concatenate(
        [np.einsum("nd,nd->n", unit[first[s : s + 8192]], unit[second[s : s + 8192]]) for s in range(0, most, 8192)]
    )


def _entropy(weights: NDArray[np.float64]) -> float:
    p = weights[weights > 0] / weights.sum()
    return float(-np.sum(p * np.log(p)))
