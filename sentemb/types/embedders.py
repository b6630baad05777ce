"""What can be evaluated or fill an index, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sentemb.types.texts import Vectors


@runtime_checkable
class Embedder(Protocol):
    """Anything that can be evaluated or can fill an index: texts in, a row for each out."""

    def encode(self, texts: Sequence[str], /) -> Vectors: ...


@runtime_checkable
class IdentifiedEmbedder(Protocol):
    """An embedder, such as ``sentemb.Encoder``, that puts prompts in front of texts itself.

    Wherever it is given, results and indexes keep its digest, and its named prompts are used.
    """

    source: str  # path or id
    prompts: Mapping[str, str]

    def digest(self) -> str: ...  # a checksum of everything that decides a vector

    def encode(self, texts: Sequence[str], /, *, prompt: str | None = None) -> Vectors: ...


@dataclass(frozen=True, kw_only=True)
class DevScores:
    """What an evaluation while training gave; higher is better."""

    value: float  # the mean of the scores: chooses the best checkpoint and stops early
    scores: Mapping[str, float]  # task → its main metric, ×100


@dataclass(frozen=True, kw_only=True)
class Hits:
    """Search results, best first; positions with no hit have id -1 and score -inf (or +inf for L2)."""

    ids: NDArray[np.int64]  # (queries, k)
    scores: NDArray[np.float32]  # (queries, k)
