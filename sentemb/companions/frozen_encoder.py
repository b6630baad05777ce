"""What companions with an encoder that never learns have in common, and what it makes of a whole data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from sentemb.companions.companion import Companion
from sentemb.encoder.digest import fingerprint, require_same
from sentemb.errors import DataError
from sentemb.types import UNKNOWN, Build, Examples, SentenceModule, Services

_EMBEDDINGS_AT_ONCE = 65_536


class FrozenEncoder(Companion):
    """Base of companions that look at the data with a second encoder, always in evaluation mode.

    A checkpoint holds only which model it is: what was made with it is made again.

    Args:
        model: path, ``package:…`` or hub id of the encoder, whose tokenizer must be that of the trained one; without
            it, the checkpoint from which the training starts.
    """

    encoder: SentenceModule
    model_bytes = 4

    def __init__(self, *, model: str | None = None) -> None:
        super().__init__()
        self.model = model

    def bind(self, build: Build) -> None:
        encoder = build.load_encoder(self.model or build.backbone)
        assert isinstance(encoder, nn.Module)
        self.encoder = encoder.eval().requires_grad_(False)
        self._fingerprint = fingerprint(encoder)

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stay in evaluation mode: a frozen encoder has no dropout."""
        return super().train(False)

    def checkpoint_state(self) -> dict[str, Tensor]:
        return {"fingerprint": self._fingerprint}

    def load_checkpoint_state(self, state: Mapping[str, Tensor]) -> None:
        """Raises: CheckpointError where the checkpoint was made with another model than the one that was loaded."""
        require_same(state, self._fingerprint, f"companion {self.name}")

    def corpus_of(self, dataset: Examples, column: str, services: Services, *, neighbours: int) -> Corpus:
        """Encode the distinct texts of a column and find each one's nearest others.

        Embeddings are centred on their mean before they are normalised again: untuned encoders put all sentences into
        a narrow cone, where cosines tell little (Mu & Viswanath 2018, ICLR, "All-but-the-top"); centred, two random
        sentences have a cosine near 0 whatever the encoder.

        Raises: DataError where the column is missing, or has fewer than three distinct texts.
        """
        part = f"companion {self.name}"
        if column not in dataset.columns:
            raise DataError(f"{part}: the data have no column {column}; found: {', '.join(dataset.columns)}")
        hashes, row = np.unique(dataset.columns[column].text, return_index=True)
        hashes, row = hashes[hashes != UNKNOWN], row[hashes != UNKNOWN]
        if len(row) < 3:
            raise DataError(f"{part}: {len(row)} distinct texts in the column {column}; at least 3 are needed")
        k = min(neighbours, len(row) - 1)
        services.say(f"{part}: encoding {len(row):,} distinct texts")
        vectors = services.embed(self.encoder, dataset.columns[column].take(row))
        vectors = vectors - vectors.mean(axis=0)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        services.say(f"{part}: finding the {k} nearest of each")
        neighbour, similarity = services.nearest(np.ascontiguousarray(vectors), k)
        return Corpus(torch.from_numpy(hashes), row, torch.from_numpy(vectors).half(), neighbour, similarity)


@dataclass(frozen=True)
class Corpus:
    """The distinct texts of one column, by ascending content hash; u of them. Lives on the host."""

    hashes: Int[Tensor, " u"]
    row: NDArray[np.int64]  # (u,) a row of the data set with that text
    embedding: Float[Tensor, "u d"]  # float16; centred on the corpus' mean, unit length
    neighbour: NDArray[np.int64]  # (u, k) positions of the nearest other texts, nearest first
    neighbour_sim: NDArray[np.float32]  # (u, k)

    def positions_of(self, text: Int[Tensor, " k"]) -> tuple[Int[Tensor, " k"], Bool[Tensor, " k"]]:
        """Where the texts stand, and which of them are here (the others' positions mean nothing)."""
        text = text.cpu()
        position = torch.searchsorted(self.hashes, text).clamp(max=len(self.row) - 1)
        return position, self.hashes[position] == text

    def similarity(
        self, left: Int[Tensor, " n"], right: Int[Tensor, " m"], device: torch.device
    ) -> Float[Tensor, "n m"]:
        """Cosine of every position in ``left`` with every position in ``right``, computed on ``device``."""
        return self.embedding[left].to(device).float() @ self.embedding[right].to(device).float().T

    def similarity_of_pairs(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float32]:
        """Cosines of the pairs (left[i], right[i])."""
        result = np.empty(len(left), dtype=np.float32)
        for start in range(0, len(left), _EMBEDDINGS_AT_ONCE):
            part = slice(start, start + _EMBEDDINGS_AT_ONCE)
            product = self.embedding[left[part]].float() * self.embedding[right[part]].float()
            result[part] = product.sum(dim=1).numpy()
        return result
