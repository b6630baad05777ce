"""FAISS's own objects: made, read, taken apart; rows moved between them as codes; errors in plain words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError, needs_extra
from sentemb.maths.neighbours import Metric

needs_extra("faiss", "search")
import faiss as _faiss  # noqa: E402
from faiss.contrib.inspect_tools import get_invlist  # noqa: E402

faiss: Any = _faiss  # its own type stubs know half of its classes
COPIED = 65_536  # codes copied at a time


def create_raw(factory: str, dimension: int, metric: Metric) -> Any:
    """An empty FAISS index; one of bits where the factory string begins with B.

    Raises:
        SearchError: FAISS does not know the string, or it does not fit the dimension.
    """
    try:
        if factory.startswith("B"):
            raw = faiss.index_binary_factory(dimension, factory)
        else:
            measure = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
            raw = faiss.index_factory(dimension, factory, measure)
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
        if factory.startswith("B"):
            return faiss.read_index_binary(str(path))
        # inverted lists map through IO_FLAG_MMAP, flat codes and graphs through the newer _IFC; never both
        mapping = faiss.IO_FLAG_MMAP if "IVF" in factory else faiss.IO_FLAG_MMAP_IFC
        return faiss.read_index(str(path), mapping if is_mapped else 0)
    except RuntimeError as error:
        raise SearchError(f"{path}: FAISS cannot read it ({reason(error)}); restore the index from a copy") from None


def reason(error: RuntimeError) -> str:
    """FAISS's own words without its C++ signature."""
    return re.split(r"^Error in .* at \S+:\d+: ", " ".join(str(error).split()))[-1][:200]


def inner_ivf(raw: Any) -> Any:
    """The inverted-file index inside transforms, or None."""
    inner = faiss.try_extract_index_ivf(raw)
    return None if inner is None else faiss.downcast_index(inner)


def inner_graph(raw: Any) -> Any:
    """The graph inside transforms, or None."""
    while isinstance(raw, faiss.IndexPreTransform):
        raw = faiss.downcast_index(raw.index)
    return raw if isinstance(raw, faiss.IndexHNSW) else None


def copy_codes(source: Any, target: Any, rows: NDArray[np.int64]) -> bool:
    """Append rows (ascending) of a float index to another of its kind, code by code; False: they cannot be copied."""
    if type(target) is not type(source):
        return False
    ivf = inner_ivf(target)
    if isinstance(ivf, faiss.IndexIVFFastScan):
        return False
    if ivf is not None:
        _copy_lists(inner_ivf(source).invlists, ivf.invlists, rows, source.ntotal, target.ntotal)
        # of the transform around it as well, where there is one
        ivf.ntotal = target.ntotal = target.ntotal + len(rows)
        return True
    if not isinstance(target, faiss.IndexFlatCodes) or isinstance(target, faiss.IndexFastScan):
        return False
    codes = faiss.rev_swig_ptr(source.codes.data(), source.codes.size()).reshape(-1, source.code_size)
    for start in range(0, len(rows), COPIED):
        target.add_sa_codes(np.ascontiguousarray(codes[rows[start : start + COPIED]]))
    return True


def _copy_lists(source: Any, target: Any, rows: NDArray[np.int64], source_rows: int, first: int) -> None:
    """The rows' entries of every inverted list, numbered from ``first`` on."""
    new_row = np.full(source_rows, -1, dtype=np.int64)
    new_row[rows] = first + np.arange(len(rows))
    for number in range(source.nlist):
        ids, codes = get_invlist(source, number)
        keep = new_row[ids] >= 0
        if keep.any():
            # named, because swig_ptr does not keep an array alive
            new_ids, new_codes = new_row[ids][keep], codes[keep]
            target.add_entries(number, len(new_ids), faiss.swig_ptr(new_ids), faiss.swig_ptr(new_codes))
