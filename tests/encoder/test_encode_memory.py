"""Memory that does not suffice for a batch (the allocator really fails): half the tokens, the same vectors; then an
error."""

from __future__ import annotations

import logging
import subprocess
import sys
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


_LIMITED = """
import resource, sys
import numpy as np
import torch

torch.set_num_threads(1)
from sentemb import Encoder
from sentemb.errors import OutOfMemory

folder, extra = sys.argv[1], int(sys.argv[2]) << 20
encoder = Encoder.load(folder, precision="fp32")
texts = [f"word {row} and so on with some further words in it " * 12 for row in range(64)]
wanted = encoder.encode(texts[:2])
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (used + extra, used + extra))
try:
    print("equal" if np.abs(encoder.encode(texts)[:2] - wanted).max() < 1e-5 else "different")
except OutOfMemory as error:
    print(f"OutOfMemory: {error}")
"""


@pytest.mark.slow  # it loads the real model in a process of its own
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the limit is set from what /proc says")
@pytest.mark.parametrize(
    ("extra", "allowed"), [(5, {"OutOfMemory"}), (60, {"OutOfMemory", "equal"}), (2000, {"equal"})]
)
def test_under_a_limit_of_the_system(extra: int, allowed: set[str], minilm: Path) -> None:
    """MiB beside what the process holds: vectors or the one message, never another error."""
    run = subprocess.run([sys.executable, "-c", _LIMITED, str(minilm), str(extra)], capture_output=True, text=True,
                         timeout=200, check=False)
    assert run.returncode == 0, run.stderr
    outcome, _, said = run.stdout.splitlines()[-1].partition(": ")
    assert outcome in allowed
    assert outcome == "equal" or said.startswith("out of memory in a batch of ")
