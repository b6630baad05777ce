"""The token budget is found on real work, once, and changes no vector."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sentemb import Encoder
from sentemb.encoder import budget as budgets
from sentemb.encoder.budget import Budget, budget_for


def run(budget: Budget, rate: dict[int, float], batches: int = 100) -> list[int]:
    """Full batches, each at the rate of its size; the budgets that were asked for."""
    asked = []
    for number in range(batches):
        asked.append(budget())
        # the machine gets slower and slower, for all alike
        budget.told(asked[-1], asked[-1] / rate[asked[-1]] * (1 + number / 50))
    return asked


@pytest.mark.parametrize(("rate", "best"), [
    ({40: 1.0, 10: 1.2, 20: 1.1}, 10), ({40: 1.0, 10: 0.7, 20: 1.5}, 20), ({40: 2.0, 10: 1.2, 20: 1.1}, 40),
    ({40: 1.0, 10: 1.01, 20: 1.0}, 40),  # not clearly faster than the first
])
def test_the_fastest_is_kept(tmp_path: Path, rate: dict[int, float], best: int) -> None:
    path = tmp_path / "machine" / "budget.json"
    budget = Budget((40, 10, 20), path, rounds=3)
    asked = run(budget, rate)
    assert [sorted(asked[start : start + 3]) for start in (0, 3, 6)] == [[10, 20, 40]] * 3
    assert asked[9:] == [best] * 91
    assert json.loads(path.read_text()) == {"tokens": best}
    again = Budget((40, 10, 20), path)
    assert again.is_decided
    assert again() == best


def test_batches_that_are_not_full_tell_nothing(tmp_path: Path) -> None:
    budget = Budget((40, 10), tmp_path / "budget.json", rounds=1)
    for _ in range(50):
        budget.told(3, 1.0)
    assert not budget.is_decided
    assert budget() == 40


@pytest.mark.parametrize("content", ["", "[]", '{"tokens": 7}', '{"tokens": "40"}', '{"other": 40}'])
def test_a_damaged_memory_is_measured_again(tmp_path: Path, content: str) -> None:
    path = tmp_path / "budget.json"
    path.write_text(content)
    budget = Budget((40, 10), path, rounds=1)
    assert not budget.is_decided
    run(budget, {40: 1.0, 10: 2.0}, 4)
    assert json.loads(path.read_text()) == {"tokens": 10}


def test_a_cache_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    budget = Budget((40, 10), tmp_path / "file" / "budget.json", rounds=1)
    assert run(budget, {40: 1.0, 10: 2.0}, 4)[2:] == [10, 10]


def test_machines_and_models_have_budgets_of_their_own(tiny_bert: Path) -> None:
    backbone, cpu = Encoder.load(tiny_bert).module.backbone, torch.device("cpu")
    paths = {budget_for(backbone, dtype, cpu, form).path for dtype in (torch.float32, torch.bfloat16)
             for form in ("FastInference", "PlainInference")}
    assert len(paths) == 4
    assert budget_for(backbone, torch.float32, cpu, "x") is budget_for(backbone, torch.float32, cpu, "x")


def test_encoding_decides_a_budget_and_keeps_the_vectors(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTEMB_CACHE", str(tmp_path))
    monkeypatch.setattr(budgets, "_known", {})
    monkeypatch.setitem(budgets.CANDIDATES, "cpu", (64, 16, 32))
    words = ["dog", "cat", "river", "song", "city", "music"]
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(words, generator.integers(1, 12))) for _ in range(500)]
    encoder = Encoder.load(tiny_bert, precision="fp32")
    found = encoder.encode(texts)
    kept = list((tmp_path / "machine").glob("budget-*.json"))
    assert len(kept) == 1
    assert json.loads(kept[0].read_text())["tokens"] in (64, 16, 32)
    np.testing.assert_allclose(found, encoder.encode(texts, batch_tokens=48), atol=1e-6)
