"""Checkpoints that are damaged or cannot be written: one clear message, nothing half-written."""

from __future__ import annotations

import errno
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sentemb import Encoder
from sentemb.cli import main
from sentemb.errors import ModelError, NumericError

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "model"))


@pytest.mark.parametrize("kept", [(), ("tokenizer_config.json",)])
def test_without_a_tokenizer_nothing_becomes_unk(folder: Path, kept: tuple[str, ...]) -> None:
    for name in set(TOKENIZER) - set(kept):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(ModelError, match="no tokenizer"):
        Encoder.load(folder)


@pytest.mark.parametrize("size", [0, 5, 2000])
def test_weights_cut_short(folder: Path, size: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(ModelError, match="damaged or cut short"):
        Encoder.load(folder)


def test_weights_cut_short_after_a_lean_start_was_prepared(folder: Path) -> None:
    import os

    Encoder.load(folder, precision="fp32").encode("a dog")
    weights = folder / "model.safetensors"
    state = weights.stat()
    weights.write_bytes(weights.read_bytes()[:2000].ljust(state.st_size, b"\0"))
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(ModelError, match="damaged or cut short"):
        Encoder.load(folder, precision="fp32")
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json: not JSON"):
        Encoder.load(folder, precision="fp32")


@pytest.mark.parametrize("text", ["{", "", "[1]", "\xff"])
def test_a_configuration_that_is_no_json_object(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=r"config\.json: not (JSON|a JSON object)"):
        Encoder.load(folder)


@pytest.mark.parametrize(("name", "message"), [("config.json", "config.json"), ("model.safetensors", "cut short")])
def test_check_tells_of_damage_without_a_traceback(
    folder: Path, name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).write_text("{")
    (folder.parent / "texts.txt").write_text("the dog\na cat\n" * 100)
    with pytest.raises(SystemExit) as stop:
        main(["check", "simcse-unsup-minilm", "--set", f"encoder.backbone={folder}", "--set",
              f"data.path={folder.parent / 'texts.txt'}"])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_full_disk_leaves_the_old_model(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder.load(tiny_bert)
    target = encoder.save(tmp_path / "models" / "m")
    before = {path.name for path in target.iterdir()}
    from safetensors import SafetensorError

    for error in (OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: no space left")):
        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr("safetensors.torch.save_file", fail)
        with pytest.raises(ModelError, match=r"models/m: the model could not be saved .*space left"):
            encoder.save(target)
        assert {path.name for path in target.iterdir()} == before
        assert [path.name for path in target.parent.iterdir()] == ["m"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(tiny_bert: Path, tmp_path: Path, value: float) -> None:
    encoder = Encoder.load(tiny_bert, head={"use": "dense", "out_features": 4})
    with torch.no_grad():
        encoder.module.heads[0].linear.weight[1, 2] = value
    with pytest.raises(NumericError, match=r"linear\.weight holds NaN or infinity"):
        encoder.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_float16_that_overflows_is_not_saved(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(tiny_bert)
    with torch.no_grad():
        next(encoder.module.parameters())[0, 0] = 1e6
    with pytest.raises(NumericError, match="NaN or infinity"):
        encoder.save(tmp_path / "model", dtype=torch.float16)
    encoder.save(tmp_path / "model")  # float32 holds it


def test_texts_that_are_cut_are_counted(tiny_bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = Encoder.load(tiny_bert, max_tokens=8, precision="fp32")
    fits, cut = "the dog runs in the city", "the dog runs in the city and"  # six and seven words and two special tokens
    with caplog.at_level(logging.WARNING, "sentemb"):
        encoder.encode([fits])
        assert encoder.cut_count == 0
        assert not caplog.records
        encoder.encode([fits, cut, cut, "x " * 500])
        assert encoder.cut_count == 2  # equal texts are tokenised once
        encoder.encode([cut])
        assert encoder.cut_count == 3
    assert [record.getMessage()[:39] for record in caplog.records] == ["2 of 4 texts are longer than 8 tokens a"]


def test_skipped_and_cut_rows_are_told(tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": "the dog"}, {"text": ""}, {"text": None}, {"other": 1}, {"text": "a cat " * 300}]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([*map(json.dumps, rows), "{ no json"]) + "\n")
    command = ["encode", str(path), "-m", str(tiny_bert), "-o", str(tmp_path / "v.npy"), "--text-column", "text"]
    with pytest.raises(SystemExit) as stop:
        main([*command, "--skip-faulty", "--json"])
    assert not stop.value.code
    summary = json.loads(capsys.readouterr().out)
    assert (summary["texts"], summary["skipped"], summary["cut"]) == (2, 4, 1)
    with pytest.raises(SystemExit):
        main([*command, "--skip-faulty"])
    out = capsys.readouterr().out
    assert "4 faulty rows were skipped" in out
    assert "1 texts were longer than 128 tokens" in out
    assert len(np.load(tmp_path / "v.npy")) == 2


def test_queries_and_documents_get_their_prompts(tiny_bert: Path) -> None:
    encoder = Encoder.load(tiny_bert, precision="fp32", prompts={"query": "the man ", "passage": "a cat "})
    assert np.array_equal(encoder.encode_query("runs"), encoder.encode("the man runs"))
    assert np.array_equal(encoder.encode_document(["runs"]), encoder.encode(["a cat runs"]))
    bare = Encoder.load(tiny_bert, precision="fp32")
    assert np.array_equal(bare.encode_query("runs"), bare.encode("runs"))
