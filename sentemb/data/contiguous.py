"""Batches of rows that follow one another in the data."""

from __future__ import annotations

import numpy as np

from sentemb.data.orders import BatchOrder, Deal
from sentemb.types import Examples


class Contiguous(BatchOrder):
    """Every batch is a run of consecutive rows: sentences in the order of their texts, with their neighbours.

    Every epoch cuts the data elsewhere: it starts at a row drawn at random and goes round to the row before it, the
    last row of the data followed by the first. The rows of a last, smaller batch are left out. Batches come in random
    order. Meant for the edit ``neighbours_in_text``. As with ``shuffled``, a text may recur in a batch.

    Source: Logeswaran & Lee 2018, ICLR, "An efficient framework for learning sentence representations"
        (Quick-Thoughts): batches of consecutive sentences.
    Deviations: the paper reads the data once, in order; here batches are shuffled and cut elsewhere in every epoch. A
        run goes on into the next text (there would be no batch of texts shorter than one), whose sentences are
        negatives; which rows are neighbours the edit knows by the label.
    """

    def dealer(self, examples: Examples, *, batch_size: int) -> Deal:
        """One epoch is one round, cut into batches."""
        rows, size = len(examples), min(batch_size, len(examples))
        count = rows // size if size else 0

        def deal(generator: np.random.Generator) -> list[np.ndarray]:
            start = int(generator.integers(max(rows, 1)))
            batches = ((start + np.arange(count * size)) % max(rows, 1)).reshape(count, size)
            return list(generator.permutation(batches))

        return deal
