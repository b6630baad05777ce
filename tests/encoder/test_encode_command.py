"""``sentemb encode`` as a user runs it, in this process."""

from __future__ import annotations

import gzip
import json
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from sentemb import Encoder
from sentemb.cli import main
from sentemb.data.vector_writer import vector_writer
from sentemb.errors import Interrupted

TEXTS = ["the dog runs", "a cat plays music", "the dog runs"]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["encode", *map(str, arguments)])
    return int(stop.value.code or 0)


@pytest.fixture
def vectors(tiny_bert: Path) -> np.ndarray:
    return Encoder.load(tiny_bert, precision="fp32").encode(TEXTS)


def test_several_files_to_npy(
    tiny_bert: Path, tmp_path: Path, vectors: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.txt").write_text("\n".join(TEXTS[:2]) + "\n")
    with gzip.open(tmp_path / "two.csv.gz", "wt") as file:
        file.write(f"id,text\n7,{TEXTS[2]}\n")
    out = tmp_path / "deep" / "vectors.npy"
    assert run(tmp_path / "one.txt", tmp_path / "two.csv.gz", "-o", out, "-m", tiny_bert, "--precision", "fp32",
               "--json") == 0
    found = np.load(out, mmap_mode="r")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, vectors, atol=1e-5)
    summary = json.loads(capsys.readouterr().out)
    assert (summary["texts"], summary["width"]) == (3, 32)
    assert summary["texts_per_s"] > 0


def test_jsonl_to_parquet_with_options(tiny_bert: Path, tmp_path: Path, vectors: np.ndarray) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"name": "n", "body": text}) + "\n" for text in TEXTS))
    out = tmp_path / "vectors.parquet"
    assert run(path, "-o", out, "-m", tiny_bert, "--precision", "fp32", "--text-column", "body", "--dim", 5,
               "--normalise") == 0
    table = pq.read_table(out)
    assert table["text"].to_pylist() == TEXTS
    expected = vectors[:, :5] / np.linalg.norm(vectors[:, :5], axis=1, keepdims=True)
    np.testing.assert_allclose(np.stack(table["embedding"].to_numpy()), expected, atol=1e-5)


@pytest.mark.parametrize(("arguments", "message"), [
    (["absent.txt", "-o", "out.npy"], "absent.txt"), (["in.txt", "-o", "out.npz"], ".npy, .parquet"),
    (["in.txt", "-o", "."], "folder"), (["in.txt", "-o", "out.npy", "--precision", "fp9"], "fp32"),
    (["in.txt", "-o", "out.npy", "--dim", "99"], "allowed: 1 to 32"),
    (["in.txt", "-o", "out.npy", "--text-column", "body"], "body"),
])
def test_mistakes_leave_nothing(
    tiny_bert: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("the dog\n")
    assert run(*arguments, "-m", tiny_bert) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_a_stop_signal_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def stopped() -> None:
        with vector_writer(tmp_path / f"v.{suffix}")(2) as write:
            write(["a"], np.zeros((1, 2), dtype=np.float32))
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="was not written"):
        stopped()
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_rows_make_an_empty_array(tmp_path: Path) -> None:
    with vector_writer(tmp_path / "v.npy")(7):
        pass
    assert np.load(tmp_path / "v.npy").shape == (0, 7)
