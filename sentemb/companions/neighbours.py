"""Which texts of the data set lie near which, by a frozen encoder: where mined negatives come from."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from sentemb.companions.frozen_encoder import Corpus, FrozenEncoder
from sentemb.parts import Count, Whole
from sentemb.types import Examples, Services


class Neighbours(FrozenEncoder):
    """The nearest other texts of every text in one column of the data, found once before training:

        N(x) = the ``count`` texts y ≠ x with the largest cosine, without the ``skip`` nearest
        cosine of a frozen encoder, centred on the corpus

    The view copy ``mined`` draws hard negatives from N, the edit ``mined`` drops those that are too near. Differs
    from ``sentemb mine`` in working inside the training run, from the data alone; texts that are not in the data, BM25
    and cross-encoder filters are that command's.

    Args:
        model: path, ``package:…`` or hub id of the encoder, whose tokenizer must be that of the trained one; without
            it, the checkpoint from which the training starts.
        column: ``anchor`` for single sentences; ``positive`` for pairs, where the negatives of an anchor are the
            neighbours of its positive.
        count: neighbours kept of each text.
        skip: nearest ones left out, the likeliest false negatives.
    Source: Xiong et al. 2021, ICLR, "Approximate nearest neighbor negative contrastive learning" (ANCE), section 3;
        rank window: Qu et al. 2021, NAACL, "RocketQA", section 3.
    Deviations: found once, with a frozen encoder (ANCE refreshes them while training).
    """

    corpus: Corpus

    def __init__(
        self, *, model: str | None = None, column: Literal["anchor", "positive"] = "anchor", count: Count = 16,
        skip: Whole = 0,
    ) -> None:
        super().__init__(model=model)
        self.column, self.count, self.skip = column, count, skip

    def prepare(self, dataset: Examples, services: Services) -> None:
        self.corpus = self.corpus_of(dataset, self.column, services, neighbours=self.skip + self.count)

    def window(self, text: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Rows of the data set (n, ≤ count) that are the texts' neighbours, and which texts (n,) are known.

        A data set of fewer texts than ``skip + count`` gives fewer columns, at least one.
        """
        position, is_known = self.corpus.positions_of(torch.from_numpy(text))
        start = min(self.skip, self.corpus.neighbour.shape[1] - 1)
        return self.corpus.row[self.corpus.neighbour[position.numpy(), start:]], is_known.numpy()

    def similarity(
        self, left: Int[Tensor, " n"], right: Int[Tensor, " m"]
    ) -> tuple[Float[Tensor, "n m"], Bool[Tensor, "n m"]]:
        """Cosine of every text with every other by content hash, and where both are known."""
        one, one_known = self.corpus.positions_of(left)
        other, other_known = self.corpus.positions_of(right)
        known = (one_known[:, None] & other_known[None, :]).to(left.device)
        return self.corpus.similarity(one, other, left.device), known
