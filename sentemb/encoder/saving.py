"""Writing the sentence-transformers folder layout with the older module names, which every release opens."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sentemb.encoder.heads import Head, LayerNorm
from sentemb.encoder.pooling import MODES, PoolingSpec
from sentemb.errors import ModelError

_TYPES = "sentence_transformers.models."
WEIGHTS = "model.safetensors"


def write_backbone(
    folder: Path, backbone: nn.Module, carried: dict[str, Tensor], *, dtype: torch.dtype, all_layers: bool
) -> None:
    """``config.json`` and ``model.safetensors``."""
    from safetensors.torch import save_file

    config: Any = backbone.config
    written = json.loads(config.to_json_string(use_diff=False))
    written["architectures"] = [type(backbone).__name__]
    written["dtype"] = str(dtype).removeprefix("torch.")
    # sentence-transformers hands all layers to WeightedLayerPooling only where the config says so
    written["output_hidden_states"] = all_layers
    for private in [name for name in written if name.startswith("_")]:
        del written[private]
    _dump(folder / "config.json", written)
    tensors = {**backbone.state_dict(), **carried}
    save_file(_distinct(tensors, dtype), folder / WEIGHTS, metadata={"format": "pt"})


def write_modules(folder: Path, spec: PoolingSpec, width: int, heads: list[Head], *, is_normalised: bool) -> None:
    """``modules.json`` and a numbered folder for each module behind the backbone; train-only heads are left out."""
    modules = [("", "Transformer")]
    if spec.layer_weights is not None:
        modules.append((f"{len(modules)}_WeightedLayerPooling", "WeightedLayerPooling"))
        _write_layer_weights(folder / modules[-1][0], spec.layer_weights, width)
    modules.append((f"{len(modules)}_Pooling", "Pooling"))
    _write_pooling(folder / modules[-1][0], spec, width)
    for head in heads:
        if head.train_only:
            continue
        if isinstance(head, LayerNorm):
            modules.append((f"{len(modules)}_LayerNorm", "LayerNorm"))
            _write_layer_norm(folder / modules[-1][0], head)
            continue
        layers = head.dense_layers()
        if layers is None:
            raise ModelError(f"{type(head).__name__} cannot be written in the sentence-transformers layout; make it "
                             "train_only, or give it dense_layers()")
        for layer in layers:
            modules.append((f"{len(modules)}_Dense", "Dense"))
            _write_dense(folder / modules[-1][0], layer)
    if is_normalised:
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
        (folder / modules[-1][0]).mkdir()
    _dump(folder / "modules.json", [
        {"idx": index, "name": str(index), "path": path, "type": _TYPES + kind}
        for index, (path, kind) in enumerate(modules)
    ])


def write_model_config(
    folder: Path, *, prompts: dict[str, str], default_prompt: str | None, similarity: str, max_tokens: int
) -> None:
    """What the model as a whole says of itself."""
    _dump(folder / "config_sentence_transformers.json", {
        "__version__": {"sentemb": version("sentemb"), "pytorch": torch.__version__},
        "prompts": prompts,
        "default_prompt_name": default_prompt,
        "similarity_fn_name": similarity,
    })
    # the tokenizer's own files already hold its lower-casing
    _dump(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})


def _write_pooling(place: Path, spec: PoolingSpec, width: int) -> None:
    place.mkdir()
    in_order = [mode for mode in MODES if mode in spec.modes]
    config: dict[str, Any] = {"word_embedding_dimension": width}
    config.update({flag: mode in spec.modes for mode, (_, flag) in MODES.items()})
    config["include_prompt"] = spec.include_prompt
    if list(spec.modes) != in_order:
        # the booleans have no order; releases that know the newer key prefer it
        config["pooling_mode"] = [MODES[mode][0] for mode in spec.modes]
    _dump(place / "config.json", config)


def _write_layer_weights(place: Path, weights: tuple[float, ...], width: int) -> None:
    from safetensors.torch import save_file

    place.mkdir()
    _dump(place / "config.json", {"word_embedding_dimension": width, "layer_start": 0,
                                  "num_hidden_layers": len(weights) - 1})
    save_file({"layer_weights": torch.tensor(weights)}, place / WEIGHTS)


def _write_layer_norm(place: Path, head: LayerNorm) -> None:
    from safetensors.torch import save_file

    place.mkdir()
    _dump(place / "config.json", {"dimension": head.norm.normalized_shape[0]})
    save_file(_distinct(head.state_dict(), torch.float32), place / WEIGHTS)


def _write_dense(place: Path, layer: Any) -> None:
    from safetensors.torch import save_file

    place.mkdir()
    config = {"in_features": layer.weight.shape[1], "out_features": layer.weight.shape[0],
              "bias": layer.bias is not None, "activation_function": layer.activation}
    tensors = {"linear.weight": layer.weight}
    if layer.bias is not None:
        tensors["linear.bias"] = layer.bias
    if layer.residual:
        config["use_residual"] = True  # older releases do not know the key, so it is written only where it is needed
        if layer.residual_weight is not None:
            tensors["residual.weight"] = layer.residual_weight
    _dump(place / "config.json", config)
    save_file(_distinct(tensors, torch.float32), place / WEIGHTS)


def _distinct(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Copies on the CPU in ``dtype``; tied weights are written once under each name."""
    return {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype, copy=True).contiguous()
        for name, tensor in tensors.items()
    }


def _dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
