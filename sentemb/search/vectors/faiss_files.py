"""FAISS's own objects: from a factory string, from a file, to a file; and its errors in plain words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sentemb.errors import SearchError
from sentemb.maths.neighbours import Metric
from sentemb.search.vectors.faiss_library import faiss

IO_BLOCK = 1 << 20


def is_binary(factory: str) -> bool:
    """Whether a factory string names an index of bits."""
    return factory.startswith("B")


def create_raw(factory: str, dimension: int, metric: Metric) -> Any:
    """An empty FAISS index.

    Raises:
        SearchError: FAISS does not know the string, or it does not fit the dimension.
    """
    try:
        if is_binary(factory):
            if dimension % 8:
                raise SearchError(f'factory "{factory}": the dimension must be divisible by 8, not {dimension}')
            raw = faiss.index_binary_factory(dimension, factory)
        else:
            raw = faiss.index_factory(
                dimension, factory, faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
            )
    except RuntimeError as error:
        raise SearchError(f'factory "{factory}" with dimension {dimension}: {reason(error)}') from None
    for classes, why in (
        ((faiss.IndexIDMap, faiss.IndexIDMap2), "leave out IDMap; sentemb keeps the ids itself"),
        ((faiss.IndexRefine, faiss.IndexIVFPQR), "leave out the refinement; rescore compares the best ones exactly"),
        (faiss.IndexNSG, "an NSG graph must get all vectors at once; HNSW graphs grow"),
    ):
        if isinstance(raw, classes):
            raise SearchError(f'factory "{factory}": {why}')
    return raw


def read_raw(path: Path, factory: str, *, is_mapped: bool) -> Any:
    """The FAISS index of a file whose checksum was verified.

    Raises:
        SearchError: FAISS cannot read it.
    """
    try:
        if is_binary(factory):
            return faiss.read_index_binary(str(path))
        # inverted lists map through IO_FLAG_MMAP, flat codes and graphs through the newer _IFC; never both
        mapping = faiss.IO_FLAG_MMAP if "IVF" in factory else faiss.IO_FLAG_MMAP_IFC
        return faiss.read_index(str(path), mapping if is_mapped else 0)
    except RuntimeError as error:
        raise SearchError(f"{path}: FAISS cannot read it ({reason(error)}); restore the index from a copy") from None


def write_raw(raw: Any, write: Callable[[bytes], object], *, is_binary: bool) -> None:
    """Serialise through ``write``, which takes each block and may raise (its own error comes through)."""
    fault: list[BaseException] = []

    def guarded(block: bytes) -> int:
        try:
            write(block)
            return len(block)
        except BaseException as error:
            fault.append(error)
            return 0

    try:
        writer = faiss.PyCallbackIOWriter(guarded, IO_BLOCK)
        (faiss.write_index_binary if is_binary else faiss.write_index)(raw, writer)
    except RuntimeError as error:
        if fault:
            raise fault[0] from None
        raise SearchError(f"FAISS cannot write this index: {reason(error)}") from None
    if fault:
        raise fault[0]


def reason(error: RuntimeError) -> str:
    """FAISS's own words without its C++ signature."""
    text = " ".join(str(error).split())
    text = re.split(r"^Error in .* at \S+:\d+: ", text)[-1]
    broken = re.fullmatch(r"Error: '(.*?)' failed:? ?(.*)", text)
    if broken is not None:
        text = broken[2] or f"{broken[1]} does not hold"
    return text[:200] or "no reason given"
