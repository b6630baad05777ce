"""Other encoders' embeddings of the candidates stand beside one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import torch
from annotated_types import MinLen
from pydantic import AfterValidator

from sentemb.companions.companion import find_companion
from sentemb.companions.reference import Reference
from sentemb.edits.edit import Edit
from sentemb.errors import RecipeError
from sentemb.maths.table import add_candidates
from sentemb.types import Batch, PairScores

Names = Annotated[Sequence[str], MinLen(1), AfterValidator(tuple)]


class Regulators(Edit):
    """Append what frozen encoders r_k make of the positives, n columns each:

        role = "positive"     positive[i, k n + j] = 1[i = j]           r_k(d_i) is one more positive of anchor i
        role = "negative"     log_weight[i, k n + i] = -inf             r_k(d_j), j ≠ i, are further negatives alone

    An own design: several representations of every sentence enter the contrast, so that the encoder cannot fit one of
    them alone. The columns take no gradient; ids, texts and labels are the positives' own, so that ``false_negative``
    and ``same_label`` (listed after this edit) read them. The encoders are ``reference`` companions of the trained
    embeddings' width, for example earlier runs with other seeds.

    Args:
        of: names of the companions.
        role: see above.
    Returns:
        The table with n more columns a companion.
    Raises:
        RecipeError: a companion's embeddings have another width than the table's.
    Source: own, in the spirit of Tan et al. 2022 (contrastive regulators, RCL), of which only the abstract was read.
    Deviations: unknown; this is not RCL.
    """

    def __init__(self, *, of: Names = ("reference",), role: Literal["positive", "negative"] = "positive") -> None:
        super().__init__()
        self.of, self.role = of, role
        self.needs = frozenset(f"companion:{name}" for name in of)

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        n = len(table.anchor)
        own, positives = torch.eye(n, dtype=torch.bool, device=table.sim.device), batch.views["positive"]
        for name in self.of:
            reference = find_companion(batch.companions, name, Reference, self.name)
            embedding, is_known = reference.embeddings("positive", positives, batch.outputs)
            if embedding.shape[1] != positives.embedding.shape[1]:
                raise RecipeError(
                    f"edit {self.name}: the embeddings of the companion {name} have {embedding.shape[1]} dimensions, "
                    f"the trained ones {positives.embedding.shape[1]}; take a model of the same width"
                )
            removed = ~is_known[None, :] | (own if self.role == "negative" else torch.zeros_like(own))
            table = add_candidates(
                table, replace(positives, embedding=embedding.to(table.candidate.embedding.dtype)),
                positive=own & is_known if self.role == "positive" else None,
                log_weight=torch.zeros_like(table.sim[:, :n]).masked_fill(removed, -torch.inf),
            )
        return table
