"""How alike two texts look, whatever they mean: shared character n-grams and length, from bit sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

BITS = 4096  # a sentence has about 100 distinct trigrams; two unrelated ones collide in 2 or 3 of 4096
_CHUNK = 8192  # texts or pairs at a time: bounds the temporary arrays


def ngram_bits(texts: Sequence[str]) -> NDArray[np.uint8]:
    """The set of lower-case character trigrams (of UTF-8 bytes) of every text, hashed into 4096 bits: (texts, 512), by
    numpy's ``packbits``. A text is framed by spaces, so that word starts and ends count."""
    result = np.zeros((len(texts), BITS // 8), dtype=np.uint8)
    for start in range(0, len(texts), _CHUNK):
        part = [f" {' '.join(text.lower().split())} ".encode() for text in texts[start : start + _CHUNK]]
        sizes = np.fromiter(map(len, part), dtype=np.int64, count=len(part))
        letters = np.frombuffer(b"".join(part), dtype=np.uint8).astype(np.uint32)
        codes = letters[:-2] << np.uint32(16) | letters[1:-1] << np.uint32(8) | letters[2:]
        # Knuth's multiplicative hash; its upper bits are the well-mixed ones
        bucket = (codes * np.uint32(2654435761)) >> np.uint32(32 - 12)
        rows = np.repeat(np.arange(len(part)), sizes)
        inside = rows[: len(codes)] == rows[2:]  # not across two texts
        flags = np.zeros((len(part), BITS), dtype=bool)
        flags[rows[: len(codes)][inside], bucket[inside]] = True
        result[start : start + len(part)] = np.packbits(flags, axis=1)
    return result


def surface_of_pairs(
    bits: NDArray[np.uint8], left: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Surface similarity of rows ``left`` (pairs,) with rows ``right`` (pairs,) of ``bits``; see ``surface_table``."""
    words, result = np.ascontiguousarray(bits).view(np.uint64), np.empty(len(left), dtype=np.float32)
    sizes = np.bitwise_count(words).sum(axis=1, dtype=np.int64)
    for start in range(0, len(left), _CHUNK):
        one, other = left[start : start + _CHUNK], right[start : start + _CHUNK]
        shared = np.bitwise_count(words[one] & words[other]).sum(axis=1, dtype=np.int64)
        result[start : start + _CHUNK] = shared / np.maximum(np.maximum(sizes[one], sizes[other]), 1)
    return result


def surface_table(left: UInt8[Tensor, "n bytes"], right: UInt8[Tensor, "m bytes"]) -> Float[Tensor, "n m"]:
    """Surface similarity of every row of one bit table with every row of another, in [0, 1]: of their n-gram sets A, B

        sur(a, b) = |A ∩ B| / max(|A|, |B|) = overlap coefficient · ratio of the shorter set to the longer one
    """
    one, other = unpack_bits(left), unpack_bits(right)
    longer = torch.maximum(one.sum(1)[:, None], other.sum(1)[None, :])
    # sums of at most 4096 ones are exact in float32, but not in the half precision of autocast
    with torch.autocast(device_type=one.device.type, enabled=False):
        return (one @ other.T) / longer.clamp(min=1)


def unpack_bits(packed: UInt8[Tensor, "k bytes"]) -> Float[Tensor, "k bits"]:
    """``numpy.unpackbits`` of every row, as 0 and 1 in float32."""
    shift = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    return ((packed[:, :, None] >> shift) & 1).flatten(1).float()
