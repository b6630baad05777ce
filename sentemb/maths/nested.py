"""Tables and rows of leading dimensions, for nested (Matryoshka) embeddings."""

from __future__ import annotations

from dataclasses import replace

from sentemb.maths.similarity import pairwise
from sentemb.types import Batch, PairScores, Rows


def narrow_rows(rows: Rows, width: int) -> Rows:
    """The rows' first ``width`` dimensions."""
    return replace(rows, embedding=rows.embedding[:, :width])


def narrow_table(table: PairScores, width: int) -> PairScores:
    """The table as the first ``width`` dimensions see it: other similarities, the same positives and log-weights.

    An edited table holds the rows behind all its columns, queued and made ones too, so edits need not run again.
    """
    anchor, candidate = narrow_rows(table.anchor, width), narrow_rows(table.candidate, width)
    sim = pairwise(anchor.embedding, candidate.embedding, table.similarity)
    return replace(table, sim=sim, anchor=anchor, candidate=candidate)


def narrow_batch(batch: Batch, width: int) -> Batch:
    """The batch with all views cut to their first ``width`` dimensions."""
    return replace(batch, views={name: narrow_rows(rows, width) for name, rows in batch.views.items()})
