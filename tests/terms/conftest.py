"""Tables and batches for the terms' tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sentemb import Encoder
from sentemb.types import Batch, Build, PairScores, Rows, Vocabulary


def rows(embedding: Tensor, label: Tensor | None = None, start: int = 100) -> Rows:
    ids = torch.arange(start, start + len(embedding))
    return Rows(embedding=embedding, ids=ids, text=ids + 10_000, label=label)


@pytest.fixture
def table_of() -> Callable[..., PairScores]:
    """``table_of(sim, positive=…, log_weight=…, label=…, candidate_label=…)``; positives: the diagonal."""

    def make(
        sim: Tensor,
        positive: Tensor | None = None,
        log_weight: Tensor | None = None,
        label: Tensor | None = None,
        candidate_label: Tensor | None = None,
    ) -> PairScores:
        n, m = sim.shape
        if positive is None:
            positive = torch.eye(n, m, dtype=torch.bool)
        if log_weight is None:
            log_weight = torch.zeros_like(sim)
        anchor, candidate = rows(sim.new_zeros(n, 1), label), rows(sim.new_zeros(m, 1), candidate_label)
        return PairScores(sim=sim, positive=positive, log_weight=log_weight, anchor=anchor, candidate=candidate)

    return make


@pytest.fixture
def batch_of() -> Callable[..., Batch]:
    """``batch_of(n, …)``: a batch whose other fields are keywords of ``Batch``."""

    def make(n: int = 2, **fields: object) -> Batch:
        defaults: dict[str, object] = {"views": {}, "local": slice(0, n), "tokens": {}, "encoded": {}, "step": 7}
        return Batch(**{**defaults, **fields})  # type: ignore[arg-type]

    return make


@pytest.fixture
def random_sim() -> Callable[..., Tensor]:
    """``random_sim(n, m, seed=0)``: float64 cosines that require a gradient."""

    def make(n: int, m: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return (torch.rand(n, m, generator=generator, dtype=torch.float64) * 1.8 - 0.9).requires_grad_()

    return make


@pytest.fixture
def build_for() -> Callable[..., Build]:
    """``build_for(backbone, width)``: what a part's ``bind`` receives."""

    def make(backbone: str = "", width: int = 32, vocabulary: Vocabulary | None = None) -> Build:
        def no_second_encoder(_: str) -> object:
            raise AssertionError("no term loads a second encoder")

        return Build(
            backbone=backbone,
            width=width,
            vocabulary=vocabulary or Vocabulary(size=30, pad=0, mask=4, special=frozenset({0, 2, 3})),
            encoder=torch.nn.Identity(),  # type: ignore[arg-type]
            load_encoder=no_second_encoder,  # type: ignore[arg-type]
        )

    return make


@pytest.fixture(scope="module")
def build(tiny_bert: Path) -> Build:
    """What parts of a recipe on the tiny model are bound with."""
    encoder = Encoder.load(tiny_bert)
    return Build(backbone=str(tiny_bert), width=32, vocabulary=encoder.vocabulary, encoder=encoder.module,
                 load_encoder=lambda _: encoder.module, tokenise=encoder.tokeniser)
