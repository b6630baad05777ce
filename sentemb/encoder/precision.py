"""Which number format encoding runs in."""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch

from sentemb.errors import ModelError, did_you_mean

Precision = Literal["auto", "fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def check_precision(name: str) -> Precision:
    """``name`` as a precision.

    Raises:
        ModelError: unknown name.
    """
    if name not in PRECISIONS:
        raise ModelError(f'precision = "{name}"{did_you_mean(name, PRECISIONS)}')
    return cast(Precision, name)


def find_device(name: str | torch.device | None) -> torch.device:
    """The device called ``name``; None: the GPU where there is one, else the CPU.

    Raises:
        ModelError: unknown, or not in this machine.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        found = ", ".join(["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))])
        raise ModelError(f'device = "{name}": {str(error).splitlines()[0]}; this machine has {found}') from None
    return device


def resolve_precision(name: Precision, device: torch.device) -> torch.dtype:
    """The dtype of weights and activations; ``auto`` is what the device multiplies natively.

    Raises:
        ModelError: float16 on a CPU, which computes it slower than float32.
    """
    if name == "auto":
        return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
    if name == "fp16" and device.type == "cpu":
        raise ModelError('precision = "fp16" is for GPUs; on a CPU use "bf16", "fp32" or "auto"')
    return _DTYPES[name]


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 matrix products in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # AVX-512's own bfloat16 instructions reach half of float32's rate (measured: 170 against 310 GFLOP/s on two cores
    # without AMX), so only the matrix unit counts
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())
