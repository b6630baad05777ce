"""The sentence-transformers folder layout: read with older and newer module names, written with the older ones, which
every release opens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sentemb.encoder.adapter_folder import base_of
from sentemb.encoder.adapters import Prefix, merged_state, prefix_of, prefix_weights
from sentemb.encoder.backbone import read_json, read_weights, weight_files, write_weights
from sentemb.encoder.heads import ACTIVATIONS, Activation, Dense, Head, LayerNorm
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.poolings import TOKEN_POOLINGS, LayerMean, Pooling, known_form, make_pooling
from sentemb.encoder.prompting import Prompting
from sentemb.encoder.static import StaticTable, model2vec_config, static_home, write_static
from sentemb.encoder.tokeniser import Tokeniser
from sentemb.errors import ModelError, PartError, did_you_mean, first_line
from sentemb.files import write_json
from sentemb.parts import room, to_table
from sentemb.types import Similarity

KNOWN_MODULES = ("Transformer", "StaticEmbedding", "Pooling", "Normalize", "Dense", "LayerNorm", "Dropout",
                 "WeightedLayerPooling")
_THEIRS = "sentence_transformers.models."
_PREFIX = f"{Prefix.__module__}.{Prefix.__qualname__}"
_TEMPLATES = "sentemb.encoder.prompting.Templates"
_WEIGHTS = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a checkpoint's folder says beside the backbone's weights."""

    backbone: Path  # its folder
    adapter: Path | None = None  # the folder of one in peft's layout, which is not in the backbone yet
    prefix: tuple[Prefix, Mapping[str, Tensor]] | None = None  # not in the backbone yet, and its weights
    is_static: bool = False  # a table of token vectors in place of a transformer
    pooling: tuple[Pooling, Mapping[str, Tensor]] | None = None  # not bound yet, and its weights; None: not said
    pools_prompt: bool = True  # whether a prompt's tokens are pooled too
    heads: tuple[tuple[Head, Mapping[str, Tensor]], ...] = ()  # not bound yet, and their weights
    is_normalised: bool = False
    max_tokens: int | None = None
    lower_case: bool = False
    prompting: Prompting = field(default_factory=Prompting)
    similarity: Similarity = "cosine"
    origin: str = ""  # how the model was made of others


# ------------------------------------------------------------------------------------------------- reading
def read_layout(folder: Path, *, trust_remote_code: bool = False) -> Layout:
    """Read ``modules.json`` and what it names; a plain Hugging Face folder gives a bare ``Layout``."""
    layout, listed = Layout(backbone=folder), folder / "modules.json"
    if not listed.is_file() and (base := base_of(folder)) is not None:
        return _with_adapter(folder, base, trust_remote_code)
    if not listed.is_file():
        static = model2vec_config(folder)
        if static is None:
            return layout
        return replace(layout, is_static=True, is_normalised=bool(static.get("normalize")))
    layer_weights: tuple[float, ...] | None = None
    for module in sorted(read_json(listed), key=lambda module: int(module.get("idx", 0))):
        path = str(module["type"])
        name, home = path.rsplit(".", 1)[-1], folder / module.get("path", "")
        is_theirs = path.startswith("sentence_transformers.")
        if name == "Transformer":
            configs = sorted(home.glob("sentence_*_config.json"), key=lambda path: "_bert_" not in path.name)
            config = read_json(configs[0]) if configs else {}
            base = base_of(home)
            layout = replace(layout, backbone=home, max_tokens=config.get("max_seq_length"),
                             lower_case=bool(config.get("do_lower_case", False)))
            if base is not None:
                layout = replace(layout, backbone=_with_adapter(home, base, trust_remote_code).backbone, adapter=home)
        elif name == "StaticEmbedding":
            layout = replace(layout, backbone=home, is_static=True)
        elif name == "Pooling" and is_theirs:
            layout = _read_pooling(layout, home, layer_weights)
        elif name == "WeightedLayerPooling":
            first = int(read_json(home / "config.json")["layer_start"])
            layer_weights = (0.0,) * first + tuple(read_weights(*weight_files(home))["layer_weights"].tolist())
        elif name == "Dense":
            layout = replace(layout, heads=(*layout.heads, (_read_dense(home), read_weights(*weight_files(home)))))
        elif name == "LayerNorm":
            # older releases write the weights without the module's name
            stored = read_weights(*weight_files(home))
            weights = {f"norm.{key.removeprefix('norm.')}": value for key, value in stored.items()}
            layout = replace(layout, heads=(*layout.heads, (LayerNorm(), weights)))
        elif name == "Normalize":
            layout = replace(layout, is_normalised=True)
        elif path == _PREFIX:
            layout = replace(layout, prefix=(_read_prefix(home / "config.json"), read_weights(home / _WEIGHTS)))
        elif path == _TEMPLATES:
            share = float(read_json(home / "config.json")["subtract_empty"])
            layout = replace(layout, prompting=Prompting(subtract_empty=share))
        elif not is_theirs:
            try:
                pooling = _pooling_from_outside(read_json(home / "config.json"), trust_remote_code)
            except (PartError, TypeError) as error:
                raise ModelError(f'{listed}: module type "{path}" is no module that sentemb has ({error})'
                                 f"{did_you_mean(name, KNOWN_MODULES)}; where it is a pooling of your own, import "
                                 f"{path.rpartition('.')[0]} before loading, or load with trust_remote_code=True"
                                 ) from None
            weights = read_weights(home / _WEIGHTS) if (home / _WEIGHTS).is_file() else {}
            layout = replace(layout, pooling=(pooling, weights))
        elif name != "Dropout":
            raise ModelError(f'{listed}: module type "{path}"{did_you_mean(name, KNOWN_MODULES)}')
    return _read_model_config(layout, folder / "config_sentence_transformers.json")


