"""The kind of an index: from what a user wrote, or chosen from numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sentemb.errors import SearchError, did_you_mean
from sentemb.machine.resources import free_memory
from sentemb.maths.neighbours import Metric
from sentemb.parts import PartError, room
from sentemb.search.vectors.kind import VectorIndex

GIB = 1 << 30
FLAT_ROWS = 100_000  # up to here one query scans everything in about 10 ms on one core
_FACTORY = re.compile(r"^(?=.*[\d,]|(?:B?Flat|LSH|RaBitQ)$)[A-Z][A-Za-z0-9_]*(\([^()]*\))?(,[A-Za-z0-9_()+]+)*$")
_SETTINGS = re.compile(r"^(?P<use>.+?):(?P<settings>\w+=[^:]*)$")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A kind and the reason it was taken."""

    kind: VectorIndex
    reason: str
    is_rescored: bool


def kind_of(text: str | VectorIndex) -> VectorIndex:
    """The kind that ``hnsw``, ``hnsw:m=16,build_effort=80``, ``my_package.kinds:Mine`` or ``IVF1024,SQ8`` names.

    Raises:
        SearchError: there is no such kind, or it has no such setting.
    """
    if isinstance(text, VectorIndex):
        return text.fresh()
    kinds = room("kinds")
    if _FACTORY.match(text):
        return _made({"use": "faiss", "factory": text})
    given = _SETTINGS.match(text)
    use = given["use"] if given else text
    if ":" not in use and use not in kinds.names():
        raise SearchError(
            f'kind = "{text}"{did_you_mean(use, ["auto", *kinds.names()])}; or a FAISS factory string such as '
            '"IVF1024,SQ8"'
        )
    table: dict[str, Any] = {"use": use}
    for pair in given["settings"].split(",") if given else ():
        name, _, value = pair.partition("=")
        table[name.strip()] = _value(value.strip())
    return _made(table)


def _made(table: dict[str, Any]) -> VectorIndex:
    try:
        made = room("kinds").make(table)
    except PartError as error:
        raise SearchError(f"kind: {error}") from None
    assert isinstance(made, VectorIndex)
    return made


def _value(text: str) -> str | int | float | bool:
    if text in ("true", "false"):
        return text == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def choose(
    kind: str | VectorIndex, *, rows: int, dimension: int, memory_bytes: int | None, target_recall: float,
    rescore: bool | None,
) -> Choice:
    """The kind, and the reason for it, for an index of ``rows`` vectors.

    Args:
        kind: see ``kind_of``, or ``auto``.
        memory_bytes: memory that the index may take when searched; half of the machine's free memory where None.
        rescore: keep half-precision vectors for exact re-scoring; by default only for the coarse kinds.

    Raises:
        SearchError: no such kind, or none fits.
    """
    if kind == "auto":
        chosen, reason = _automatic(rows, dimension, memory_bytes, target_recall)
        kind = kind_of(chosen)
    else:
        kind, reason = kind_of(kind), "asked for"
    is_rescored = (kind.is_coarse if rescore is None else rescore) or not kind.can_reconstruct
    return Choice(kind=kind, reason=reason, is_rescored=is_rescored)


def check_fits(kind: str | VectorIndex, dimension: int, metric: Metric) -> None:
    """Whether the kind can be made for these vectors.

    Raises:
        SearchError: it cannot.
    """
    if kind != "auto":
        kind_of(kind).create(dimension=dimension, metric=metric, rows=1000)


def _automatic(rows: int, dimension: int, memory: int | None, recall: float) -> tuple[str, str]:
    budget = (free_memory() or 2 * GIB) // 2 if memory is None else memory
    exact = rows * dimension * 4
    sizes = f"{rows:,} × {dimension} vectors take {_size(exact)} exactly, the memory budget is {_size(budget)}"
    if exact <= budget and (rows <= FLAT_ROWS or recall >= 1):
        return "flat", f"{sizes}; a scan is exact and fast enough at this size"
    if recall >= 1:
        raise SearchError(f"auto: target recall 1 needs exact vectors; {sizes}; lower the target or raise the budget")
    if exact <= budget:
        return "ivf-flat", f"{sizes}; inverted lists reach recall {recall:g} with a part of a scan's work"
    if rows * (dimension + 8) <= budget:
        return "ivf-sq8", f"{sizes}; 8 bits a value fit, at a loss of recall well below 1 %"
    codes = rows * (dimension // 8 + 8)
    if codes <= budget:
        why = "product codes fit; half-precision vectors on the disk restore the order of the best candidates"
        return "ivf-pq", f"{sizes}; {why}"
    raise SearchError(
        f"auto: {sizes}; even product codes take {_size(codes)}; raise the budget or truncate vectors (dim)"
    )


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / (1 << 20):.1f} MiB"
