"""A frozen encoder that says how alike two texts are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sentemb.companions.companion import are_twins
from sentemb.companions.frozen_encoder import FrozenEncoder
from sentemb.data.tokens import concatenate
from sentemb.errors import RecipeError
from sentemb.types import UNKNOWN, Examples, Rows, Services, Tokens


class Reference(FrozenEncoder):
    """A second encoder, never trained, in evaluation mode:

        r(x) = f_ref(x) / ‖f_ref(x)‖

    Either it encodes the step's views (``outputs["NAME/anchor"]``, ``outputs["NAME/positive"]``), or,
    with ``precompute``, every distinct text of the data set once before training, which pays from the second epoch
    on and also knows queued and mined texts. Differs from ``momentum`` in never following the trained encoder.

    Args:
        model: path, ``package:…`` or hub id of the frozen encoder, whose tokenizer must be that of the trained one;
            without it, the checkpoint from which the training starts.
        precompute: encode the data set before training; costs 2 bytes a dimension and distinct text.
    Returns:
        ``observe``: unit embeddings (b, width) of the anchors and positives, unless precomputed.
    Source: Zhou et al. 2022, ACL, "Debiased contrastive learning of unsupervised sentence representations" (DCLR),
        section 4.2 (the complementary model).
    Deviations: the paper's complementary model is a trained SimCSE; here it is what ``model`` names.
    """

    def __init__(self, *, model: str | None = None, precompute: bool = False) -> None:
        super().__init__(model=model)
        self.precompute = precompute
        if not precompute:
            self.needs = frozenset({"tokens"})
        self.register_buffer("hashes", torch.empty(0, dtype=torch.int64), persistent=False)  # ascending
        self.register_buffer("table", torch.empty(0, 0, dtype=torch.float16), persistent=False)
        self.hashes: Tensor
        self.table: Tensor

    def prepare(self, dataset: Examples, services: Services) -> None:
        if not self.precompute:
            return
        texts = concatenate(list(dataset.columns.values()))
        hashes, row = np.unique(texts.text, return_index=True)
        column = texts.take(row[hashes != UNKNOWN])  # every distinct text, by ascending hash
        services.say(f"reference: encoding {len(column):,} distinct texts")
        device = self.hashes.device
        self.hashes = torch.from_numpy(column.text).to(device)
        self.table = torch.from_numpy(services.embed(self.encoder, column)).half().to(device)

    @torch.no_grad()
    def observe(self, tokens: Mapping[str, Tokens], views: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Unit embeddings of this device's anchors and positives; equal inputs are encoded once."""
        if self.precompute:
            return {}
        first = self._embed(tokens["anchor"])
        return {"anchor": first, "positive": first if are_twins(tokens) else self._embed(tokens["positive"])}

    def similarity(
        self, anchor: Rows, candidate: Rows, outputs: Mapping[str, Tensor]
    ) -> tuple[Float[Tensor, "n m"], Bool[Tensor, "n m"]]:
        """Reference cosine of every anchor with every candidate, and where it is known.

        Precomputed: known where both texts are in the data set. Otherwise known for the in-batch candidates only.
        """
        if self.precompute:
            left, left_known = self.lookup(anchor.text)
            right, right_known = self.lookup(candidate.text)
            return left @ right.T, left_known[:, None] & right_known[None, :]
        left, right = (outputs[f"{self.name}/{view}"].float() for view in ("anchor", "positive"))
        n, m = len(anchor), len(candidate)
        known = torch.arange(m, device=left.device) < n
        return F.pad(left @ right.T, (0, m - n)), known.expand(n, m)

    def embeddings(
        self, view: Literal["anchor", "positive"], rows: Rows, outputs: Mapping[str, Tensor]
    ) -> tuple[Float[Tensor, "n d"], Bool[Tensor, " n"]]:
        """Its unit embeddings of a view's rows, and which are known: all, unless precomputed."""
        if self.precompute:
            return self.lookup(rows.text)
        embedding = outputs[f"{self.name}/{view}"]
        return embedding, torch.ones(len(embedding), dtype=torch.bool, device=embedding.device)

    def lookup(self, text: Int[Tensor, " k"]) -> tuple[Float[Tensor, "k d"], Bool[Tensor, " k"]]:
        """Embeddings by content hash from the precomputed table, and which of them are there."""
        if not len(self.hashes):
            raise RecipeError(f"companion {self.name}: nothing was precomputed; set precompute = true")
        position = torch.searchsorted(self.hashes, text).clamp(max=len(self.hashes) - 1)
        return self.table[position].float(), self.hashes[position] == text

    def _embed(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        return F.normalize(self.encoder.project(self.encoder(tokens).pooled, exported=True).float(), dim=-1)