def _with_adapter(folder: Path, base: Path, trust_remote_code: bool) -> Layout:
    layout = read_layout(base, trust_remote_code=trust_remote_code)
    if layout.adapter is not None:  # which would be left out
        raise ModelError(f"{folder}: an adapter of {base}, which is an adapter itself; open that one with sentemb, "
                         "save it, and name the saved model in base_model_name_or_path")
    return replace(layout, adapter=folder)


def _read_pooling(layout: Layout, home: Path, layer_weights: tuple[float, ...] | None) -> Layout:
    config = read_json(home / "config.json")
    names = {cls.mode: name for name, cls in TOKEN_POOLINGS.items()}
    if "pooling_mode" in config:
        modes = [config["pooling_mode"]] if isinstance(config["pooling_mode"], str) else config["pooling_mode"]
        unknown = [mode for mode in modes if mode not in names]
        if unknown:
            raise ModelError(f'{home / "config.json"}: pooling_mode = "{unknown[0]}"{did_you_mean(unknown[0], names)}')
    else:
        modes = [cls.mode for cls in TOKEN_POOLINGS.values() if config.get(cls.flag)] or ["mean"]
    pooling = make_pooling("+".join(names[mode] for mode in modes))
    if layer_weights is not None:
        pooling = LayerMean(weights=layer_weights, pooling=pooling)
    return replace(layout, pooling=(pooling, {}), pools_prompt=bool(config.get("include_prompt", True)))


def _pooling_from_outside(settings: dict[str, Any], trust_remote_code: bool) -> Pooling:
    """A pooling whose class is not sentemb's. A model's folder must not be able to have any code imported, so the
    class must be imported already, an installed package's part, or trusted by the caller."""
    part = room("poolings").find(settings.pop("use", None), may_import=trust_remote_code)(**settings)
    assert isinstance(part, Pooling)  # room.find saw to it
    return part


def _read_prefix(path: Path) -> Prefix:
    try:
        return Prefix(**read_json(path))
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path}: no settings of a prefix ({first_line(error)})") from None


def _read_dense(home: Path) -> Dense:
    config = read_json(home / "config.json")
    path = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    names: dict[str, Activation] = {cls.__name__: name for name, cls in ACTIVATIONS.items()}
    activation = path.rsplit(".", 1)[-1]
    if not path.startswith("torch.") or activation not in names:
        raise ModelError(f'{home / "config.json"}: activation_function = "{path}"{did_you_mean(activation, names)}')
    inputs = {config.get(key, "sentence_embedding") for key in ("module_input_name", "module_output_name")} - {None}
    if inputs != {"sentence_embedding"}:
        raise ModelError(f"{home / 'config.json'}: the Dense module works on {sorted(inputs)}; sentemb knows only "
                         "sentence_embedding")
    return Dense(out_features=int(config["out_features"]), activation=names[activation],
                 bias=bool(config.get("bias", True)), residual=bool(config.get("use_residual", False)))


def _read_model_config(layout: Layout, path: Path) -> Layout:
    if not path.is_file():
        return layout
    config: dict[str, Any] = read_json(path)
    prompts = {str(name): str(prompt) for name, prompt in (config.get("prompts") or {}).items()}
    default = config.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ModelError(f'{path}: default_prompt_name = "{default}"{did_you_mean(default, prompts)}')
    # Euclidean and Manhattan similarities rank like none of ours; callers that need them compute them
    similarity: Similarity = "dot" if config.get("similarity_fn_name") == "dot" else "cosine"
    prompting = replace(layout.prompting, prompts=prompts, default_prompt=default)
    return replace(layout, prompting=prompting, similarity=similarity, origin=str(config.get("origin", "")))


