"""FAISS's own objects: made, read, written, taken apart; rows moved between them as codes; errors in plain words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError, needs_extra
from sentemb.maths.neighbours import Metric

needs_extra("faiss", "search")
import faiss as _faiss  # noqa: E402

faiss: Any = _faiss  # its own type stubs know half of its classes
IO_BLOCK = 1 << 20
COPIED = 65_536  # codes copied at a time


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


def inner_ivf(raw: Any) -> Any:
    """The inverted-file index inside transforms, or None."""
    inner = faiss.try_extract_index_ivf(raw)
    return None if inner is None else faiss.downcast_index(inner)


def inner_graph(raw: Any) -> Any:
    """The graph inside transforms, or None."""
    while isinstance(raw, faiss.IndexPreTransform):
        raw = faiss.downcast_index(raw.index)
    return raw if isinstance(raw, faiss.IndexHNSW) else None


def clusterings(raw: Any) -> list[Any]:
    """The k-means that an index trains with, but for those of rotations."""
    kmeans = [raw.cp] if isinstance(raw, (faiss.IndexIVF, faiss.IndexBinaryIVF)) else []
    if isinstance(raw, (faiss.IndexIVFPQ, faiss.IndexPQ)):
        kmeans.append(raw.pq.cp)
    return kmeans


def rotation_quantisers(raw: Any) -> list[Any]:
    """A product quantiser for every OPQ rotation to train with in place of its own, so that it can be set."""
    quantisers = []
    if isinstance(raw, faiss.IndexPreTransform):
        for number in range(raw.chain.size()):
            rotation = faiss.downcast_VectorTransform(raw.chain.at(number))
            if isinstance(rotation, faiss.OPQMatrix):
                quantisers.append(faiss.ProductQuantizer(rotation.d_out, rotation.M, 8))
                rotation.pq = quantisers[-1]
    return quantisers


def can_copy_codes(target: Any, source: Any) -> bool:
    """Whether ``copy_codes`` can move rows of one float index to the other."""
    if type(target) is not type(source):
        return False
    ivf = inner_ivf(target)
    if ivf is not None:
        return not isinstance(ivf, faiss.IndexIVFFastScan)
    return isinstance(target, faiss.IndexFlatCodes) and not isinstance(target, faiss.IndexFastScan)


def copy_codes(source: Any, target: Any, rows: NDArray[np.int64]) -> None:
    """Append the given rows (ascending) of ``source`` to ``target``."""
    ivf = inner_ivf(target)
    if ivf is not None:
        total = int(target.ntotal) + len(rows)
        _copy_lists(inner_ivf(source).invlists, ivf.invlists, rows, int(source.ntotal), int(target.ntotal))
        ivf.ntotal = total
        target.ntotal = total  # of the transform around it, where there is one
        return
    size = int(source.code_size)
    codes = faiss.rev_swig_ptr(source.codes.data(), int(source.ntotal) * size).reshape(-1, size)
    for start in range(0, len(rows), COPIED):
        block = np.ascontiguousarray(codes[rows[start : start + COPIED]])
        target.add_sa_codes(block)


def codes_of_binary(raw: Any, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Codes of the rows of a binary index, (rows, code bytes)."""
    size = int(raw.code_size)
    storage = faiss.downcast_IndexBinary(raw.storage) if isinstance(raw, faiss.IndexBinaryHNSW) else raw
    if isinstance(storage, faiss.IndexBinaryFlat):
        codes = faiss.rev_swig_ptr(storage.xb.data(), int(storage.ntotal) * size).reshape(-1, size)
        return np.array(codes[rows])
    if isinstance(storage, faiss.IndexBinaryIVF):
        storage.make_direct_map()
    return np.stack([storage.reconstruct(row) for row in rows.tolist()]) if len(rows) else np.empty((0, size), np.uint8)


def _copy_lists(source: Any, target: Any, rows: NDArray[np.int64], source_rows: int, first: int) -> None:
    """The rows' entries of every inverted list, numbered from ``first`` on."""
    new_row = np.full(source_rows, -1, dtype=np.int64)
    new_row[rows] = first + np.arange(len(rows))
    size = int(source.code_size)
    for number in range(int(source.nlist)):
        count = int(source.list_size(number))
        if not count:
            continue
        ids, codes = _list(source, number, count, size)
        moved = new_row[ids]
        keep = moved >= 0
        if keep.any():
            # named, because swig_ptr does not keep an array alive
            new_ids, new_codes = np.ascontiguousarray(moved[keep]), np.ascontiguousarray(codes[keep])
            target.add_entries(number, len(new_ids), faiss.swig_ptr(new_ids), faiss.swig_ptr(new_codes))


def _list(lists: Any, number: int, count: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Ids and codes of one inverted list, copied."""
    ids, codes = lists.get_ids(number), lists.get_codes(number)
    try:
        return (
            faiss.rev_swig_ptr(ids, count).copy(),
            faiss.rev_swig_ptr(codes, count * size).reshape(count, size).copy(),
        )
    finally:
        lists.release_ids(number, ids)
        lists.release_codes(number, codes)
