"""Several devices at once: here two encoders on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sentemb import Encoder
from sentemb.cli import main
from sentemb.encoder import DevicePool
from sentemb.encoder import pool as pools
from sentemb.encoder.pool import device_names
from sentemb.errors import ModelError
from sentemb.types import IdentifiedEmbedder

WORDS = "the dog runs a cat plays music red river house and song".split()
TEXTS = [" ".join(WORDS[: 1 + number % 11]) + f" {number % 110}" for number in range(200)]


@pytest.fixture(scope="module")
def pool(tiny_bert: Path):
    with DevicePool(tiny_bert, ["cpu", "cpu"], precision="fp32") as made:
        yield made


def test_order_duplicates_and_options_are_those_of_one_process(pool: DevicePool, tiny_bert: Path) -> None:
    encoder = Encoder.load(tiny_bert, precision="fp32")
    assert len(set(TEXTS)) < len(TEXTS)
    np.testing.assert_allclose(pool.encode(TEXTS), encoder.encode(TEXTS), atol=1e-5)
    options = {"dim": 7, "normalise": True, "prompt": "query: "}
    np.testing.assert_allclose(pool.encode(TEXTS, **options), encoder.encode(TEXTS, **options), atol=1e-5)
    assert pool.encode([]).shape == (0, encoder.width)
    assert pool.encode(["one"]).shape == (1, encoder.width)


def test_small_blocks_come_back_in_order(pool: DevicePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_BLOCK", 2)
    reference = pool.encoders[0].encode(TEXTS)
    np.testing.assert_allclose(pool.encode(TEXTS), reference, atol=1e-5)


def test_it_serves_where_an_encoder_does(pool: DevicePool, tiny_bert: Path) -> None:
    assert isinstance(pool, IdentifiedEmbedder)
    assert pool.digest() == Encoder.load(tiny_bert).digest()


def test_a_mistake_leaves_the_pool_usable(pool: DevicePool) -> None:
    with pytest.raises(ModelError, match="prompt_name"):
        pool.encode(TEXTS, prompt_name="nobody")
    with pytest.raises(ModelError, match="text 1 is int"):
        pool.encode(["a", 3])
    assert pool.encode(["a"]).shape == (1, pool.width)


def test_devices_are_checked_before_anything_starts(tiny_bert: Path, tmp_path: Path) -> None:
    assert device_names(None) == []
    assert device_names("cpu, cpu") == ["cpu", "cpu"]
    with pytest.raises(ModelError, match='device = "nowhere"'):
        device_names("cpu,nowhere")
    with pytest.raises(ModelError, match="at least one device"):
        DevicePool(tiny_bert, [])
    with pytest.raises(ModelError):
        DevicePool(tmp_path / "missing", ["cpu", "cpu"])


def test_the_command(tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    command = ["encode", str(tmp_path / "texts.txt"), "-m", str(tiny_bert), "--precision", "fp32", "--json"]
    with pytest.raises(SystemExit) as stop:
        main([*command, "-o", str(tmp_path / "two.npy"), "--device", "cpu,cpu", "--window", "64"])
    assert not stop.value.code
    assert json.loads(capsys.readouterr().out)["texts"] == len(TEXTS)
    expected = Encoder.load(tiny_bert, precision="fp32").encode(TEXTS)
    np.testing.assert_allclose(np.load(tmp_path / "two.npy"), expected, atol=1e-5)
    with pytest.raises(SystemExit) as stop:
        main([*command, "-o", str(tmp_path / "none.npy"), "--device", "cpu,cuda:77"])
    assert stop.value.code == 2
    assert "cuda:77" in capsys.readouterr().err
    assert not (tmp_path / "none.npy").exists()
