"""Texts find the vectors of another modality that belong to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from sentemb.data.vector_codes import CodedVectors
from sentemb.data.vector_files import open_npy
from sentemb.errors import DataError
from sentemb.maths.similarity import at_least_float32
from sentemb.parts import Count
from sentemb.terms.term import Term
from sentemb.types import Batch, Build, Examples, PairScores, Services, Temperature
from sentemb.views.view import ViewNames


class GroundedContrast(Term):
    """Softmax of every text over the fixed vectors of the batch, in a space that text and vectors are both mapped to:

        t_i = unit(tanh(W_t p_i + b_t)),    g_i = unit(tanh(W_g x_i + b_g))
        L = -mean_{v ∈ of} 1/|K| Σ_{i ∈ K} log( exp(t_i^v · g_i / τ) / Σ_{j ∈ K} exp(t_i^v · g_j / τ) )

    p are a view's rows behind the pooling, before the heads; x_i is the vector of the example, such as the features of
    the image that a caption describes. K are the batch's examples that have a vector: examples without one count
    neither as anchors nor as candidates. Both maps are learned and left behind after training. The term stands beside
    ``info_nce``, with a small weight.

    Args:
        path: a .npy file of floating-point vectors, one row for every row of the data; a row with NaN says that the
            example has none. It is read as it is needed, so it may be larger than memory.
        width: of the space in common; 256 in MCSE.
        temperature: τ; 0.05 in MCSE.
        of: the views.
    Returns: 0 where no example or only one has a vector.
    Raises:
        DataError: (when built) the file is no such array; (when prepared) it has fewer rows than the data.
    Source: Zhang et al. 2022, NAACL, "MCSE: Multimodal contrastive learning of sentence embeddings", released code.
    Deviations: a batch may hold examples with and without vectors; ``train.batches`` = grouped by label, one group a
        batch, keeps them apart as the released code does, which also draws one caption an image at random.
    """

    def __init__(
        self, *, path: str = "vectors.npy", width: Count = 256, temperature: Temperature = 0.05,
        of: ViewNames = ("anchor", "positive"),
    ) -> None:
        super().__init__()
        self.path, self.width, self.temperature, self.of = path, width, temperature, of
        self.needs = frozenset({"pooled", *(f"view:{name}" for name in of)})
        self._vectors: NDArray[Any] | CodedVectors

    @property
    def files(self) -> tuple[str, ...]:
        """The vectors."""
        return (self.path,)

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """Rows that are skipped would move the others away from their vectors."""
        if "data" in recipe and recipe["data"].skip_faulty:
            return ["finds vectors by the row of the data; it takes no data.skip_faulty"]
        return []

    def bind(self, build: Build) -> None:
        """Open the vectors and make both maps."""
        self._vectors = open_npy(self.path, f"terms: {self.name}: path = ")
        self.text_map = nn.Linear(build.encoder.pooled_width, self.width)
        self.vector_map = nn.Linear(self._vectors.shape[1], self.width)

    def prepare(self, dataset: Examples, services: Services) -> None:
        """See that every row of the data has its row of the file."""
        if len(self._vectors) < len(dataset):
            raise DataError(
                f"terms: {self.name}: path = {self.path} has {len(self._vectors):,} rows, the data have "
                f"{len(dataset):,}; give it one for each, NaN where an example has no vector"
            )

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        rows, vectors = self._known(batch.views["anchor"].ids)
        grounded = self._mapped(self.vector_map, vectors)
        own = torch.arange(len(rows), device=rows.device)
        losses = []
        for name in self.of:
            texts = self._mapped(self.text_map, batch.pooled[name][rows])
            with torch.autocast(device_type=texts.device.type, enabled=False):
                logits = texts @ grounded.T / self.temperature
            losses.append(F.cross_entropy(logits, own) if len(rows) else logits.sum() + texts.sum() + grounded.sum())
        return torch.stack(losses).mean()

    def _known(self, ids: Int[Tensor, " n"]) -> tuple[Int[Tensor, " k"], Float[Tensor, "k x"]]:
        """The places in the batch that have a vector, and those vectors."""
        vectors = torch.from_numpy(np.asarray(self._vectors[ids.cpu().numpy()], dtype=np.float32))
        rows = torch.isfinite(vectors).all(dim=1).nonzero()[:, 0]
        return rows.to(ids.device), vectors[rows].to(ids.device)

    def _mapped(self, linear: nn.Linear, rows: Float[Tensor, "k p"]) -> Float[Tensor, "k w"]:
        return F.normalize(at_least_float32(linear(rows.to(linear.weight.dtype)).tanh()), dim=1)

