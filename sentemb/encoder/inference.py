"""A module made ready for inference: its lean form where there is one, else the backbone as it is."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sentemb.data.padding import pad
from sentemb.encoder.batching import length_order
from sentemb.encoder.fast import FastEncoder, GraphedEncoder, Packed, Unsupported, build, pack
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.pooling import Pooling
from sentemb.encoder.weights import weights_state
from sentemb.types import TokenColumn, Tokens

# how far the lean form may be from the plain one in float32, in entries of unit vectors
_FLOAT32_TOLERANCE = 1e-4
_HALF_COSINE = 0.99
_CHECKED_TOKENS = 256  # rows for the check are no longer than this where there are such


class Inference(Protocol):
    """Rows of token ids, sorted by length, to pooled vectors (rows, d) on the module's device."""

    def __call__(self, column: TokenColumn, prompt_tokens: int = 0) -> Float[Tensor, "b d"]: ...


@dataclass(frozen=True)
class PlainInference:
    """Padded rows through the Hugging Face backbone."""

    module: EncoderModule
    pad_id: int
    device: torch.device

    def __call__(self, column: TokenColumn, prompt_tokens: int = 0) -> Tensor:
        padded = pad(column, self.pad_id)
        ids, mask = torch.from_numpy(padded.input_ids), torch.from_numpy(padded.attention_mask)
        tokens = Tokens(ids.to(self.device), mask.to(self.device))
        pooled: Tensor = self.module(tokens, prompt_tokens=prompt_tokens).pooled
        return pooled


class CompiledInference(PlainInference):
    """The same with a compiled backbone."""


@dataclass(frozen=True)
class FastInference:
    """Packed rows through the lean form."""

    fast: FastEncoder
    pooling: Pooling
    device: torch.device

    def __call__(self, column: TokenColumn, prompt_tokens: int = 0) -> Tensor:
        packed = pack(column).to(self.fast.home)
        states = self.fast(packed, all_layers=self.pooling.needs_layers)
        # a GPU waits longer for many small kernels than for one over some padding
        pool_rows = _as_one_rectangle if self.device.type == "cuda" else _by_runs
        return pool_rows(self.pooling, states, packed, prompt_tokens)


def _by_runs(pooling: Pooling, states: list[Tensor], packed: Packed, prompt_tokens: int) -> Tensor:
    """Every run of equal length is pooled as a rectangle without padding."""
    parts = []
    for run in packed.runs:
        cut = [state[run.begin : run.end].view(run.rows, run.length, -1) for state in states]
        mask = torch.ones(run.rows, run.length, dtype=torch.long, device=cut[0].device)
        parts.append(_pool(pooling, cut, mask, prompt_tokens))
    return torch.cat(parts)


def _as_one_rectangle(pooling: Pooling, states: list[Tensor], packed: Packed, prompt_tokens: int) -> Tensor:
    """All rows at once, padded to the longest."""
    row_starts = packed.row_starts.to(states[0].device).long()
    starts, ends = row_starts[:-1, None], row_starts[1:, None]
    places = starts + torch.arange(packed.longest, device=starts.device)
    is_inside = places < ends
    places = torch.where(is_inside, places, starts)
    return _pool(pooling, [state[places] for state in states], is_inside.long(), prompt_tokens)


def _pool(pooling: Pooling, states: list[Tensor], mask: Tensor, prompt_tokens: int) -> Tensor:
    hidden = pooling.combine(tuple(states)) if pooling.needs_layers else states[0]
    pooled: Tensor = pooling(hidden, mask, prompt_tokens)
    return pooled


@dataclass
class _Ready:
    state: int
    dtype: torch.dtype
    is_compiled: bool
    run: Inference


_ready: WeakKeyDictionary[nn.Module, _Ready] = WeakKeyDictionary()
# module -> what the lean form was compared for with the plain one (see `verdict_name`): True where they agree
_verdicts: WeakKeyDictionary[nn.Module, dict[str, bool]] = WeakKeyDictionary()


def inference_for(
    module: EncoderModule, dtype: torch.dtype, pad_id: int, sample: TokenColumn, *, compiled: bool = False
) -> Inference:
    """The module ready to run in ``dtype``, kept until its weights change.

    On first use the lean form is compared with the plain path on a few rows of ``sample``; where they differ too
    much, a warning says so and the plain path is used from then on.

    Args:
        compiled: compile the plain path, where there is no lean form; compared in the same way.
    """
    state = weights_state(module)
    known = _ready.get(module)
    if known is not None and (known.state, known.dtype, known.is_compiled) == (state, dtype, compiled):
        return known.run
    run: Inference | None = _fast(module, dtype, pad_id, sample)
    if run is None and compiled:
        run = _compiled(module, dtype, pad_id, sample)
    run = run or _plain(module, dtype, pad_id)
    _ready[module] = _Ready(state, dtype, compiled, run)
    return run


