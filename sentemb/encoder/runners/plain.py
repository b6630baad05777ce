"""The plain runner: padded rows through the Hugging Face backbone as it is."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor

from sentemb.data.padding import pad
from sentemb.encoder.module import EncoderModule
from sentemb.types import TokenColumn


class PlainRunner:
    """Works for every architecture and device; another dtype than the module's takes a copy of the backbone."""

    def __init__(self, module: EncoderModule, dtype: torch.dtype, pad_id: int) -> None:
        backbone = module.backbone
        if next(backbone.parameters()).dtype != dtype:
            backbone = copy.deepcopy(backbone).to(dtype).requires_grad_(False)
        self._backbone, self._module, self._pad_id = backbone, module, pad_id
        self._device = next(module.parameters()).device

    def __call__(self, column: TokenColumn, prompt_tokens: int = 0) -> Float[Tensor, "b d"]:
        padded = pad(column, self._pad_id)
        ids = padded.input_ids.to(self._device)
        mask = padded.attention_mask.to(self._device)
        all_layers = self._module.pooling.needs_layers
        output = self._backbone(input_ids=ids, attention_mask=mask, output_hidden_states=all_layers, return_dict=True)
        layers = output.hidden_states if all_layers else [output.last_hidden_state]
        return self._module.pool(layers, mask, prompt_tokens)
