"""A frozen encoder that says how alike two texts are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sentemb.companions.companion import Companion
from sentemb.encoder.digest import fingerprint, require_same
from sentemb.errors import RecipeError
from sentemb.types import Build, Examples, Rows, SentenceModule, Services, TokenColumn, Tokens


class Reference(Companion):
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
        super().__init__()
        self.model, self.precompute = model, precompute
        if not precompute:
            self.needs = frozenset({"tokens"})
        self.encoder: nn.Module | None = None
        self._fingerprint: Tensor | None = None
        self.register_buffer("hashes", torch.empty(0, dtype=torch.int64), persistent=False)  # ascending
        self.register_buffer("table", torch.empty(0, 0, dtype=torch.float16), persistent=False)
        self.hashes: Tensor
        self.table: Tensor

    def bind(self, build: Build) -> None:
        """Load the frozen encoder."""
        encoder = build.load_encoder(self.model or build.backbone)
        assert isinstance(encoder, nn.Module)
        self.encoder = encoder.eval().requires_grad_(False)
        self._fingerprint = fingerprint(encoder)

    def train(self, mode: bool = True) -> Reference:
        """Stay in evaluation mode: a reference has no dropout."""
        return super().train(False)

    def prepare(self, dataset: Examples, services: Services) -> None:
        """Encode every distinct text of the data set, where ``precompute`` asks for it."""
        if not self.precompute:
            return
        column = distinct_texts(dataset)
        services.say(f"reference: encoding {len(column):,} distinct texts")
        device = self.hashes.device
        self.hashes = torch.from_numpy(column.text).to(device)
        self.table = torch.from_numpy(services.embed(self._module(), column)).half().to(device)

    @torch.no_grad()
    def observe(self, tokens: Mapping[str, Tokens], views: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Unit embeddings of this device's anchors and positives; equal inputs are encoded once."""
        if self.precompute:
            return {}
        anchor, positive = tokens["anchor"], tokens["positive"]
        first = self._embed(anchor)
        is_twin = anchor.input_ids.shape == positive.input_ids.shape and torch.equal(
            anchor.input_ids, positive.input_ids
        )
        return {"anchor": first, "positive": first if is_twin else self._embed(positive)}

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

    def lookup(self, text: Int[Tensor, " k"]) -> tuple[Float[Tensor, "k d"], Bool[Tensor, " k"]]:
        """Embeddings by content hash from the precomputed table, and which of them are there."""
        if not len(self.hashes):
            raise RecipeError(f"companion {self.name}: nothing was precomputed; set precompute = true")
        place = torch.searchsorted(self.hashes, text).clamp(max=len(self.hashes) - 1)
        return self.table[place].float(), self.hashes[place] == text

    def checkpoint_state(self) -> dict[str, Tensor]:
        """Only which model it is: weights and table are rebuilt."""
        assert self._fingerprint is not None
        return {"fingerprint": self._fingerprint}

    def load_checkpoint_state(self, state: Mapping[str, Tensor]) -> None:
        """Check that the same model was loaded again."""
        assert self._fingerprint is not None
        require_same(state, self._fingerprint, "companion reference")

    def _module(self) -> SentenceModule:
        assert self.encoder is not None
        return self.encoder  # type: ignore[return-value]

    def _embed(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        encoder = self._module()
        return F.normalize(encoder.project(encoder(tokens).pooled, exported=True).float(), dim=-1)


def distinct_texts(dataset: Examples, names: tuple[str, ...] | None = None) -> TokenColumn:
    """Every distinct text of the named columns (all by default), by ascending content hash."""
    columns = [column for name, column in dataset.columns.items() if names is None or name in names]
    hashes = np.concatenate([column.text for column in columns])
    _, first = np.unique(hashes, return_index=True)
    sizes = np.cumsum([0, *map(len, columns)])
    parts = [
        column.take(first[(first >= start) & (first < stop)] - start)
        for column, start, stop in zip(columns, sizes[:-1], sizes[1:], strict=True)
    ]
    lengths = np.concatenate([part.lengths for part in parts])
    joined = TokenColumn(
        np.concatenate([part.flat for part in parts]),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([part.text for part in parts]),
    )
    return joined.take(np.argsort(joined.text, kind="stable"))
