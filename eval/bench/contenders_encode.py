"""The contenders of the encoding benchmark: each function loads a model and the texts, and gives the timed call."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Work = Callable[[], dict[str, Any]]


def _texts(path: str) -> list[str]:
    texts: list[str] = json.loads(Path(path).read_text(encoding="utf-8"))
    return texts


def sentemb(texts: str, model: str, precision: str) -> Work:
    """Ours, as `Encoder.encode` runs by default."""
    from sentemb import Encoder

    encoder, rows = Encoder.load(model, precision=precision), _texts(texts)
    return lambda: {"array": encoder.encode(rows)}


def sentence_transformers(
    texts: str, model: str, precision: str = "fp32", batch: int = 32, backend: str = "torch", cache: str = ""
) -> Work:
    """sentence-transformers' `encode`; exports for other backends are kept in `cache`.

    int8 is its own export for the backend: dynamic with ONNX Runtime, and with OpenVINO static after 300 of the texts.
    """
    from sentence_transformers import SentenceTransformer

    rows, folder = _texts(texts), model
    if precision == "int8":
        encoder = _quantised(backend, Path(cache), rows)
    elif backend == "torch":
        dtype = {"fp32": "float32", "bf16": "bfloat16"}[precision]
        encoder = SentenceTransformer(folder, device="cpu", model_kwargs={"torch_dtype": dtype})
    else:
        place = Path(cache) / backend
        options: dict[str, Any] = {"export": not place.is_dir()}
        if backend == "openvino":
            options["ov_config"] = {"INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision]}
        encoder = SentenceTransformer(
            str(place) if place.is_dir() else folder, device="cpu", backend=backend, model_kwargs=options)
        if not place.is_dir():
            encoder.save_pretrained(str(place))
    return lambda: {"array": encoder.encode(rows, batch_size=batch, show_progress_bar=False).astype(np.float32)}


def _quantised(backend: str, cache: Path, rows: list[str]) -> Any:
    """sentence-transformers on the eight-bit form of the export that its fp32 contender made."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import backend as exports

    plain, place = str(cache / backend), cache / f"{backend}-int8"
    if not place.is_dir():
        shutil.copytree(plain, place)
        encoder = SentenceTransformer(plain, device="cpu", backend=backend)
        if backend == "onnx":
            exports.export_dynamic_quantized_onnx_model(encoder, "avx512_vnni", str(place))
        else:
            data = cache / "calibration"
            data.mkdir()
            lines = (json.dumps({"text": text}) for text in rows[:300])
            (data / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
            exports.export_static_quantized_openvino_model(
                encoder, None, str(place), dataset_name=str(data), dataset_config_name="default",
                dataset_split="train", column_name="text")
    pattern = "*int8*.onnx" if backend == "onnx" else "*qint8*.xml"
    file, = (path.name for path in (place / backend).glob(pattern))
    return SentenceTransformer(
        str(place), device="cpu", backend=backend, model_kwargs={"file_name": file, "export": False})


def plain_transformers(texts: str, model: str, precision: str, budget: int = 4096) -> Work:
    """What a careful user writes: AutoModel, rows sorted by tokens, batches of at most `budget` padded tokens, mean."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    rows = _texts(texts)
    tokenizer = AutoTokenizer.from_pretrained(model)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    network = AutoModel.from_pretrained(model, dtype=dtype).eval()

    @torch.inference_mode()
    def work() -> dict[str, Any]:
        ids = tokenizer(rows, truncation=True, max_length=256)["input_ids"]
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        out = np.empty((len(rows), network.config.hidden_size), dtype=np.float32)
        begin = 0
        while begin < len(order):
            end = min(len(order), begin + max(1, budget // len(ids[order[begin]])))
            batch = tokenizer.pad({"input_ids": [ids[row] for row in order[begin:end]]}, return_tensors="pt")
            hidden = network(**batch).last_hidden_state.float()
            mask = batch["attention_mask"][..., None].float()
            mean = (hidden * mask).sum(1) / mask.sum(1)
            out[order[begin:end]] = torch.nn.functional.normalize(mean, dim=-1).numpy()
            begin = end
        return {"array": out}

    return work


def fastembed(texts: str, cache: str, batch: int) -> Work:
    """fastembed's `embed` (its own pooling on ONNX Runtime), on the export of `sentence_transformers(backend="onnx")`.

    That contender must have been loaded before: an export made here would count into this process' peak memory.
    """
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    export = Path(cache) / "onnx"
    if not export.is_dir():
        raise FileNotFoundError(f"{export}: no ONNX export; the contender sentence-transformers onnx makes it")
    rows, folder = _texts(texts), _with_limit(export, Path(cache) / "fastembed")
    width = json.loads((folder / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    TextEmbedding.add_custom_model(
        model="local", pooling=PoolingType.MEAN, normalization=True, sources=ModelSource(hf="local"), dim=width,
        model_file="onnx/model.onnx")
    encoder = TextEmbedding("local", cache_dir=cache, specific_model_path=str(folder))
    return lambda: {"array": np.stack(list(encoder.embed(rows, batch_size=batch)))}


class infinity:  # noqa: N801  # a contender's name, as the functions beside it
    """infinity's engine without its server, on torch with BetterTransformer (its defaults).

    Its ONNX engine is left out: it cuts texts at the position table's 512 tokens and has no setting for fewer.
    """

    def __init__(self, texts: str, model: str, precision: str, batch: int = 32) -> None:
        # without BetterTransformer infinity would run on, slower and silently: this import stops it
        import optimum.bettertransformer  # noqa: F401
        from infinity_emb import EngineArgs, SyncEngineArray

        self._texts, dtype = _texts(texts), {"fp32": "float32", "bf16": "bfloat16"}[precision]
        # the races have a warm-up of their own
        self._engine = SyncEngineArray.from_args([EngineArgs(
            model_name_or_path=model, served_model_name="local", engine="torch", device="cpu", dtype=dtype,
            batch_size=batch, model_warmup=False)])

    def __call__(self) -> dict[str, Any]:
        """Embed all texts in one call, which the engine sorts and batches."""
        return {"array": np.stack(self._engine.embed(model="local", sentences=self._texts).result()[0])}

    def close(self) -> None:
        """End the engine's threads."""
        self._engine.stop()


def _with_limit(model: Path, place: Path) -> Path:
    """The model in `place`, with sentence-transformers' limit of tokens (256) where fastembed looks for it.

    fastembed takes the lesser of two entries of tokenizer_config.json, which would be 128 here.
    """
    if not place.is_dir():
        place.mkdir()
        for path in model.iterdir():
            if path.name != "tokenizer_config.json":
                (place / path.name).symlink_to(path.resolve())
        config = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
        config.pop("max_length", None)
        limits = json.loads((model / "sentence_bert_config.json").read_text(encoding="utf-8"))
        config["model_max_length"] = limits["max_seq_length"]
        (place / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return place


def peers_environment(folder: str) -> dict[str, str]:
    """Where peers need other releases than ours, those lie in a folder of their own."""
    return {"PYTHONPATH": folder + os.pathsep + os.environ.get("PYTHONPATH", "")} if folder else {}
