"""Write the sentence-transformers folder layout, with the older module names, which every release opens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sentemb.encoder.adapters import merged_state, prefix_of, prefix_weights
from sentemb.encoder.backbone import write_weights
from sentemb.encoder.heads import LayerNorm
from sentemb.encoder.layout import PREFIX, TEMPLATES, Layout
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.poolings import TOKEN_POOLINGS, known_form
from sentemb.encoder.static import StaticTable, static_home, write_static
from sentemb.encoder.tokeniser import Tokeniser
from sentemb.errors import ModelError
from sentemb.files import write_json
from sentemb.parts import to_table

_THEIRS = "sentence_transformers.models."


def write_layout(
    folder: Path, layout: Layout, module: EncoderModule, tokeniser: Tokeniser, carried: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> None:
    """A model's files into a folder that is being written. Pooling, heads and prefix are the module's, not those of
    ``layout``; ``carried`` are weights that it does not use, ``dtype`` is the format of the backbone's."""
    if layout.is_static:
        write_static(folder, module.backbone, tokeniser, is_normalised=layout.is_normalised)
    else:
        _write_backbone(folder, module, carried, dtype)
        tokeniser.save(folder)
    _write_modules(folder, layout, module)


def _write_backbone(folder: Path, module: EncoderModule, carried: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """``config.json`` and ``model.safetensors``, adapters merged; a prefix, which cannot be, is left out."""
    backbone, prefix = module.backbone, prefix_weights(module.backbone)
    config: Any = backbone.config
    stored = json.loads(config.to_json_string(use_diff=False))
    write_json(folder / "config.json", {name: value for name, value in stored.items() if not name.startswith("_")} | {
        "architectures": [type(backbone).__name__], "dtype": str(dtype).removeprefix("torch."),
        # sentence-transformers hands all layers to WeightedLayerPooling only where the config says so
        "output_hidden_states": module.pooling.needs_layers,
    })
    weights = ((name, value) for name, value in merged_state(backbone, dtype) if name not in prefix)
    write_weights(folder, chain(weights, carried.items()), dtype)


class _Modules:
    """The modules of a folder that is being written, in their order: a numbered folder for each behind the first."""

    def __init__(self, folder: Path, first: str, kind: str) -> None:
        self.folder, self.modules = folder, [(first, f"{_THEIRS}{kind}")]

    def add(self, path: str, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """One more, of this class."""
        own_folder = self.folder / f"{len(self.modules)}_{path.rpartition('.')[2]}"
        own_folder.mkdir()
        self.modules.append((own_folder.name, path))
        if config:
            write_json(own_folder / "config.json", config)
        if weights:
            write_weights(own_folder, weights.items())

    def add_theirs(self, kind: str, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """One more, of a class of sentence-transformers."""
        self.add(_THEIRS + kind, config, weights)

    def write_list(self) -> None:
        """``modules.json``."""
        write_json(self.folder / "modules.json", [
            {"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(self.modules)
        ])


def _write_modules(folder: Path, layout: Layout, module: EncoderModule) -> None:
    """Everything behind the backbone, and what the model says of itself."""
    table, prompting = module.backbone if isinstance(module.backbone, StaticTable) else None, layout.prompting
    first = ("", "Transformer") if table is None else (static_home(table), "StaticEmbedding")
    modules = _Modules(folder, *first)
    prefix = prefix_of(module.backbone)
    if prefix is not None:
        modules.add(PREFIX, {"length": prefix.length, "dropout": prefix.dropout}, prefix_weights(module.backbone))
    if prompting.has_templates or module.pooling.reads_mask_token:
        modules.add(TEMPLATES, {"subtract_empty": prompting.subtract_empty}, {})
    if table is None:  # a table's mean is a part of it
        _add_pooling(modules, module)
    _add_heads(modules, module)
    if layout.is_normalised:
        modules.add_theirs("Normalize", {}, {})
    modules.write_list()
    write_json(folder / "config_sentence_transformers.json", {
        "__version__": {"sentemb": version("sentemb"), "pytorch": torch.__version__},
        "prompts": dict(prompting.prompts), "default_prompt_name": prompting.default_prompt,
        "similarity_fn_name": layout.similarity, **({"origin": layout.origin} if layout.origin else {}),
    })
    if table is None:  # the tokenizer's own files already hold its lower-casing
        said = {"max_seq_length": layout.max_tokens, "do_lower_case": False}
        write_json(folder / "sentence_bert_config.json", said)


def _add_pooling(modules: _Modules, module: EncoderModule) -> None:
    config: Any = module.backbone.config
    form, width = known_form(module.pooling), config.hidden_size
    if form is None:
        cls = type(module.pooling)
        try:
            settings = to_table(module.pooling)
        except TypeError as error:
            raise ModelError(f"{cls.__name__}: its settings cannot be written as JSON ({error})") from None
        modules.add(f"{cls.__module__}.{cls.__qualname__}", settings, module.pooling.state_dict())
        return
    modes, layer_weights = form
    if layer_weights is not None:
        layers = {"word_embedding_dimension": width, "layer_start": 0, "num_hidden_layers": len(layer_weights) - 1}
        modules.add_theirs("WeightedLayerPooling", layers, {"layer_weights": torch.tensor(layer_weights)})
    modules.add_theirs("Pooling", _pooling_config(modes, width, module.pools_prompt), {})


def _add_heads(modules: _Modules, module: EncoderModule) -> None:
    for head in module.kept_heads:
        if isinstance(head, LayerNorm):
            modules.add_theirs("LayerNorm", {"dimension": head.norm.normalized_shape[0]}, head.state_dict())
            continue
        layers = head.dense_layers()
        if layers is None:
            raise ModelError(f"{type(head).__name__} cannot be written in the sentence-transformers layout; make it "
                             "train_only, or give it dense_layers()")
        for layer in layers:
            dense = {"in_features": layer.linear.in_features, "out_features": layer.out_features, "bias": layer.bias,
                     "activation_function": layer.activation_path}
            # older releases do not know the last key, so it is written only where it is needed
            residual = {"use_residual": True} if layer.is_residual else {}
            modules.add_theirs("Dense", dense | residual, layer.state_dict())


def _pooling_config(modes: tuple[str, ...], width: int, pools_prompt: bool) -> dict[str, Any]:
    config: dict[str, Any] = {"word_embedding_dimension": width}
    config.update({cls.flag: mode in modes for mode, cls in TOKEN_POOLINGS.items()})
    config["include_prompt"] = pools_prompt
    if list(modes) != [mode for mode in TOKEN_POOLINGS if mode in modes]:
        # the booleans have no order; releases that know the newer key prefer it
        config["pooling_mode"] = [TOKEN_POOLINGS[mode].mode for mode in modes]
    return config
