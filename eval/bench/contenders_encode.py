"""The contenders of the encoding benchmark: each function loads a model and the texts, and gives the timed call."""

from __future__ import annotations

import json
import os
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
    """sentence-transformers' `encode`; exports for other backends are kept in `cache`."""
    from sentence_transformers import SentenceTransformer

    rows, folder = _texts(texts), model
    if backend == "torch":
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


def peers_environment(folder: str) -> dict[str, str]:
    """Where ONNX Runtime and OpenVINO need older releases than ours, they lie in a folder of their own."""
    return {"PYTHONPATH": folder + os.pathsep + os.environ.get("PYTHONPATH", "")} if folder else {}
