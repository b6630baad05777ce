"""An encoder and documents for tests of the index: real vectors, no model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

DIMENSION = 16


class ToyEncoder:
    """A text's vector is the mean of fixed random vectors of its words: equal words, near vectors."""

    source = "toy"
    prompts: ClassVar[Mapping[str, str]] = {}

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.encoded: list[str] = []

    def digest(self) -> str:
        return hashlib.sha256(f"toy {self.seed}".encode()).hexdigest()

    def encode(self, texts: Sequence[str], *, prompt: str | None = None) -> NDArray[np.float32]:
        texts = [prompt + text for text in texts] if prompt else texts
        self.encoded += texts
        out = np.empty((len(texts), DIMENSION), dtype=np.float32)
        for i, text in enumerate(texts):
            words = text.split()
            out[i] = np.mean([self._word(word) for word in words], axis=0)
        return out

    def _word(self, word: str) -> NDArray[np.float32]:
        seed = int.from_bytes(hashlib.sha256(f"{self.seed} {word}".encode()).digest()[:4], "little")
        return np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)


def vectors(rows: int, dimension: int = DIMENSION, seed: int = 0) -> NDArray[np.float32]:
    """Clustered unit vectors."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(12, dimension))
    found = centres[generator.integers(0, 12, rows)] + 0.6 * generator.normal(size=(rows, dimension))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