# ------------------------------------------------------------------------------------------------- writing
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


def _write_modules(folder: Path, layout: Layout, module: EncoderModule) -> None:
    """A numbered folder for each module behind the backbone, ``modules.json``, and what the model says of itself."""
    table = module.backbone if isinstance(module.backbone, StaticTable) else None
    modules = [("", f"{_THEIRS}Transformer")] if table is None else [(static_home(table), f"{_THEIRS}StaticEmbedding")]

    def add(kind: str, config: Mapping[str, Any], weights: Mapping[str, Tensor], *, package: str = _THEIRS) -> None:
        own_folder = folder / f"{len(modules)}_{kind}"
        own_folder.mkdir()
        modules.append((own_folder.name, package + kind))
        if config:
            write_json(own_folder / "config.json", config)
        if weights:
            write_weights(own_folder, weights.items())

    prefix = prefix_of(module.backbone)
    if prefix is not None:
        add("Prefix", {"length": prefix.length, "dropout": prefix.dropout}, prefix_weights(module.backbone),
            package=_PREFIX.removesuffix("Prefix"))
    config: Any = module.backbone.config
    form, width, prompting = known_form(module.pooling), config.hidden_size, layout.prompting
    if prompting.has_templates or module.pooling.reads_mask_token:
        package, _, kind = _TEMPLATES.rpartition(".")
        add(kind, {"subtract_empty": prompting.subtract_empty}, {}, package=f"{package}.")
    if table is not None:
        pass  # its mean is a part of it
    elif form is None:
        cls = type(module.pooling)
        try:
            add(cls.__qualname__, to_table(module.pooling), module.pooling.state_dict(), package=f"{cls.__module__}.")
        except TypeError as error:
            raise ModelError(f"{cls.__name__}: its settings cannot be written as JSON ({error})") from None
    else:
        modes, layer_weights = form
        if layer_weights is not None:
            add("WeightedLayerPooling", {"word_embedding_dimension": width, "layer_start": 0,
                                         "num_hidden_layers": len(layer_weights) - 1},
                {"layer_weights": torch.tensor(layer_weights)})
        add("Pooling", _pooling_config(modes, width, module.pools_prompt), {})
    for head in module.kept_heads:
        if isinstance(head, LayerNorm):
            add("LayerNorm", {"dimension": head.norm.normalized_shape[0]}, head.state_dict())
            continue
        layers = head.dense_layers()
        if layers is None:
            raise ModelError(f"{type(head).__name__} cannot be written in the sentence-transformers layout; make it "
                             "train_only, or give it dense_layers()")
        for layer in layers:
            dense = {"in_features": layer.linear.in_features, "out_features": layer.out_features, "bias": layer.bias,
                     "activation_function": layer.activation_path}
            # older releases do not know the last key, so it is written only where it is needed
            add("Dense", dense | ({"use_residual": True} if layer.is_residual else {}), layer.state_dict())
    if layout.is_normalised:
        add("Normalize", {}, {})
    write_json(folder / "modules.json", [
        {"idx": index, "name": str(index), "path": path, "type": kind} for index, (path, kind) in enumerate(modules)
    ])
    write_json(folder / "config_sentence_transformers.json", {
        "__version__": {"sentemb": version("sentemb"), "pytorch": torch.__version__},
        "prompts": dict(prompting.prompts), "default_prompt_name": prompting.default_prompt,
        "similarity_fn_name": layout.similarity, **({"origin": layout.origin} if layout.origin else {}),
    })
    if table is not None:
        return
    # the tokenizer's own files already hold its lower-casing
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": layout.max_tokens, "do_lower_case": False})


def _pooling_config(modes: tuple[str, ...], width: int, pools_prompt: bool) -> dict[str, Any]:
    config: dict[str, Any] = {"word_embedding_dimension": width}
    config.update({cls.flag: mode in modes for mode, cls in TOKEN_POOLINGS.items()})
    config["include_prompt"] = pools_prompt
    if list(modes) != [mode for mode in TOKEN_POOLINGS if mode in modes]:
        # the booleans have no order; releases that know the newer key prefer it
        config["pooling_mode"] = [TOKEN_POOLINGS[mode].mode for mode in modes]
    return config
