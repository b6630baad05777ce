"""Fingerprints: of everything that decides an embedding, and of a frozen model's weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from sentemb.encoder.adapters import merged_state
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.poolings import known_form
from sentemb.encoder.tokeniser import Tokeniser
from sentemb.errors import CheckpointError

# names, paths and versions that say nothing of the function computed
_IGNORED = ("transformers_version", "dtype", "torch_dtype", "architectures", "output_hidden_states",
            "output_attentions", "use_cache", "is_decoder", "tie_word_embeddings")


def digest_of(module: EncoderModule, tokeniser: Tokeniser) -> str:
    """Hex SHA-256 over exported weights, configuration, pooling and tokenizer; equal after save and load."""
    total = hashlib.sha256()
    config: Any = module.backbone.config
    facts = {name: value for name, value in config.to_dict().items()
             if name not in _IGNORED and not name.startswith("_")}
    total.update(json.dumps(facts, sort_keys=True, default=str).encode())
    # in the backbone's own format, as it is saved
    weights = merged_state(module.backbone, next(module.backbone.parameters()).dtype)
    parts: list[tuple[str, Iterable[tuple[str, Tensor]]]] = [("backbone", weights)]
    form = known_form(module.pooling)
    if form is None:
        total.update(f"{module.pooling!r} {module.pools_prompt}".encode())
        parts.append(("pooling", sorted(module.pooling.state_dict().items())))
    else:  # these very words, because indexes know their models by the digest
        modes, layer_weights = form
        total.update(f"PoolingSpec(modes={modes!r}, layer_weights={layer_weights!r}, "
                     f"include_prompt={module.pools_prompt})".encode())
    total.update(tokeniser.fingerprint().encode())
    # a kept head counts as the dense layers it is saved as, so that a saved and loaded copy has the same digest
    for head in module.kept_heads:
        layers = head.dense_layers()
        if layers is None:
            parts.append(("head", sorted(head.state_dict().items())))
            continue
        for layer in layers:
            total.update(layer.activation_path.encode())
            for tensor in layer.state_dict().values():
                total.update(bytes_of(tensor))
    for name, tensors in parts:
        for key, tensor in tensors:
            total.update(f"{name}.{key}{tuple(tensor.shape)}".encode())
            # one at a time in float32, so that weights kept in bfloat16 have the digest of the same ones in float32
            total.update(bytes_of(tensor.float() if tensor.dtype == torch.bfloat16 else tensor))
    return total.hexdigest()


def fingerprint(module: nn.Module) -> UInt8[Tensor, " 32"]:
    """SHA-256 of a frozen model's state, so that a training checkpoint need not hold it."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(bytes_of(tensor))
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def require_same(state: Mapping[str, Tensor], mine: UInt8[Tensor, " 32"], part: str) -> None:
    """Raise ``CheckpointError`` unless a checkpoint's fingerprint is the loaded model's."""
    theirs = state.get("fingerprint")
    if theirs is None or not torch.equal(theirs.cpu(), mine.cpu()):
        raise CheckpointError(f"{part}: the checkpoint was made with another frozen model; give it, or start a new run")


def bytes_of(tensor: Tensor) -> memoryview:
    """A tensor's memory; numpy has no bfloat16, but its bytes."""
    array: Any = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return memoryview(array)
