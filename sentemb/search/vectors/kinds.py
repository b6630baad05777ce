"""Kinds of index by name, and the choice among them from numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from sentemb.errors import SearchError, did_you_mean
from sentemb.machine.resources import free_memory

GIB = 1 << 30
UNKNOWN_MEMORY = 8 * GIB  # what is taken to be free where the system does not say
FLAT_ROWS = 100_000  # up to here one query scans everything in about 10 ms on one core


@dataclass(frozen=True)
class Choice:
    """A kind with its FAISS factory string and the reason it was taken."""

    kind: str
    factory: str
    reason: str
    rescored: bool


def _lists(rows: int) -> int:
    """Inverted lists: about 4·√rows (FAISS wiki's guideline), a power of two, at least 39 rows a list."""
    wanted: int = 2 ** round(math.log2(max(4 * math.sqrt(max(rows, 1)), 1)))
    return max(1, min(wanted, 65536, max(rows // 39, 1)))


def _pq_bytes(dimension: int) -> int:
    """Sub-quantisers: the largest divisor of the dimension that is at most an eighth of it."""
    return max((m for m in range(1, dimension // 8 + 1) if dimension % m == 0), default=1)


# kind -> (factory string for rows and dimension, what it is)
KINDS: dict[str, tuple[Callable[[int, int], str], str]] = {
    "flat": (lambda n, d: "Flat", "exact; 4·d bytes a vector"),
    "sq8": (lambda n, d: "SQ8", "every value in 8 bits; d bytes a vector"),
    "sqfp16": (lambda n, d: "SQfp16", "every value in half precision; 2·d bytes a vector"),
    "hnsw": (lambda n, d: "HNSW32", "graph over exact vectors; fastest single queries, slow to build"),
    "ivf-flat": (lambda n, d: f"IVF{_lists(n)},Flat", "inverted lists of exact vectors"),
    "ivf-sq8": (lambda n, d: f"IVF{_lists(n)},SQ8", "inverted lists, 8 bits a value"),
    "ivf-pq": (lambda n, d: f"IVF{_lists(n)},PQ{_pq_bytes(d)}", "inverted lists of product codes; d/8 bytes a vector"),
    "rabitq": (lambda n, d: f"IVF{_lists(n)},RaBitQ", "inverted lists, one bit a value with an error bound"),
    "binary": (lambda n, d: "BFlat", "signs only; d/8 bytes a vector"),
}
# kinds whose scores are so coarse that without exact re-scoring their order is poor
COARSE = frozenset({"ivf-pq", "rabitq", "binary"})
_FACTORY = re.compile(r"^(?=.*[\d,]|(?:B?Flat|LSH|RaBitQ)$)[A-Z][A-Za-z0-9_]*(\([^()]*\))?(,[A-Za-z0-9_()+]+)*$")


def choose(
    kind: str, *, rows: int, dimension: int, memory_bytes: int | None, target_recall: float, rescore: bool | None
) -> Choice:
    """The kind, factory string and reason for an index of ``rows`` vectors.

    Args:
        kind: a name of ``KINDS``, ``auto``, or a FAISS factory string.
        memory_bytes: memory that the index may take when searched; half of the machine's free memory where None.
        rescore: keep half-precision vectors for exact re-scoring; by default only for the coarse kinds.

    Raises:
        SearchError: no such kind.
    """
    if kind == "auto":
        return _automatic(rows, dimension, memory_bytes, target_recall, rescore)
    if kind in KINDS:
        factory = KINDS[kind][0](rows, dimension)
        return Choice(kind, factory, "asked for", kind in COARSE if rescore is None else rescore)
    if _FACTORY.match(kind):
        # these codes cannot be read back, so without kept vectors such an index could never be compacted
        return Choice("factory", kind, "a factory string was given", bool(rescore) or "fs" in kind or "LSH" in kind)
    raise SearchError(
        f'kind = "{kind}"{did_you_mean(kind, ["auto", *KINDS])}; or a FAISS factory string such as "IVF1024,SQ8"'
    )


def _automatic(rows: int, dimension: int, memory: int | None, recall: float, rescore: bool | None) -> Choice:
    budget = (free_memory() or UNKNOWN_MEMORY) // 2 if memory is None else memory
    exact = rows * dimension * 4
    said = f"{rows:,} × {dimension} vectors take {_size(exact)} exactly, the memory budget is {_size(budget)}"

    def chosen(kind: str, why: str) -> Choice:
        rescored = kind in COARSE if rescore is None else rescore
        return Choice(kind, KINDS[kind][0](rows, dimension), f"{said}; {why}", rescored)

    if exact <= budget and (rows <= FLAT_ROWS or recall >= 1):
        return chosen("flat", "a scan is exact and fast enough at this size")
    if recall >= 1:
        raise SearchError(f"auto: target recall 1 needs exact vectors; {said}; lower the target or raise the budget")
    if exact <= budget:
        return chosen("ivf-flat", f"inverted lists reach recall {recall:g} with a part of a scan's work")
    if rows * (dimension + 8) <= budget:
        return chosen("ivf-sq8", "8 bits a value fit, at a loss of recall well below 1 %")
    code = rows * (_pq_bytes(dimension) + 8)
    if code <= budget:
        why = "product codes fit; half-precision vectors on the disk restore the order of the best candidates"
        return chosen("ivf-pq", why)
    raise SearchError(
        f"auto: {said}; even product codes take {_size(code)}; raise the budget or truncate vectors (dim)"
    )


def training_rows(factory: str, rows: int, dimension: int) -> int:
    """Vectors to train on: 64 per inverted list or centroid (k-means gains little beyond), at most 128 MiB of them."""
    lists = max((int(found) for found in re.findall(r"IVF(\d+)", factory)), default=0)
    wanted = max(64 * lists, 256 * 64, 4096)
    return min(rows, wanted, max((128 << 20) // (4 * dimension), 1024))


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / (1 << 20):.1f} MiB"
