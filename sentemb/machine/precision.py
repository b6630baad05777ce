"""Which number format encoding runs in."""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch

from sentemb.errors import ModelError, did_you_mean, first_line
from sentemb.machine.rates import has_fast_bfloat16, has_fast_int8, has_int8

Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
# whether long work runs in eight bits; "on" says so where it cannot
Int8Use = Literal["off", "auto", "on"]
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
        raise ModelError(f'device = "{name}": {first_line(error)}; this machine has {found}') from None
    return device


def resolve_precision(name: Precision, device: torch.device) -> torch.dtype:
    """The dtype of weights and activations; ``auto``, and ``int8`` for what is not rounded, is bfloat16 where that is
    fast.

    Raises:
        ModelError: float16 on a CPU, which computes it slower than float32; int8 anywhere else, or without oneDNN's
            products of bytes.
    """
    if name == "int8":
        if device.type != "cpu":
            raise ModelError('precision = "int8" is for CPUs; on a GPU use "bf16", "fp16", "fp32" or "auto"')
        if not has_int8():
            raise ModelError('precision = "int8": this processor, or this PyTorch, has no exact products of bytes; '
                             'use "fp32" or "auto"')
    if name in ("auto", "int8"):
        return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
    if name == "fp16" and device.type == "cpu":
        raise ModelError('precision = "fp16" is for GPUs; on a CPU use "bf16", "fp32", "int8" or "auto"')
    return _DTYPES[name]


def resolve_int8(name: Precision, device: torch.device) -> Int8Use:
    """Whether long work runs in eight bits: where they were asked for, or are this CPU's fastest products."""
    if name == "int8":
        return "on"
    return "auto" if name == "auto" and device.type == "cpu" and has_fast_int8() else "off"


def precision_told(name: Precision, device: torch.device) -> str:
    """What encoding runs in, for reports: ``int8`` where long work does, else the dtype."""
    if resolve_int8(name, device) != "off":
        return "int8"
    return str(resolve_precision(name, device)).removeprefix("torch.")


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is the device's fast format: read off a GPU, timed once on a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and has_fast_bfloat16()
