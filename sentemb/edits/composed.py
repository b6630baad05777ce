"""The positive of a sentence is the mean of its parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from annotated_types import MinLen

from sentemb.edits.edit import Edit
from sentemb.encoder.heads import refuse_coupling
from sentemb.maths.similarity import at_least_float32
from sentemb.maths.table import take_rows, with_candidates
from sentemb.types import UNKNOWN, Batch, Build, PairScores, SentenceModule
from sentemb.views.view import ViewNames


class Composed(Edit):
    """Put the mean of several views' pooled rows in the place of every in-batch candidate:

        q_i = mean_{v ∈ of} p_i^v,    candidate_i = heads(q_i)

    p are the rows behind the pooling, before the heads; the gradient reaches all views of the mean. A composed row
    keeps its example's id; it is no text, so it has no content hash. List this edit before those that read
    similarities or append columns by them.

    Args:
        of: the views, at least two.
    Returns:
        The table with other candidates in columns 0…n-1; log-weights, positives and further columns stay.
    Raises:
        RecipeError: (when built) a head couples rows: the composed rows would be a batch of their own for it.
    Source: Chanchani & Huang 2023, ACL, "Composition-contrastive learning for sentence embeddings", released code.
    Deviations: none for BERT. For RoBERTa the released code joins half of each vector instead of taking the mean.
    """

    def __init__(self, *, of: Annotated[ViewNames, MinLen(2)] = ("positive", "part_2")) -> None:
        super().__init__()
        self.of = of
        self.needs = frozenset({"pooled", *(f"view:{name}" for name in of)})

    def bind(self, build: Build) -> None:
        """Remember the encoder's heads."""
        refuse_coupling(build.encoder, f"edits: {self.name} sends rows of its own")
        self._encoder: tuple[SentenceModule] = (build.encoder,)  # not a module of its own

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        mean = torch.stack([batch.pooled[name] for name in self.of]).mean(dim=0)
        in_batch = take_rows(table.candidate, slice(len(mean)))
        rows = replace(
            in_batch, embedding=at_least_float32(self._encoder[0].project(mean)),
            text=torch.full_like(in_batch.text, UNKNOWN),
        )
        return with_candidates(table, rows)
