"""Four bits a weight: a backbone that stands still while adapters learn (QLoRA), by bitsandbytes.

The linear layers' matrices are in NF4 in blocks of 64, whose scales are in eight bits; embeddings, norms and biases
stay in bfloat16, which everything is computed in. Half a byte a weight, and one matrix at a time in full.

Source: Dettmers et al. 2023, NeurIPS, "QLoRA: Efficient finetuning of quantized LLMs", sections 2 and 3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sentemb.errors import needs_extra

BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # a weight: its code, its block's scale, and the scale of 256 scales


def loading_options(device: torch.device) -> dict[str, Any]:
    """What makes transformers round matrices as it reads them, one at a time, on ``device``.

    Raises: MissingExtra without bitsandbytes.
    """
    needs_extra("bitsandbytes", "nf4")
    needs_extra("accelerate", "nf4")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16, llm_int8_skip_modules=["pooler"],  # BERT's, which is only carried along
    )
    return {"quantization_config": config, "device_map": {"": str(device)}}


def rounded_weights(backbone: nn.Module) -> dict[str, Any]:
    """The parameters in four bits by name."""
    return {name: weight for name, weight in backbone.named_parameters() if hasattr(weight, "quant_state")}


def in_full(weight: Any) -> Tensor:
    """The matrix that a parameter in four bits stands for, in bfloat16."""
    needs_extra("bitsandbytes", "nf4")
    from bitsandbytes.functional import dequantize_4bit

    whole: Tensor = dequantize_4bit(weight.data, weight.quant_state)
    return whole
