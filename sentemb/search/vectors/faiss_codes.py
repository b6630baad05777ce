"""Inside FAISS indexes: their parts, and rows moved between them as codes, so that nothing is decoded or lost."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.search.vectors.faiss_library import faiss

COPIED = 65_536  # codes copied at a time


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
