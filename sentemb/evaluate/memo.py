"""Vectors of texts that were encoded before, up to a number of bytes; beyond it, the memory starts afresh."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
MEMO_BYTES = 2 * 2**30


class Memo:
    """Sides of pairs and whole tasks share many of their texts (STS-B is drawn from STS12 to 17): each text is encoded
    once a run, with each prompt."""

    def __init__(self, limit: int = MEMO_BYTES) -> None:
        self.limit = limit
        self._row: dict[tuple[str | None, str], int] = {}
        self._matrix: Vectors = np.zeros((0, 0), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._row)

    def vectors(self, texts: Sequence[str], prompt: str | None, encode: Callable[[list[str]], Vectors]) -> Vectors:
        """Vectors of the texts, (texts, d); ``encode`` is asked for those that are not known, once each."""
        distinct = list(dict.fromkeys(texts))
        unknown = [text for text in distinct if (prompt, text) not in self._row]
        fresh = encode(unknown) if unknown else None
        if fresh is not None and fresh.nbytes + len(self) * fresh.itemsize * fresh.shape[1] > self.limit:
            return self._without_memory(texts, distinct, unknown, fresh, prompt)
        if fresh is not None:
            self._add(unknown, prompt, fresh)
        return self._matrix[[self._row[prompt, text] for text in texts]]

    def _without_memory(
        self, texts: Sequence[str], distinct: list[str], unknown: list[str], fresh: Vectors, prompt: str | None
    ) -> Vectors:
        kept = [text for text in distinct if (prompt, text) in self._row]
        row = {text: i for i, text in enumerate([*unknown, *kept])}
        known = [self._matrix[[self._row[prompt, text] for text in kept]]] if kept else []
        self._row.clear()
        self._matrix = np.zeros((0, 0), dtype=np.float32)
        together = np.concatenate([fresh, *known]) if known else fresh
        return together if len(row) == len(texts) and not known else together[[row[text] for text in texts]]

    def _add(self, texts: list[str], prompt: str | None, fresh: Vectors) -> None:
        start = len(self)
        if start + len(fresh) > len(self._matrix):
            grown = np.empty((max(start + len(fresh), 2 * start), fresh.shape[1]), dtype=np.float32)
            if start:
                grown[:start] = self._matrix[:start]
            self._matrix = grown
        self._matrix[start : start + len(fresh)] = fresh
        self._row.update({(prompt, text): start + i for i, text in enumerate(texts)})