def forget(module: nn.Module) -> None:
    """Drop what was derived from the module's weights."""
    _ready.pop(module, None)


def verdict_name(dtype: torch.dtype, device: torch.device) -> str:
    """What a comparison of the lean and the plain form holds for: kernels differ by device and dtype."""
    return f"{device.type} {str(dtype).removeprefix('torch.')}"


def trust(module: EncoderModule, name: str) -> None:
    """Take the lean form without comparing it (see ``verdict_name``): it was compared on an earlier start."""
    _verdicts.setdefault(module, {})[name] = True


def is_trusted(module: EncoderModule, name: str) -> bool:
    """Whether the lean form agreed with the plain one (see ``verdict_name``)."""
    return _verdicts.get(module, {}).get(name) is True


def _plain(module: EncoderModule, dtype: torch.dtype, pad_id: int) -> PlainInference:
    backbone, device = module.backbone, next(module.parameters()).device
    if next(backbone.parameters()).dtype != dtype:
        backbone = copy.deepcopy(backbone).to(dtype).requires_grad_(False)
    return PlainInference(EncoderModule(backbone, module.pooling, []).eval(), pad_id, device)


def _compiled(module: EncoderModule, dtype: torch.dtype, pad_id: int, sample: TokenColumn) -> CompiledInference | None:
    name = f"torch.compile of {type(module.backbone).__name__}"
    # a copy: what is compiled must not stay on the module that is trained or saved
    backbone = copy.deepcopy(module.backbone).to(dtype).requires_grad_(False)
    backbone.compile(dynamic=True)
    run = CompiledInference(EncoderModule(backbone, module.pooling, []).eval(), pad_id,
                            next(module.parameters()).device)
    try:
        return run if _agrees(run, _plain(module, torch.float32, pad_id), dtype, sample, name) else None
    except (RuntimeError, NotImplementedError, ImportError) as error:
        warnings.warn(f"{name} fails here ({str(error).strip().splitlines()[0]}); it runs uncompiled", stacklevel=2)
        return None


def _fast(module: EncoderModule, dtype: torch.dtype, pad_id: int, sample: TokenColumn) -> FastInference | None:
    device = next(module.parameters()).device
    verdicts, name = _verdicts.setdefault(module, {}), verdict_name(dtype, device)
    if verdicts.get(name) is False:
        return None
    try:
        fast = build(module.backbone, dtype)
        if device.type == "cuda" and dtype != torch.float32 and fast.is_shape_only:
            fast = GraphedEncoder(fast, device)
        run = FastInference(fast, module.pooling, device)
        if name not in verdicts:
            verdicts[name] = _agrees(run, _plain(module, torch.float32, pad_id), dtype, sample,
                                     f"sentemb's lean forward pass of {type(module.backbone).__name__}")
    except Unsupported:
        verdicts[name] = False
    except (RuntimeError, NotImplementedError, ImportError) as error:
        verdicts[name] = False
        warnings.warn(f"sentemb's lean forward pass cannot run {type(module.backbone).__name__} here "
                      f"({str(error).splitlines()[0]}); the plain one is used", stacklevel=2)
    return run if verdicts[name] else None


def _agrees(run: Inference, plain: PlainInference, dtype: torch.dtype, sample: TokenColumn, name: str) -> bool:
    lengths = sample.lengths
    order = length_order(lengths)
    fitting = order[lengths[order] <= _CHECKED_TOKENS]
    order = fitting if len(fitting) else order[-1:]
    rows = np.unique([0, len(order) // 2, len(order) - 1])
    column = sample.take(order[rows])
    ours, theirs = (F.normalize(path(column).float(), dim=-1) for path in (run, plain))
    if dtype == torch.float32:
        gap = (ours - theirs).abs().max().item()
        is_close = gap <= _FLOAT32_TOLERANCE
    else:
        gap = 1 - (ours * theirs).sum(-1).min().item()
        is_close = gap <= 1 - _HALF_COSINE
    if not is_close:
        warnings.warn(f"{name} differs from the plain forward pass by {gap:.2g} in "
                      f"{str(dtype).removeprefix('torch.')}; the plain one is used", stacklevel=2)
    return is_close
