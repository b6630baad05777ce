"""A small random Qwen3 that reads the tiny BERT's words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch


def save_decoder(
    folder: Path, words_of: Path, *, seed: int, dtype: torch.dtype = torch.float32, has_head: bool = False,
    **sizes: float,
) -> Path:
    """Into ``folder``, as the hub lays it out; the weights of one seed are equal, but for rounding to ``dtype``.
    ``has_head``: with the map to the vocabulary."""
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

    folder.mkdir(exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(words_of / name, folder / name)
    config = Qwen3Config(**{
        "vocab_size": json.loads((words_of / "config.json").read_text())["vocab_size"], "pad_token_id": 0,
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64,
        "architectures": ["Qwen3ForCausalLM"], **sizes,
    })
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        (Qwen3ForCausalLM if has_head else Qwen3Model)(config).to(dtype).save_pretrained(folder)
    return folder
