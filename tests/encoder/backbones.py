"""Small random backbones of every family that has a lean form, for several tests."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from sentemb.encoder.module import EncoderModule
from sentemb.encoder.poolings import make_pooling
from sentemb.types import TokenColumn, Vocabulary

VOCABULARY = Vocabulary(size=99, pad=0, mask=None, special=frozenset({0, 1, 2}))
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
ARCHITECTURES = {
    "bert": SIZES,
    "roberta": SIZES,
    "xlm-roberta": SIZES,
    "camembert": SIZES,
    "electra": SIZES | {"embedding_size": 16},
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48},
    "mpnet": SIZES,
    "modernbert": SIZES | SPECIAL | {"local_attention": 12},
}
_SHARED = {"num_key_value_heads": 2, "head_dim": 12}
DECODERS = {
    "qwen3": SIZES | SPECIAL | _SHARED,
    "qwen2": SIZES | SPECIAL | {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 11,
                                "max_window_layers": 1},
    "llama": SIZES | SPECIAL | _SHARED | {"attention_bias": True},
    "mistral": SIZES | SPECIAL | _SHARED | {"sliding_window": 7},
}  # fmt: skip


def backbone(kind: str, **changes: object) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(kind, **({"vocab_size": 99} | (ARCHITECTURES | DECODERS)[kind] | changes))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModel.from_config(config).eval()
        for parameter in model.parameters():  # initial biases are zero and norms one, which would hide mistakes
            nn.init.normal_(parameter, std=0.3)
    return model


def column(lengths: list[int]) -> TokenColumn:
    generator = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    flat = generator.integers(3, 99, offsets[-1]).astype(np.int32)
    return TokenColumn(flat=flat, offsets=offsets, text=np.arange(len(lengths), dtype=np.int64))


LENGTHS = [40, 33, 33, 33, 17, 9, 9, 3, 1]


def module_of(model: nn.Module, pooling: str = "mean") -> EncoderModule:
    return EncoderModule(model, make_pooling(pooling)).eval()
