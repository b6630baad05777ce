"""Content hashes of texts: how every room knows that two texts are the same."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def text_hashes(texts: Sequence[str]) -> NDArray[np.int64]:
    """A 63-bit hash of every text, (texts,): non-negative, the same on every machine and in every run.

    BLAKE2b cut to 63 bits: among a million distinct texts, the chance that any two collide is 5e-8.
    The sign bit stays free because -1 marks rows that are no text.
    """
    # surrogatepass: a str from outside our readers may hold lone surrogates, and hashing must not fail on them
    digests = b"".join([blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts])
    return np.frombuffer(digests, dtype="<i8").astype(np.int64) & np.int64(2**63 - 1)
