"""Pickled checkpoints as safetensors, and pickles that would do something else."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sentemb import Encoder, convert
from sentemb.cli import main
from sentemb.encoder.unpickle import unpickled
from sentemb.errors import ModelError


def pickled(source: Path, into: Path, *, shards: int = 1) -> Path:
    """A copy of a model with its weights as .bin, in one file or several with their index."""
    shutil.copytree(source, into)
    tensors = load_file(into / "model.safetensors")
    (into / "model.safetensors").unlink()
    if shards == 1:
        torch.save(tensors, into / "pytorch_model.bin")
        return into
    where = {name: f"pytorch_model-{i % shards + 1:05}-of-{shards:05}.bin" for i, name in enumerate(tensors)}
    for file in set(where.values()):
        torch.save({name: tensors[name] for name in tensors if where[name] == file}, into / file)
    (into / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    return into


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["convert", *map(str, arguments)])
    return int(stop.value.code or 0)


@pytest.mark.parametrize("shards", [1, 2])
def test_a_converted_model_encodes_as_before(
    shards: int, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pickled(tiny_bert, tmp_path / "old", shards=shards)
    (folder / "training_args.bin").write_bytes(b"whatever")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    assert run(folder, "-o", tmp_path / "new") == 0
    said = capsys.readouterr().out
    assert "pytorch_model" in said
    assert "training_args.bin" in said.splitlines()[1]
    assert not list((tmp_path / "new").rglob("*.bin"))
    assert (tmp_path / "new" / "1_Pooling" / "config.json").is_file()
    assert len(list((tmp_path / "new").glob("model*.safetensors"))) == shards
    texts = ["the dog runs", "a cat"]
    np.testing.assert_array_equal(Encoder.load(tmp_path / "new").encode(texts), Encoder.load(tiny_bert).encode(texts))


def test_the_refusal_names_the_command(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="sentemb convert MODEL -o FOLDER"):
        Encoder.load(pickled(tiny_bert, tmp_path / "old"))


class Payload:
    """A pickle of this calls a function when it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> object:
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_pickle_that_would_run_code_is_refused_unrun(is_zip: bool, tiny_bert: Path, tmp_path: Path) -> None:
    folder = pickled(tiny_bert, tmp_path / "old")
    evil = {"bert.embeddings.word_embeddings.weight": torch.zeros(2, 2), "more": Payload(tmp_path / "owned")}
    if is_zip:
        torch.save(evil, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(evil))
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: was not read, because it is not weights alone"):
        convert(folder, tmp_path / "new")
    assert not (tmp_path / "owned").exists()
    assert not (tmp_path / "new").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]


def test_the_process_that_reads_has_no_secrets(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentemb.encoder import convert as module

    (tmp_path / "worker.py").write_text("import json, os, sys\nprint(json.dumps({'error': ' '.join(os.environ)}))\n")
    monkeypatch.setattr(module, "_WORKER", tmp_path / "worker.py")
    monkeypatch.setenv("HF_TOKEN", "secret")
    with pytest.raises(ModelError) as told:
        convert(pickled(tiny_bert, tmp_path / "old"), tmp_path / "new")
    assert "PATH" in str(told.value)
    assert "HF_TOKEN" not in str(told.value)


def test_shared_and_odd_tensors(tmp_path: Path) -> None:
    table = torch.arange(12.0).view(3, 4)
    odd = {"a": table, "tied": table, "turned": table.T, "half": table.bfloat16(), "count": torch.tensor(7),
           "nan": torch.tensor([float("nan")]), "none": torch.zeros(0, 3)}  # fmt: skip
    torch.save({"state_dict": odd}, tmp_path / "x.bin")
    told = unpickled(str(tmp_path / "x.bin"), str(tmp_path / "x.safetensors"))
    assert told == {"tensors": {name: [str(value.dtype), list(value.shape)] for name, value in odd.items()}}
    written = load_file(tmp_path / "x.safetensors")
    assert written.keys() == odd.keys()
    for name, value in odd.items():
        assert written[name].dtype == value.dtype
        torch.testing.assert_close(written[name], value.contiguous(), equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize(("state", "said"), [
    ([torch.zeros(2)], "no tensors by name"), ({}, "no tensors by name"), ({"a": 3}, "entries a are no dense tensors"),
])
def test_what_holds_no_weights_is_told(state: object, said: str, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "x.bin")
    assert said in str(unpickled(str(tmp_path / "x.bin"), str(tmp_path / "x.safetensors"))["error"])
    assert not (tmp_path / "x.safetensors").exists()


def test_damage_and_mistakes_leave_nothing(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match="nothing to convert, the model opens as it is"):
        convert(tiny_bert, tmp_path / "new")
    short = pickled(tiny_bert, tmp_path / "short")
    (short / "pytorch_model.bin").write_bytes((short / "pytorch_model.bin").read_bytes()[:3000])
    with pytest.raises(ModelError, match="or is damaged"):
        convert(short, tmp_path / "new")
    halves = pickled(tiny_bert, tmp_path / "halves", shards=2)
    index = json.loads((halves / "pytorch_model.bin.index.json").read_text())
    index["weight_map"]["made.up"] = "pytorch_model-00001-of-00002.bin"
    (halves / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"made\.up is not where it says"):
        convert(halves, tmp_path / "new")
    (halves / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(ModelError, match=r"00002-of-00002\.bin, which is not beside it"):
        convert(halves, tmp_path / "new")
    (tmp_path / "kept").mkdir()
    assert run(short, "-o", tmp_path / "kept") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(short, "-o", tmp_path / "kept", "--overwrite") == 2
    assert "only a model" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_hub_gives_its_pickles_to_this_verb_alone(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's cache as its client lays it out, and which files are asked of it."""
    import huggingface_hub

    folder = pickled(tiny_bert, tmp_path / "hub" / "models--me--old" / "snapshots" / ("0" * 40))
    asked: list[list[str]] = []

    def snapshot(name: str, *, allow_patterns: list[str], **_: object) -> str:
        assert name == "me/old"
        asked.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert convert("me/old", tmp_path / "new").files == ("pytorch_model.bin",)
    with pytest.raises(ModelError, match="sentemb convert"):
        Encoder.load("me/old")
    assert [any(".bin" in pattern for pattern in patterns) for patterns in asked] == [True, False]
    assert Encoder.load(tmp_path / "new").width == 32
