"""Vectors in fewer bytes: half precision, a byte an entry, a bit an entry; and a search by bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import DataError, did_you_mean
from sentemb.types import Vectors

VectorType = Literal["float32", "float16", "int8", "ubinary"]
VECTOR_TYPES: tuple[str, ...] = get_args(VectorType)
CODING_KEY = b"sentemb"  # where a parquet file's metadata say how its vectors are coded
_BLOCK = 8192  # rows


def vector_type(name: str) -> VectorType:
    """``name`` as a type; raises ``DataError`` for another name."""
    if name not in VECTOR_TYPES:
        raise DataError(f'dtype = "{name}"{did_you_mean(name, VECTOR_TYPES)}')
    return cast(VectorType, name)


def note_beside(path: Path) -> Path:
    """The file beside a .npy file that says how its vectors are coded."""
    return path.with_name(f"{path.name}.json")


@dataclass(frozen=True, kw_only=True)
class Coding:
    """How a file's numbers stand for vectors; the names are those of sentence-transformers' ``quantize_embeddings``:

        int8      x ≈ low + (c + 128) · (high - low) / 255      low, high of every dimension, from a sample
        ubinary   sign(x), eight dimensions a byte, the first in the highest bit; read as ±1 / √width

    Args:
        dtype: float32, float16, int8 or ubinary.
        width: of the vectors.
        low, high: the sample's least and largest value of every dimension, for int8.

    Source: sentence-transformers' ``quantize_embeddings``.
    Deviations: values are rounded, not cut, and those outside the sample's range take the nearest code, where they come
        round there.
    """

    dtype: VectorType
    width: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @classmethod
    def of(cls, dtype: str, sample: Vectors) -> Coding:
        """Fitted to a sample (rows, width); raises ``DataError`` for an unknown type."""
        kind = vector_type(dtype)
        low = high = np.zeros(0, dtype=np.float32)
        if dtype == "int8" and len(sample):
            low, high = sample.min(axis=0), sample.max(axis=0)
        return cls(dtype=kind, width=sample.shape[1], low=tuple(low.tolist()), high=tuple(high.tolist()))

    @classmethod
    def read(cls, facts: Mapping[str, Any], where: str) -> Coding:
        """From what ``facts`` wrote; raises ``DataError`` where it is something else."""
        try:
            made = cls(**facts)
            has_ranges = len(made.low) == len(made.high) == made.width
            if made.dtype not in VECTOR_TYPES or (made.dtype == "int8" and made.low and not has_ranges):
                raise ValueError(made.dtype)
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: does not say how vectors are coded ({error}); encode the texts again") from None
        return made

    @property
    def numbers(self) -> np.dtype[Any]:
        """Of the coded entries."""
        return np.dtype({"float32": "<f4", "float16": "<f2", "int8": "i1", "ubinary": "u1"}[self.dtype])

    @property
    def columns(self) -> int:
        """How many coded entries a vector has."""
        return -(-self.width // 8) if self.dtype == "ubinary" else self.width

    def encode(self, vectors: Vectors) -> NDArray[Any]:
        """The codes of vectors, (rows, columns)."""
        if self.dtype == "ubinary":
            bits: NDArray[np.uint8] = np.packbits(vectors > 0, axis=1)
            return bits
        if self.dtype == "int8":
            low, step = self._steps()
            codes: NDArray[np.int8] = np.clip(np.rint((vectors - low) / step) - 128, -128, 127).astype(np.int8)
            return codes
        return np.ascontiguousarray(vectors, dtype=self.numbers)

    def decode(self, codes: NDArray[Any]) -> Vectors:
        """The vectors that codes stand for, (rows, width) in float32."""
        if self.dtype == "ubinary":
            bits = np.unpackbits(np.asarray(codes, dtype=np.uint8), axis=1, count=self.width)
            signs: Vectors = (2 * bits.astype(np.float32) - 1) / np.float32(np.sqrt(self.width))
            return signs
        if self.dtype == "int8":
            low, step = self._steps()
            values: Vectors = low + (np.asarray(codes, dtype=np.float32) + 128) * step
            return values
        return np.asarray(codes, dtype=np.float32)

    def _steps(self) -> tuple[Vectors, Vectors]:
        low, high = (np.array(bound, dtype=np.float32) for bound in (self.low, self.high))
        return low, np.where(high > low, (high - low) / 255, 1).astype(np.float32)


class CodedVectors:
    """Rows of codes, perhaps of a mapped file, that read as the vectors which they stand for: ``[rows]``, ``len``,
    ``shape`` and ``numpy.asarray`` as of an array (rows, width) of float32."""

    ndim, dtype = 2, np.dtype(np.float32)

    def __init__(self, codes: NDArray[Any], coding: Coding) -> None:
        self.codes, self.coding = codes, coding

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.codes), self.coding.width

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: slice | Sequence[int] | NDArray[Any]) -> Vectors:
        return self.coding.decode(self.codes[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or np.float32, copy=False)


def search_bits(
    queries: Vectors, documents: CodedVectors, k: int, *, rescore: Any = None, multiplier: int = 4
) -> tuple[NDArray[np.int64], Vectors]:
    """The k nearest of vectors that are kept as bits: the ``k · multiplier`` rows whose bits differ least from the
    query's, ordered by the inner product of the whole query with their vectors.

    Args:
        queries: (n, width) in float32.
        documents: of the type ubinary.
        rescore: the same rows in a better form (an array, or ``CodedVectors`` of int8, both perhaps mapped files), of
            which the few that were found are read; None: the bits themselves.
    Returns:
        Rows and scores, (n, k), best first.
    Raises:
        DataError: no bits, or rows or widths that differ.
    """
    coding = documents.coding
    if coding.dtype != "ubinary":
        raise DataError(f"search_bits needs vectors of the type ubinary; these are {coding.dtype}")
    better = documents if rescore is None else rescore
    if better.shape != documents.shape or queries.shape[1] != coding.width:
        raise DataError(f"search_bits: queries {queries.shape}, documents {documents.shape}, rescore {better.shape}; "
                        "all have one width, and the documents one number of rows")
    k = min(k, len(documents))
    count = min(k * multiplier, len(documents))
    ids, scores = np.empty((len(queries), k), dtype=np.int64), np.empty((len(queries), k), dtype=np.float32)
    for number, (query, bits) in enumerate(zip(queries, coding.encode(queries), strict=True)):
        distance = np.concatenate([
            np.bitwise_count(np.asarray(documents.codes[start : start + _BLOCK]) ^ bits).sum(axis=1, dtype=np.uint16)
            for start in range(0, len(documents), _BLOCK)
        ] or [np.empty(0, np.uint16)])  # fmt: skip
        near = np.sort(np.argsort(distance, kind="stable")[:count])
        products = np.asarray(better[near], dtype=np.float32) @ query
        best = np.argsort(-products, kind="stable")[:k]
        ids[number], scores[number] = near[best], products[best]
    return ids, scores
