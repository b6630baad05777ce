"""Which number format encoding runs in."""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch

from sentemb.errors import ModelError, did_you_mean, first_line
from sentemb.machine.rates import has_fast_bfloat16

Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
WeightFormat = Literal["fp32", "bf16", "nf4"]  # that a model's weights stay in
PRECISIONS: tuple[str, ...] = get_args(Precision)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def check_precision(name: str) -> Precision:
    """``name`` as a precision; raises ``ModelError`` for another name."""
    if name not in PRECISIONS:
        raise ModelError(f'precision = "{name}"{did_you_mean(name, PRECISIONS)}')
    return cast(Precision, name)


def check_weights(name: str | None) -> None:
    """Raise ``ModelError`` for a format that weights cannot stay in."""
    if name is not None and name not in get_args(WeightFormat):
        raise ModelError(f'weights = "{name}"{did_you_mean(name, get_args(WeightFormat))}')


def find_device(name: str | torch.device | None) -> torch.device:
    """The device called ``name``; None: the GPU where there is one, else the CPU."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        devices = ", ".join(["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))])
        raise ModelError(f'device = "{name}": {first_line(error)}; this machine has {devices}') from None
    return device


def resolve_precision(name: Precision, device: torch.device) -> torch.dtype:
    """The dtype of weights and activations; ``auto`` is bfloat16 where the device multiplies it clearly faster than
    float32, else float32. No float16 on a CPU, which computes it slower than float32."""
    if name == "int8":
        raise ModelError('precision = "int8" is for models that were prepared for it: '
                         "sentemb quantize MODEL --texts FILE -o MODEL-int8")
    if name == "fp16" and device.type == "cpu":
        raise ModelError('precision = "fp16" is for GPUs; on a CPU use "bf16", "fp32" or "auto"')
    return _DTYPES[("bf16" if multiplies_bfloat16(device) else "fp32") if name == "auto" else name]


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is the device's fast format: read off a GPU, timed once on a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and has_fast_bfloat16()
