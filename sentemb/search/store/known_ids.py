"""Whether an id occurred before, among many millions, at 8 bytes each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sentemb.search.store.documents import Id


class KnownIds:
    """64-bit hashes of ids, in sorted runs of which each is more than twice as long as the next.

    Python's own hash is salted, so that nobody can prepare texts that collide. A hash that was seen is a suspicion
    only: the caller compares the ids themselves.
    """

    def __init__(self) -> None:
        self._runs: list[NDArray[np.int64]] = []

    def suspects(self, ids: Sequence[Id]) -> list[Id]:
        """Those of the ids that may occur twice among them, or may be known: few, unless they are."""
        hashes = np.fromiter(map(hash, ids), dtype=np.int64, count=len(ids))
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        found = np.zeros(len(ids), dtype=bool)
        found[1:] = ordered[1:] == ordered[:-1]
        for run in self._runs:
            place = np.minimum(np.searchsorted(run, ordered), len(run) - 1)
            found |= run[place] == ordered
        return [ids[i] for i in np.sort(order[found]).tolist()]

    def add(self, ids: Sequence[Id]) -> None:
        """Remember ids."""
        run = np.fromiter(map(hash, ids), dtype=np.int64, count=len(ids))
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.concatenate([self._runs.pop(), run])
        if len(run):
            self._runs.append(np.sort(run, kind="stable"))
