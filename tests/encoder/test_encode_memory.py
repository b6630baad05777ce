"""Memory that does not suffice for a batch (the allocator really fails): half the tokens, the same vectors; then an
error."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sentemb import Encoder
from sentemb.encoder.encode import TokenBudget, compute_batches
from sentemb.errors import OutOfMemory

TEXTS = [f"dog {row} {'red ' * (row % 7)}" for row in range(60)]
CPU = torch.device("cpu")


def want_too_much() -> None:
    torch.empty(1 << 62, dtype=torch.uint8)


def fail_otherwise() -> None:
    raise RuntimeError("another fault")


def greedy(encoder: Encoder, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of more tokens than ``most`` want more memory than any machine has."""
    runner = encoder._runner("fp32")

    def run(column: Any, prompt_tokens: int = 0) -> torch.Tensor:
        if len(column) * column.lengths.max() > most:
            want_too_much()
        return runner(column, prompt_tokens)

    monkeypatch.setattr(encoder, "_runner", lambda precision: run)


def test_batches_are_halved_once_for_the_rest_of_the_call() -> None:
    lengths, computed = np.array([8] * 6 + [4] * 5), []

    def compute(begin: int, end: int) -> None:
        if end - begin > 3:
            want_too_much()
        computed.append((begin, end))

    budget = TokenBudget(32, CPU)
    with pytest.raises(OutOfMemory, match=r"4 texts of .*batch_tokens = 16 \(halved from 32\).* 4 or"):
        compute_batches(lengths, budget, compute)
    assert computed == [(0, 2), (2, 4), (4, 6)]
    with pytest.raises(OutOfMemory, match="--max-tokens"):
        compute_batches(np.array([8]), TokenBudget(None, CPU), lambda begin, end: want_too_much())
    with pytest.raises(RuntimeError, match="another"):
        compute_batches(lengths, TokenBudget(None, CPU), lambda begin, end: fail_otherwise())


def test_the_vectors_stay_the_same(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Encoder.load(tiny_bert, precision="fp32")
    expected = encoder.encode(TEXTS, batch_tokens=400)
    greedy(encoder, 200, monkeypatch)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(encoder.encode(TEXTS, batch_tokens=400), expected, atol=1e-6)
    assert len(caplog.records) == 1
    assert "with batch_tokens = 400; going on with" in caplog.text
    with pytest.raises(OutOfMemory, match=r"batch_tokens \(--batch-tokens\)"):
        encoder.encode(TEXTS, batch_tokens=4096)
