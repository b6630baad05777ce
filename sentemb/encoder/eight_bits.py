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

from sentemb.encoder.backbone import evaluating, read_json, read_weights, refused
from sentemb.encoder.digest import bytes_of
from sentemb.encoder.encode import encode_tokens, length_order
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.runners import int8
from sentemb.encoder.runners.attention import pack
from sentemb.encoder.runners.choose import Runners, post_norm_form
from sentemb.errors import ModelError
from sentemb.files import write_json
from sentemb.machine.precision import Precision, resolve_precision
from sentemb.types import TokenColumn, Vocabulary

_FACTS, _TENSORS = "int8.json", "int8.safetensors"
LEAST_TEXTS = 100
_PREPARED_TOKENS = 4096
_COMPARED_TOKENS = 16_384


@dataclass(frozen=True, kw_only=True)
class EightBits:
    """The rounded maps of a model's layers, see ``runners.int8``."""

    tensors: Mapping[str, Tensor]
    dtype: torch.dtype  # of everything that is not rounded
    facts: dict[str, Any]  # sample sizes, ``mean_cosine`` and ``least_cosine`` to float32 on its held-out texts

    @classmethod
    def read(cls, folder: Path) -> EightBits | None:
        """Of the model in ``folder``; None where it has none. Raises ``ModelError`` for damaged files."""
        if not (folder / _FACTS).is_file():
            return None
        facts = read_json(folder / _FACTS)
        with refused(folder / _FACTS):
            dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[facts["dtype"]]
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
            total.update(bytes_of(tensor))
        return total.hexdigest()


def require_byte_products(device: torch.device) -> None:
    """Raise ``ModelError`` where eight bits cannot be computed."""
    if device.type == "cpu" and int8.has_byte_products():
        return
    where = "on a GPU" if device.type != "cpu" else "here: this processor or PyTorch has no exact products of bytes"
    raise ModelError(f'a model of eight bits does not run {where}; encode with precision = "fp32" or "bf16" (its '
                     "folder holds the full weights too)")


def format_of(precision: Precision, device: torch.device, form: EightBits | None) -> tuple[torch.dtype, bool]:
    """The dtype of a precision on a device, and whether it is eight bits: those of a quantised model by default."""
    if form is not None and precision in ("auto", "int8"):
        require_byte_products(device)
        return form.dtype, True
    return resolve_precision(precision, device), False


def prepare(module: EncoderModule, column: TokenColumn, vocabulary: Vocabulary) -> EightBits:
    """Round the layers' maps on half of the sample (token ids of distinct texts), measure the change on the rest."""
    require_byte_products(next(module.parameters()).device)
    if len(column) < LEAST_TEXTS:
        raise ModelError(f"{len(column)} different texts; eight bits need at least {LEAST_TEXTS}, of the kind that the "
                         "model will encode: half to prepare the scales, half to measure the change")
    dtype, runners = resolve_precision("auto", torch.device("cpu")), Runners()
    form = post_norm_form(runners.ready(module, dtype, vocabulary), module)
    order = length_order(column.lengths)  # both samples are spread evenly over the lengths, longest first
    prepared = column.take(_evenly(order[0::2], column, _PREPARED_TOKENS))
    compared = column.take(_evenly(order[1::2], column, _COMPARED_TOKENS))
    with torch.inference_mode(), evaluating(module):
        tensors = int8.prepare(form, pack(prepared))
    exact = encode_tokens(module, Runners().ready(module, torch.float32, vocabulary), compared)
    cosines = (exact * encode_tokens(module, runners.ready(module, dtype, vocabulary, tensors), compared)).sum(axis=1)
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
