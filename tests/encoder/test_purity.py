"""``encode`` is a function: same model, text, settings and device, same vector, up to rounding."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentemb import Encoder

WORDS = "the dog cat child runs eats plays music guitar red blue green river house song film book year world a".split()
ALLOWED = {"fp32": 1e-6, "bf16": 5e-3}  # an entry of a unit vector


def text_of(number: int) -> str:
    generator = np.random.default_rng(number)
    return " ".join(generator.choice(WORDS, int(generator.integers(1, 90))))


TEXTS = [text_of(number) for number in range(40)]
calls = st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=60)  # shuffled, split, duplicated, grown


@pytest.fixture(scope="module")
def alone(tiny_bert: Path):
    """Every text's vector by an encoder of its own kind, each in a call of its own."""

    @cache
    def vectors(precision: str) -> np.ndarray:
        encoder = Encoder.load(tiny_bert, precision=precision)
        return np.stack([encoder.encode(text, normalise=True) for text in TEXTS])

    return vectors


@pytest.fixture(scope="module")
def encoders(tiny_bert: Path) -> dict[str, Encoder]:
    return {precision: Encoder.load(tiny_bert, precision=precision) for precision in ALLOWED}


@pytest.mark.parametrize("precision", ALLOWED)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=calls, budget=st.sampled_from([None, 16, 200, 4096]), window=st.sampled_from([None, 3]))
def test_a_vector_is_the_same_in_every_company(
    precision: str, rows: list[int], budget: int | None, window: int | None, alone, encoders: dict[str, Encoder]
) -> None:
    texts = [TEXTS[row] for row in rows]
    size = window or len(texts)
    parts = [encoders[precision].encode(texts[start : start + size], normalise=True, batch_tokens=budget)
             for start in range(0, len(texts), size)]
    gap = np.abs(np.concatenate(parts) - alone(precision)[rows]).max()
    assert gap <= ALLOWED[precision]


@pytest.mark.parametrize("precision", ALLOWED)
def test_what_ran_before_changes_nothing(precision: str, encoders: dict[str, Encoder], tiny_bert: Path) -> None:
    fresh = Encoder.load(tiny_bert, precision=precision).encode(TEXTS)
    encoders[precision].encode([f"{text} again" for text in TEXTS] * 30, precision="fp32")
    assert np.array_equal(encoders[precision].encode(TEXTS), fresh)


def test_threads_of_two_precisions_do_not_meet(tiny_bert: Path, alone) -> None:
    encoder = Encoder.load(tiny_bert)
    encoder.encode(TEXTS, precision="fp32")

    def gap(turn: int) -> float:
        precision = ("fp32", "bf16")[turn % 2]
        vectors = encoder.encode(TEXTS, precision=precision, normalise=True)
        return float(np.abs(vectors - alone(precision)).max()) / ALLOWED[precision]

    for precision in ALLOWED:
        alone(precision)
    with ThreadPoolExecutor(4) as threads:
        assert max(threads.map(gap, range(24))) <= 1


def test_auto_is_what_was_measured_and_never_eight_bits(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentemb.machine import precision

    for is_fast, name in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(precision, "has_fast_bfloat16", lambda is_fast=is_fast: is_fast)
        assert Encoder.load(tiny_bert).format == name
