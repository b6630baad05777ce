"""Two texts with hidden states, for terms that read tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sentemb.types import Batch, Build, Encoded, Rows, Tokens, Vocabulary

IDS = torch.tensor([[2, 10, 11, 12, 3], [2, 13, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
ORDINARY = [(0, 1), (0, 2), (0, 3), (1, 1)]  # (row, place)


class Heads(nn.Module):
    """A sentence module of one linear head."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.head = nn.Linear(width, width).double()

    def project(self, pooled: Tensor, *, exported: bool = False) -> Tensor:
        return self.head(pooled)


def build_with(encoder: nn.Module, width: int = 4) -> Build:
    """A ``Build`` around this encoder."""
    vocabulary = Vocabulary(size=20, pad=0, mask=4, special=frozenset({0, 2, 3}))
    return Build(
        backbone="", width=width, vocabulary=vocabulary, encoder=encoder, load_encoder=lambda _: encoder,  # type: ignore[arg-type, return-value]
    )


def token_batch(hidden: Tensor, sentences: Tensor, *, ids: Tensor = IDS, mask: Tensor = MASK, start: int = 0) -> Batch:
    """This device's two texts are rows ``start`` and ``start + 1`` of the sentences."""
    n = len(sentences)
    rows = Rows(embedding=sentences, ids=torch.arange(n), text=torch.arange(n))
    tokens = Tokens(input_ids=ids, attention_mask=mask)
    return Batch(
        views={"anchor": rows, "positive": rows}, local=slice(start, start + len(ids)),
        tokens={"anchor": tokens, "positive": tokens},
        encoded={"anchor": Encoded(pooled=hidden[:, 0], hidden=hidden)},
    )


def normal(*shape: int, seed: int = 0) -> Tensor:
    """float64 draws of a normal distribution."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
