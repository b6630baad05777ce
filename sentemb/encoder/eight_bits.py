"""Eight bits as a form of a model: prepared once on a sample of texts, measured, saved beside the weights.

``int8.safetensors`` holds the rounded maps of the layers, ``int8.json`` what they were prepared on and how far they
move the vectors. ``model.safetensors`` stays, so that the folder opens everywhere and can be trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sentemb.encoder.backbone import evaluating, read_json, read_weights
from sentemb.encoder.encode import encode_tokens, length_order
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.runners import int8
from sentemb.encoder.runners.attention import pack
from sentemb.encoder.runners.choose import LeanRunner, Runners
from sentemb.encoder.runners.forms import PostNormEncoder
from sentemb.errors import ModelError
from sentemb.files import write_json
from sentemb.machine.precision import Precision, resolve_precision
from sentemb.progress import Progress
from sentemb.types import TokenColumn, Vocabulary

_FACTS, _TENSORS = "int8.json", "int8.safetensors"
LEAST_TEXTS = 100
_PREPARED_TOKENS = 4096
_COMPARED_TOKENS = 16_384
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class EightBits:
    """The rounded maps of a model's layers.

    Attributes:
        tensors: see ``runners.int8``.
        dtype: of everything that is not rounded.
        facts: what ``int8.json`` says: sample sizes, ``mean_cosine`` and ``least_cosine`` to float32 on held-out
            texts of the sample, and whatever else is noted before the model is saved.
    """

    tensors: Mapping[str, Tensor]
    dtype: torch.dtype
    facts: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> EightBits | None:
        """Of the model in ``folder``; None where it has none.

        Raises:
            ModelError: damaged files.
        """
        if not (folder / _FACTS).is_file():
            return None
        facts = read_json(folder / _FACTS)
        try:
            dtype = _DTYPES[facts["dtype"]]
        except (TypeError, KeyError):
            raise ModelError(f"{folder / _FACTS}: no dtype; known: {', '.join(_DTYPES)}") from None
        return cls(tensors=read_weights(folder / _TENSORS), dtype=dtype, facts=facts)

    def write(self, folder: Path) -> None:
        """Into a model's folder that is being written."""
        from safetensors.torch import save_file

        write_json(folder / _FACTS, self.facts)
        save_file(dict(self.tensors), folder / _TENSORS)

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of what decides vectors."""
        total = hashlib.sha256(str(self.dtype).encode())
        for name, tensor in sorted(self.tensors.items()):
            total.update(name.encode())
            total.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
        return total.hexdigest()


def require_byte_products(device: torch.device) -> None:
    """Raise ``ModelError`` where eight bits cannot be computed."""
    if device.type != "cpu":
        raise ModelError('a model of eight bits runs on CPUs; on a GPU encode with precision = "bf16" or "fp32" (its '
                         "folder holds the full weights too)")
    if not int8.has_byte_products():
        raise ModelError("this processor, or this PyTorch, has no exact products of bytes, so a model of eight bits "
                         'would be no faster here; encode with precision = "fp32" or "bf16" (its folder holds the '
                         "full weights too)")


def format_of(precision: Precision, device: torch.device, form: EightBits | None) -> tuple[torch.dtype, bool]:
    """The dtype of a precision on a device, and whether it is eight bits: those of a quantised model by default.

    Raises:
        ModelError: a precision that the device, or the model, does not have.
    """
    if form is not None and precision in ("auto", "int8"):
        require_byte_products(device)
        return form.dtype, True
    return resolve_precision(precision, device), False


def prepare(module: EncoderModule, column: TokenColumn, vocabulary: Vocabulary) -> EightBits:
    """Round the layers' maps on half of the sample; measure the change on the other half.

    Args:
        column: token ids of distinct texts.

    Raises:
        ModelError: too few texts, or an architecture, device or processor that has no such form.
    """
    require_byte_products(next(module.parameters()).device)
    if len(column) < LEAST_TEXTS:
        raise ModelError(f"{len(column)} different texts; eight bits need at least {LEAST_TEXTS}, of the kind that the "
                         "model will encode: half to prepare the scales, half to measure the change")
    dtype = resolve_precision("auto", torch.device("cpu"))
    runners = Runners()
    lean = runners.ready(module, dtype, vocabulary)
    if not isinstance(lean, LeanRunner) or not isinstance(lean.form, PostNormEncoder):
        raise ModelError(f"{type(module.backbone).__name__} has no form of eight bits; BERT, RoBERTa, XLM-RoBERTa, "
                         "CamemBERT, ELECTRA, DistilBERT and MPNet have one")
    order = length_order(column.lengths)  # both samples are spread evenly over the lengths, longest first
    prepared = column.take(_evenly(order[0::2], column, _PREPARED_TOKENS))
    compared = column.take(_evenly(order[1::2], column, _COMPARED_TOKENS))
    with torch.inference_mode(), evaluating(module):
        tensors = int8.prepare(lean.form, pack(prepared))
    with Progress("measuring", total=None, unit="texts", enabled=False) as bar:
        exact, moved = (
            encode_tokens(module, run, compared, bar=bar)
            for run in (Runners().ready(module, torch.float32, vocabulary),
                        runners.ready(module, dtype, vocabulary, int8_tensors=tensors))
        )
    cosines = (exact * moved).sum(axis=1)
    if not np.isfinite(cosines).all():
        raise ModelError("the model's vectors of these texts are not finite, in float32 or in eight bits")
    return EightBits(tensors=tensors, dtype=dtype, facts={
        "sentemb": version("sentemb"), "dtype": str(dtype).removeprefix("torch."),
        "prepared_texts": len(prepared), "held_out_texts": len(compared),
        "mean_cosine": round(float(cosines.mean()), 6), "least_cosine": round(float(cosines.min()), 6),
    })


def _evenly(rows: NDArray[np.int64], column: TokenColumn, tokens: int) -> NDArray[np.int64]:
    count = min(max(round(tokens / column.lengths[rows].mean()), 2), len(rows))
    return rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)]
