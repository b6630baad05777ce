"""Schedules of a mixture: which source gives the next batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentemb.data.repeated_texts import RowNumbers
from sentemb.errors import DataError
from sentemb.parts import NonNegative, Part


@dataclass(frozen=True, kw_only=True)
class Supply:
    """What the sources of a mixture have to give, in their order."""

    names: tuple[str, ...]
    rows: RowNumbers  # (sources,)
    batches: RowNumbers  # (sources,) that one pass over the source makes
    weight: NDArray[np.float64]  # (sources,) above 0


class Turns(Part, room="turns"):
    """Decides the order of the sources in an epoch; a schedule of one's own implements ``order``."""

    def order(self, supply: Supply, generator: np.random.Generator) -> RowNumbers:
        """The source of every batch of an epoch, as a number from 0.

        There must be equally many in every epoch. A source that comes more often than it has batches is shuffled and
        read again. Randomness comes from the generator alone, so that every device makes the same order.
        """
        raise NotImplementedError


class Floor(Turns):
    """Every source gives all its batches once in an epoch, in random order:

        batches of a source = floor(weight · floor(rows / batch_size))

    Up to a weight of 1 every row comes at most once in an epoch. A large source therefore fills most of the steps.

    Source: released code of "CoDiEmb" (single-task batches: floor(rows / batch size) of each source, remainder dropped
        after shuffling, the batches of all sources shuffled).
    Deviations: weights.
    """

    def order(self, supply: Supply, generator: np.random.Generator) -> RowNumbers:
        """All batches, shuffled."""
        counts = _whole(supply, supply.weight * supply.batches)
        return generator.permutation(np.repeat(np.arange(len(counts)), counts))


@dataclass(frozen=True, kw_only=True)
class Power(Turns):
    """Every batch's source is drawn, a large one more often than a small one, but less than its size says:

        p(source) ∝ weight · rows^alpha

    An epoch has as many batches as all sources have together. Small sources recur in it, reshuffled every time.

    Args:
        alpha: 1 draws by size, 0 draws all sources equally often; the inverse of what is called temperature.
    Source: none; drawing sources by a power of their size is common practice.
    Deviations: ours: weights.
    """

    alpha: NonNegative

    def order(self, supply: Supply, generator: np.random.Generator) -> RowNumbers:
        """One draw a batch."""
        share = supply.weight * supply.rows.astype(np.float64) ** self.alpha
        drawn: RowNumbers = generator.choice(len(share), size=int(supply.batches.sum()), p=share / share.sum())
        return drawn


class RoundRobin(Turns):
    """The sources take turns, equally spaced, until the first of them has given all its batches:

        batches of a source = floor(weight · min over sources (batches / weight))

    With equal weights that is one batch of each in their order, again and again. Every row comes at most once in an
    epoch, and other rows of a large source do in another one.

    Source: the round-robin rule of sentence-transformers' batch samplers of several data sets.
    Deviations: ours: weights.
    """

    def order(self, supply: Supply, generator: np.random.Generator) -> RowNumbers:
        """No draw at all."""
        counts = _whole(supply, supply.weight * (supply.batches / supply.weight).min())
        position = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
        turns: RowNumbers = np.repeat(np.arange(len(counts)), counts)[np.argsort(position, kind="stable")]
        return turns


def _whole(supply: Supply, batches: NDArray[np.float64]) -> RowNumbers:
    """Rounded down; DataError where a source would never have its turn."""
    counts: RowNumbers = np.floor(batches + 1e-9).astype(np.int64)  # 3 · (5 / 3) is 5
    for name, rows, weight, count in zip(supply.names, supply.rows, supply.weight, counts, strict=True):
        if not count:
            raise DataError(
                f'source "{name}": {rows:,} rows of weight {weight:g} make no batch in an epoch; raise its weight or '
                "give it more rows"
            )
    return counts


PARTS: dict[str, type[Turns]] = {"floor": Floor, "power": Power, "round_robin": RoundRobin}
