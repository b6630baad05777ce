"""Which words of the vocabulary are alike, by the backbone's own word embeddings."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from sentemb.companions.companion import Companion
from sentemb.errors import ModelError
from sentemb.parts import Count
from sentemb.types import Build, Examples, Services

_NO_VECTORS = np.empty((0, 0), dtype=np.float32)


class SimilarWords(Companion):
    """The nearest other words of every word, found once before training:

        S(x) = the ``count`` tokens y ≠ x of the data with the largest cosine of the word embeddings

    by the word embeddings from which training starts. The view ``edited`` draws substitutes from S.

    Args:
        count: similar words of each word.
    Raises: ModelError where the encoder has no table of word embeddings.
    Source: the substitution of Wu et al. 2020, arXiv:2012.15466 (CLEAR), which replaces words by similar ones.
    Deviations: words are tokens, also pieces of words; only tokens that occur in the data count, special ones never.
        The number of similar words and the embeddings that compare them are ours.
    """

    def __init__(self, *, count: Count = 5) -> None:
        super().__init__()
        self.count = count
        self._vectors = _NO_VECTORS
        self._similar = np.empty((0, 1), dtype=np.int32)  # (vocabulary, ≤ count); of a token without any, itself

    def bind(self, build: Build) -> None:
        """Keep the word embeddings as they are before training."""
        assert isinstance(build.encoder, nn.Module)
        size = build.vocabulary.rows
        tables = (module for module in build.encoder.modules() if isinstance(module, nn.Embedding))
        table = next((module.weight for module in tables if module.num_embeddings >= size), None)
        if table is None:
            raise ModelError(f"companion {self.name}: the encoder has no table of word embeddings for {size} tokens")
        with torch.no_grad():
            self._vectors = F.normalize(table[:size].float(), dim=1).cpu().numpy().copy()
        self._special = np.fromiter(build.vocabulary.special, dtype=np.int64)

    def prepare(self, dataset: Examples, services: Services) -> None:
        """Find the similar words."""
        used = np.unique(np.concatenate([column.flat for column in dataset.columns.values()]))
        used = used[~np.isin(used, self._special)]
        self._similar = np.arange(len(self._vectors), dtype=np.int32)[:, None]
        if len(used) > 1:
            nearest, _ = services.nearest(self._vectors[used], min(self.count, len(used) - 1))
            self._similar = np.repeat(self._similar, nearest.shape[1], axis=1)
            self._similar[used] = used[nearest]
        self._vectors = _NO_VECTORS

    def similar(self, tokens: NDArray[np.int32]) -> NDArray[np.int32]:
        """The similar words of every token (k, ≤ count); of a special or an unseen one, itself."""
        return self._similar[tokens]
