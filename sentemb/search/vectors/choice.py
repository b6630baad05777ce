"""The kind of an index: from what a user wrote, or chosen from numbers."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import Any

from sentemb.errors import SearchError
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
    table: dict[str, Any] = {"use": text}
    if _FACTORY.match(text):
        table = {"use": "faiss", "factory": text}
    elif given := _SETTINGS.match(text):
        table = {"use": given["use"], **dict(map(_setting, given["settings"].split(",")))}
    try:
        kind = room("kinds").make(table)
    except PartError as error:
        advice = 'a kind is also auto or a FAISS factory string such as "IVF1024,SQ8"'
        raise SearchError(f'kind = "{text}": {error}; {advice}') from None
    assert isinstance(kind, VectorIndex)
    return kind


def _setting(entry: str) -> tuple[str, Any]:
    """``KEY=VALUE``; a value is read as TOML, or else as text."""
    name, _, value = entry.partition("=")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()


def choose(
    kind: str | VectorIndex, *, rows: int, dimension: int, memory_bytes: int | None, target_recall: float,
    rescore: bool | None,
) -> Choice:
    """The kind, and the reason for it, for an index of ``rows`` vectors; the arguments are those of ``BuildOptions``.

    Raises:
        SearchError: no such kind, or none fits.
    """
    reason = "asked for"
    if kind == "auto":
        kind, reason = _automatic(rows, dimension, memory_bytes, target_recall)
    kind = kind_of(kind)
    is_rescored = (kind.is_coarse if rescore is None else rescore) or not kind.can_reconstruct
    return Choice(kind=kind, reason=reason, is_rescored=is_rescored)


def check_fits(kind: str | VectorIndex, dimension: int, metric: Metric) -> None:
    """Raises SearchError where the kind cannot be made for these vectors."""
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
