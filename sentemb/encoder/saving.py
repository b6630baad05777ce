"""Writing the sentence-transformers folder layout with the older module names, which every release opens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sentemb.encoder.heads import DenseLayer, LayerNorm
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.poolings import TOKEN_POOLINGS, Pooling, known_form
from sentemb.errors import ModelError, NumericError, first_line
from sentemb.files import atomic_folder, write_json
from sentemb.parts import to_table

_THEIRS = "sentence_transformers.models."
_WEIGHTS = "model.safetensors"


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``folder`` when everything in it was written.

    Raises:
        ModelError: something could not be written; then ``folder`` is as it was.
    """
    from safetensors import SafetensorError

    try:
        with atomic_folder(folder) as temporary:
            yield temporary
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder}: the model could not be saved ({first_line(error)}); make room or save it "
                         "elsewhere") from error


def write_backbone(
    folder: Path, backbone: nn.Module, carried: Mapping[str, Tensor], *, dtype: torch.dtype, all_layers: bool
) -> None:
    """``config.json`` and ``model.safetensors``."""
    config: Any = backbone.config
    written = json.loads(config.to_json_string(use_diff=False))
    written["architectures"] = [type(backbone).__name__]
    written["dtype"] = str(dtype).removeprefix("torch.")
    # sentence-transformers hands all layers to WeightedLayerPooling only where the config says so
    written["output_hidden_states"] = all_layers
    for private in [name for name in written if name.startswith("_")]:
        del written[private]
    write_json(folder / "config.json", written)
    write_weights(folder / _WEIGHTS, {**backbone.state_dict(), **carried}, dtype)


def write_modules(folder: Path, module: EncoderModule, *, is_normalised: bool) -> None:
    """``modules.json`` and a numbered folder for each module behind the backbone; train-only heads are left out."""
    modules = [("", f"{_THEIRS}Transformer")]

    def begin(kind: str, *, package: str = _THEIRS) -> Path:
        own_folder = folder / f"{len(modules)}_{kind}"
        own_folder.mkdir()
        modules.append((own_folder.name, package + kind))
        return own_folder

    config: Any = module.backbone.config
    form, width = known_form(module.pooling), config.hidden_size
    if form is None:
        cls = type(module.pooling)
        _write_outside_pooling(begin(cls.__qualname__, package=f"{cls.__module__}."), module.pooling)
    else:
        modes, layer_weights = form
        if layer_weights is not None:
            _write_layer_weights(begin("WeightedLayerPooling"), layer_weights, width)
        _write_pooling(begin("Pooling"), modes, width, module.pools_prompt)
    for head in module.kept_heads:
        if isinstance(head, LayerNorm):
            own_folder = begin("LayerNorm")
            write_json(own_folder / "config.json", {"dimension": head.norm.normalized_shape[0]})
            write_weights(own_folder / _WEIGHTS, head.state_dict())
            continue
        layers = head.dense_layers()
        if layers is None:
            raise ModelError(f"{type(head).__name__} cannot be written in the sentence-transformers layout; make it "
                             "train_only, or give it dense_layers()")
        for layer in layers:
            _write_dense(begin("Dense"), layer)
    if is_normalised:
        begin("Normalize")
    write_json(folder / "modules.json", [
        {"idx": index, "name": str(index), "path": path, "type": kind} for index, (path, kind) in enumerate(modules)
    ])


def write_model_config(
    folder: Path, *, prompts: dict[str, str], default_prompt: str | None, similarity: str, max_tokens: int
) -> None:
    """What the model as a whole says of itself."""
    write_json(folder / "config_sentence_transformers.json", {
        "__version__": {"sentemb": version("sentemb"), "pytorch": torch.__version__},
        "prompts": prompts,
        "default_prompt_name": default_prompt,
        "similarity_fn_name": similarity,
    })
    # the tokenizer's own files already hold its lower-casing
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})


def write_weights(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> None:
    """Copies in ``dtype``; tied weights are written once under each name.

    Raises:
        NumericError: a weight is NaN or infinite.
    """
    from safetensors.torch import save_file

    written = {}
    for name, tensor in tensors.items():
        form = dtype if tensor.is_floating_point() else tensor.dtype
        written[name] = tensor.detach().to("cpu", form, copy=True).contiguous()
        if tensor.is_floating_point() and not bool(written[name].isfinite().all()):
            raise NumericError(f"the model is not saved: its weight {name} holds NaN or infinity")
    save_file(written, path, metadata={"format": "pt"})


def _write_pooling(own_folder: Path, modes: tuple[str, ...], width: int, pools_prompt: bool) -> None:
    config: dict[str, Any] = {"word_embedding_dimension": width}
    config.update({cls.flag: mode in modes for mode, cls in TOKEN_POOLINGS.items()})
    config["include_prompt"] = pools_prompt
    if list(modes) != [mode for mode in TOKEN_POOLINGS if mode in modes]:
        # the booleans have no order; releases that know the newer key prefer it
        config["pooling_mode"] = [TOKEN_POOLINGS[mode].mode for mode in modes]
    write_json(own_folder / "config.json", config)


def _write_layer_weights(own_folder: Path, weights: tuple[float, ...], width: int) -> None:
    write_json(own_folder / "config.json", {"word_embedding_dimension": width, "layer_start": 0,
                                       "num_hidden_layers": len(weights) - 1})
    write_weights(own_folder / _WEIGHTS, {"layer_weights": torch.tensor(weights)})


def _write_outside_pooling(own_folder: Path, pooling: Pooling) -> None:
    try:
        write_json(own_folder / "config.json", to_table(pooling))
    except TypeError as error:
        raise ModelError(f"{type(pooling).__name__}: its settings cannot be written as JSON ({error})") from None
    if pooling.state_dict():
        write_weights(own_folder / _WEIGHTS, pooling.state_dict())


def _write_dense(own_folder: Path, layer: DenseLayer) -> None:
    config = {"in_features": layer.weight.shape[1], "out_features": layer.weight.shape[0],
              "bias": layer.bias is not None, "activation_function": layer.activation_path}
    tensors = {"linear.weight": layer.weight}
    if layer.bias is not None:
        tensors["linear.bias"] = layer.bias
    if layer.residual:
        config["use_residual"] = True  # older releases do not know the key, so it is written only where it is needed
        if layer.residual_weight is not None:
            tensors["residual.weight"] = layer.residual_weight
    write_json(own_folder / "config.json", config)
    write_weights(own_folder / _WEIGHTS, tensors)
