"""A fingerprint of everything that decides an embedding."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from sentemb.encoder.heads import Head
from sentemb.encoder.lora import merged
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.tokeniser import Tokeniser

# names, paths and versions that say nothing of the function computed
_IGNORED = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures", "output_hidden_states",
            "output_attentions", "use_cache", "is_decoder", "tie_word_embeddings")


def digest_of(module: EncoderModule, tokeniser: Tokeniser) -> str:
    """Hex SHA-256 over exported weights, configuration, pooling and tokenizer; equal after save and load."""
    total = hashlib.sha256()
    config: Any = module.backbone.config
    facts = {name: value for name, value in config.to_dict().items()
             if name not in _IGNORED and not name.startswith("_")}
    total.update(json.dumps(facts, sort_keys=True, default=str).encode())
    total.update(repr(module.pooling.spec).encode())
    total.update(tokeniser.fingerprint().encode())
    parts: list[tuple[str, torch.nn.Module]] = [("backbone", merged(module.backbone))]
    # a kept head counts as the dense layers it is saved as, so that a saved and loaded copy has the same digest
    for head in module.heads:
        assert isinstance(head, Head)
        if head.train_only:
            continue
        layers = head.dense_layers()
        if layers is None:
            parts.append(("head", head))
            continue
        for layer in layers:
            total.update(layer.activation.encode())
            for tensor in (layer.weight, layer.bias, layer.residual_weight):
                if tensor is not None:
                    _add(total, tensor)
    for name, part in parts:
        for key, tensor in sorted(part.state_dict().items()):
            total.update(f"{name}.{key}{tuple(tensor.shape)}".encode())
            _add(total, tensor)
    return total.hexdigest()


def _add(total: Any, tensor: torch.Tensor) -> None:
    data = tensor.detach().to("cpu").contiguous()
    total.update(data.flatten().view(torch.uint8).numpy().data)
