"""The lean runner: packed rows through BERT's family or ModernBERT with weights prepared for a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sentemb.encoder.module import EncoderModule
from sentemb.encoder.runners.families import FAMILIES, Unsupported, kind_of
from sentemb.encoder.runners.packed import Packed, pack
from sentemb.encoder.runners.post_norm import PostNormEncoder
from sentemb.encoder.runners.pre_norm import ModernBertEncoder
from sentemb.types import TokenColumn


class LeanForm(Protocol):
    """Packed rows to hidden states (tokens, d): the last, or the embeddings' and every layer's."""

    def __call__(self, packed: Packed, *, all_layers: bool = False) -> list[Tensor]: ...


_MAKERS: dict[str, Callable[[nn.Module, torch.dtype], LeanForm]] = {
    **dict.fromkeys(FAMILIES, PostNormEncoder), "modernbert": ModernBertEncoder,
}


def lean_form(backbone: nn.Module, dtype: torch.dtype) -> LeanForm:
    """The lean form of a backbone, with its own copy of the weights.

    Raises:
        Unsupported: the architecture, or something in it, is not known here, or it is not on a CPU.
    """
    if any(weight.device.type != "cpu" for weight in backbone.parameters()):
        raise Unsupported("a backbone that is not on a CPU")
    kind = kind_of(backbone, "transformers.models.", "sentemb.encoder.quick_start")
    if kind not in _MAKERS:
        raise Unsupported(f"architecture {kind}")
    try:
        return _MAKERS[kind](backbone, dtype)
    except AttributeError as error:  # another release of transformers names a layer differently
        raise Unsupported(str(error)) from error


class LeanRunner:
    """Rows through a lean form; neighbouring rows of equal length are pooled as a rectangle without padding."""

    def __init__(self, form: LeanForm, module: EncoderModule) -> None:
        self.form, self._module = form, module

    def __call__(self, column: TokenColumn, prompt_tokens: int = 0) -> Float[Tensor, "b d"]:
        packed = pack(column)
        layers = self.form(packed, all_layers=self._module.pooling.needs_layers)
        pooled = []
        for run in packed.runs:
            cut = [layer[run.begin : run.end].view(run.rows, run.length, -1) for layer in layers]
            mask = torch.ones(run.rows, run.length, dtype=torch.long)
            pooled.append(self._module.pool(cut, mask, prompt_tokens))
        return torch.cat(pooled)
