"""FAISS's kinds by name. A factory string of its own makes any other one that it can make."""

from __future__ import annotations

import math
from typing import ClassVar

from sentemb.parts import Count
from sentemb.search.vectors.faiss_index import FaissIndex


class Flat(FaissIndex):
    """Exact: every vector is compared; 4·d bytes a vector."""

    string = "Flat"


class Sq8(FaissIndex):
    """Every value in 8 bits; d bytes a vector."""

    string = "SQ8"


class SqFp16(FaissIndex):
    """Every value in half precision; 2·d bytes a vector."""

    string = "SQfp16"


class Hnsw(FaissIndex):
    """Graph over exact vectors; the fastest single queries, slow to build; 4·d + 8·m bytes a vector.

    Args:
        m: neighbours of a node on each level above the lowest, which has twice as many.
        build_effort: candidates for neighbours that adding a node looks at (efConstruction).

    Source: Malkov & Yashunin 2020, TPAMI; FAISS's defaults, but m = 32.
    Deviations: none.
    """

    def __init__(self, *, m: Count = 32, build_effort: Count = 40) -> None:
        super().__init__()
        self.m, self.build_effort = m, build_effort

    def factory(self, dimension: int, rows: int) -> str:
        return f"HNSW{self.m}"


class _InvertedLists(FaissIndex):
    """Vectors in lists around centroids; a search looks into the nearest lists.

    Args:
        lists: how many; None: about 4·√rows (FAISS wiki's guideline), a power of two, with at least 39 rows a list.
    """

    code: ClassVar[str]

    def __init__(self, *, lists: Count | None = None) -> None:
        super().__init__()
        self.lists = lists

    def factory(self, dimension: int, rows: int) -> str:
        wanted = 2 ** round(math.log2(4 * math.sqrt(max(rows, 1))))
        return f"IVF{self.lists or max(1, min(wanted, 65536, rows // 39))},{self.code}"


class IvfFlat(_InvertedLists):
    """Inverted lists of exact vectors; 4·d bytes a vector."""

    code = "Flat"


class IvfSq8(_InvertedLists):
    """Inverted lists, every value in 8 bits; d bytes a vector."""

    code = "SQ8"


class RaBitQ(_InvertedLists):
    """Inverted lists, one bit a value with an error bound; d/8 bytes a vector, and re-scored.

    Source: Gao & Long 2024, SIGMOD.
    Deviations: none.
    """

    is_coarse = True
    code = "RaBitQ"


class IvfPq(_InvertedLists):
    """Inverted lists of product codes, re-scored; ``bytes`` bytes a vector.

    Args:
        bytes: sub-quantisers of one byte; None: the largest divisor of d that is at most d/8.

    Source: Jégou, Douze & Schmid 2011, TPAMI.
    Deviations: none.
    """

    is_coarse = True
    code = "PQ"

    def __init__(self, *, lists: Count | None = None, bytes: Count | None = None) -> None:
        super().__init__(lists=lists)
        self.bytes = bytes

    def factory(self, dimension: int, rows: int) -> str:
        divisors = (m for m in range(1, dimension // 8 + 1) if dimension % m == 0)
        return f"{super().factory(dimension, rows)}{self.bytes or max(divisors, default=1)}"


class Binary(FaissIndex):
    """Signs only, re-scored; d/8 bytes a vector."""

    is_coarse = True
    string = "BFlat"


class Factory(FaissIndex):
    """Whatever FAISS's ``index_factory`` makes.

    Args:
        factory: such as ``IVF1024,SQ8`` or ``OPQ16,IVF4096,PQ16``; a leading B makes a binary index.
    """

    def __init__(self, *, factory: str) -> None:
        super().__init__()
        self.string = factory
        self.can_reconstruct = not ("fs" in factory or "LSH" in factory)  # or it could never be compacted
