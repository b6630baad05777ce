"""A file of vectors is gone on with after a stop, only where texts, model and settings are the same."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from sentemb.data.vector_files import open_npy
from sentemb.data.vector_writer import vector_writer
from sentemb.errors import DataError

TEXTS = [[f"text {block} {row}" for row in range(4)] for block in range(5)]
MODEL = {"model": "a"}
Blocks = Sequence[Sequence[str]]


def vectors_of(texts: Sequence[str]) -> np.ndarray:
    return np.array([[len(text), hash(text) % 97, 1.5] for text in texts], dtype=np.float32)


def write(
    path: Path, blocks: Blocks, dtype: str = "float32", model: Mapping[str, Any] = MODEL, stop_at: int | None = None
) -> list[int]:
    """Write the blocks; which of them had to be encoded. ``stop_at`` ends it in that block, as an error does."""
    encoded = []
    with vector_writer(path, dtype)(3, lambda: model) as file:
        for number, texts in enumerate(blocks):
            columns = [{"number": number}] * len(texts)
            if not file.has(texts, columns):
                if number == stop_at:
                    raise KeyError("stopped")
                encoded.append(number)
                file(texts, vectors_of(texts), columns)
    return encoded


def stopped(path: Path, blocks: Blocks = TEXTS, at: int = 3, **options: Any) -> None:
    with pytest.raises(KeyError):
        write(path, blocks, stop_at=at, **options)
    assert not path.exists()


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
@pytest.mark.parametrize("dtype", ["float32", "int8", "ubinary"])
def test_the_rest_is_written_and_the_file_is_the_same(suffix: str, dtype: str, tmp_path: Path) -> None:
    path, whole = tmp_path / f"v.{suffix}", tmp_path / "whole" / f"v.{suffix}"
    assert write(whole, TEXTS, dtype) == [0, 1, 2, 3, 4]
    stopped(path, at=2, dtype=dtype)
    stopped(path, at=3, dtype=dtype)
    assert write(path, TEXTS, dtype) == [3, 4]
    assert path.read_bytes() == whole.read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(
        [*(entry.name for entry in whole.parent.iterdir()), "whole"]
    )
    if suffix == "parquet":
        assert pq.ParquetFile(path).num_row_groups == 5
    elif dtype != "float32":
        assert open_npy(path).shape == (20, 3)


def test_a_stop_in_the_first_block_leaves_nothing(tmp_path: Path) -> None:
    stopped(tmp_path / "v.npy", at=0)
    stopped(tmp_path / "v.npy", at=1, blocks=[TEXTS[0], ["x"]])  # one block is done, and kept
    assert [entry.name for entry in tmp_path.iterdir()] == [".v.npy.partial"]


@pytest.mark.parametrize(("texts", "encoded", "said"), [
    ([*TEXTS[:2], ["other"], *TEXTS[3:]], [2, 3, 4], "texts behind them changed"),
    ([["other"], *TEXTS[1:]], [0, 1, 2, 3, 4], "on other texts; begun again"),
    (TEXTS[:2], [], "texts behind them changed"),
    ([TEXTS[0], TEXTS[1][:2]], [1], "texts behind them changed"),
])
def test_changed_texts_are_written_again(
    texts: Blocks, encoded: list[int], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped(tmp_path / "v.npy", dtype="int8")
    with caplog.at_level(logging.INFO):
        assert write(tmp_path / "v.npy", texts, "int8") == encoded
    assert said in caplog.text
    write(tmp_path / "whole.npy", texts, "int8")
    for name in ("v.npy", "v.npy.json"):
        assert (tmp_path / name).read_bytes() == (tmp_path / name.replace("v.", "whole.")).read_bytes()


@pytest.mark.parametrize(("dtype", "model", "said"), [
    ("float16", MODEL, "another dtype"), ("float32", {"model": "b"}, "another model"),
    ("float32", {"model": "a", "prompt": "q"}, "another prompt"),
])
def test_another_model_or_setting_begins_again(
    dtype: str, model: dict[str, str], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped(tmp_path / "v.npy")
    with caplog.at_level(logging.INFO):
        assert write(tmp_path / "v.npy", TEXTS, dtype, model) == [0, 1, 2, 3, 4]
    assert said in caplog.text
    assert len(np.load(tmp_path / "v.npy")) == 20


def test_a_stop_while_texts_are_written_again_keeps_no_stale_block(tmp_path: Path) -> None:
    stopped(tmp_path / "v.npy", at=4)
    changed = [TEXTS[0], ["other"] * 4, *TEXTS[2:]]
    stopped(tmp_path / "v.npy", changed, at=2)
    assert write(tmp_path / "v.npy", TEXTS) == [1, 2, 3, 4]


@pytest.mark.parametrize("damage", ["note", "short", "keys"])
def test_damage_begins_again(damage: str, tmp_path: Path) -> None:
    stopped(tmp_path / "v.npy")
    note, content = (tmp_path / ".v.npy.partial" / name for name in ("blocks.json", "content"))
    if damage == "short":
        content.write_bytes(content.read_bytes()[:40])
    else:
        note.write_text("{" if damage == "note" else json.dumps({"blocks": [{"rows": 1}]}))
    assert write(tmp_path / "v.npy", TEXTS) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy")[17], vectors_of(TEXTS[4])[1])


def test_one_process_at_a_time(tmp_path: Path) -> None:
    writer = vector_writer(tmp_path / "v.npy")
    with writer(3) as one:
        with pytest.raises(DataError, match="another process is writing"), writer(3):
            pass
        one(TEXTS[0], vectors_of(TEXTS[0]))
    assert len(np.load(tmp_path / "v.npy")) == 4
