"""A trainable sentence module small enough to follow by hand, and what companions need beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sentemb.types import Batch, Build, Encoded, Examples, Rows, Services, TokenColumn, Tokens, Vocabulary

VOCABULARY = Vocabulary(size=40, pad=0, mask=4, special=frozenset({0, 2, 3}))


class TinyModule(nn.Module):
    """Mean of token vectors, dropout, then a BatchNorm head that is exported too."""

    def __init__(self, width: int = 4, *, seed: int = 0) -> None:
        super().__init__()
        self.width = self.exported_width = width
        self.tokens = nn.Embedding(VOCABULARY.size, width)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, tokens: Tokens, *, hidden: bool = False, attentions: bool = False) -> Encoded:
        mask = tokens.attention_mask[..., None].float()
        vectors = self.dropout(self.tokens(tokens.input_ids))
        return Encoded(pooled=(vectors * mask).sum(1) / mask.sum(1))

    def project(self, pooled: Tensor, *, exported: bool = False) -> Tensor:
        return self.norm(self.head(pooled))


def tokens_of(rows: Sequence[Sequence[int]]) -> Tokens:
    """Padded token rows."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return Tokens(input_ids=ids, attention_mask=mask)


def column_of(rows: Sequence[Sequence[int]], text: Sequence[int] | None = None) -> TokenColumn:
    """A token column; hashes count from 0 unless given."""
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    flat = np.array([token for row in rows for token in row], dtype=np.int32)
    return TokenColumn(
        flat=flat, offsets=offsets, text=np.array(range(len(rows)) if text is None else text, dtype=np.int64)
    )


def build_of(module: TinyModule, frozen: TinyModule | None = None, seen: list[str] | None = None) -> Build:
    """A ``Build`` whose ``load_encoder`` gives ``frozen`` and notes what it was asked for."""

    def load(source: str, *, by_text: bool = False) -> TinyModule:
        if seen is not None:
            seen.append(source)
        return frozen or TinyModule(seed=7)

    return Build(backbone="start", width=module.width, vocabulary=VOCABULARY, encoder=module, load_encoder=load)


def batch_of(rows: Sequence[Sequence[int]], ids: Sequence[int]) -> Batch:
    """A batch of one device with these anchors; text hash = id + 1000."""
    known = torch.tensor(list(ids))
    anchor = Rows(embedding=torch.zeros(len(ids), 4), ids=known, text=known + 1000)
    return Batch(views={"anchor": anchor}, local=slice(0, len(ids)), tokens={"anchor": tokens_of(rows)}, encoded={})


def services_of(words: Sequence[str], said: list[str] | None = None) -> Services:
    """Services that embed with the given module, search by brute force, and decode by a word list."""

    def embed(module: TinyModule, column: TokenColumn | Sequence[str]) -> np.ndarray:
        was_training = module.training
        module.eval()
        if isinstance(column, TokenColumn):
            rows = [column.flat[a:b].tolist() for a, b in zip(column.offsets[:-1], column.offsets[1:], strict=True)]
        else:
            rows = [[words.index(word) for word in text.split()] for text in column]
        with torch.no_grad():
            vectors = module.project(module(tokens_of(rows)).pooled, exported=True)
        module.train(was_training)
        return nn.functional.normalize(vectors, dim=1).numpy()

    def nearest(vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        sim = vectors @ vectors.T
        np.fill_diagonal(sim, -np.inf)
        order = np.argsort(-sim, axis=1, kind="stable")[:, :k]
        return order.astype(np.int64), np.take_along_axis(sim, order, axis=1).astype(np.float32)

    def decode(column: TokenColumn) -> list[str]:
        rows = [column.flat[a:b].tolist() for a, b in zip(column.offsets[:-1], column.offsets[1:], strict=True)]
        return [" ".join(words[token] for token in row if token not in VOCABULARY.special) for row in rows]

    return Services(embed=embed, nearest=nearest, decode=decode, say=(said if said is not None else []).append)


def examples_of(*, words: Sequence[str] | None = None, **columns: TokenColumn) -> Examples:
    """A data set of these columns with ids 0, 1, …, and their texts where a word list is given."""
    texts = {} if words is None else {
        name: [" ".join(words[token] for token in column.flat[a:b])
               for a, b in zip(column.offsets[:-1], column.offsets[1:], strict=True)]
        for name, column in columns.items()
    }
    return Examples(ids=np.arange(len(next(iter(columns.values()))), dtype=np.int64), columns=columns, texts=texts)
