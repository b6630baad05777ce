"""The sentence-transformers folder layout, read with older and newer module names (``saving`` writes it)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sentemb.encoder.adapter_folder import base_of
from sentemb.encoder.adapters import Prefix
from sentemb.encoder.backbone import read_json, read_weights, weight_files
from sentemb.encoder.heads import ACTIVATIONS, Activation, Dense, Head, LayerNorm
from sentemb.encoder.poolings import TOKEN_POOLINGS, LayerMean, Pooling, make_pooling
from sentemb.encoder.prompting import Prompting
from sentemb.encoder.static import model2vec_config
from sentemb.errors import ModelError, PartError, did_you_mean, first_line
from sentemb.parts import room
from sentemb.types import Similarity

PREFIX = f"{Prefix.__module__}.{Prefix.__qualname__}"
TEMPLATES = "sentemb.encoder.prompting.Templates"
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


def read_layout(folder: Path, *, trust_remote_code: bool = False) -> Layout:
    """Read ``modules.json`` and what it names; a plain Hugging Face folder gives a bare ``Layout``."""
    listed = folder / "modules.json"
    if not listed.is_file():
        return _without_modules(folder, trust_remote_code)
    layout = Layout(backbone=folder)
    for module in sorted(read_json(listed), key=lambda module: int(module.get("idx", 0))):
        path, home = str(module["type"]), folder / module.get("path", "")
        name, is_theirs = path.rpartition(".")[2], path.startswith("sentence_transformers.")
        if path in _OWN_READERS:
            layout = _OWN_READERS[path](layout, home)
        elif name == "Transformer":
            layout = _read_transformer(layout, home, trust_remote_code)
        elif name in _READERS and (is_theirs or name != "Pooling"):
            layout = _READERS[name](layout, home)
        elif is_theirs:
            raise ModelError(f'{listed}: module type "{path}"{did_you_mean(name, KNOWN_MODULES)}')
        else:
            layout = replace(layout, pooling=_read_foreign_pooling(listed, path, home, trust_remote_code))
    return _read_model_config(layout, folder / "config_sentence_transformers.json")


def _without_modules(folder: Path, trust_remote_code: bool) -> Layout:
    """An adapter in peft's layout, a model of model2vec, or a bare backbone."""
    if (base := base_of(folder)) is not None:
        return _with_adapter(folder, base, trust_remote_code)
    if (static := model2vec_config(folder)) is not None:
        return Layout(backbone=folder, is_static=True, is_normalised=bool(static.get("normalize")))
    return Layout(backbone=folder)


def _with_adapter(folder: Path, base: Path, trust_remote_code: bool) -> Layout:
    layout = read_layout(base, trust_remote_code=trust_remote_code)
    if layout.adapter is not None:  # which would be left out
        raise ModelError(f"{folder}: an adapter of {base}, which is an adapter itself; open that one with sentemb, "
                         "save it, and name the saved model in base_model_name_or_path")
    return replace(layout, adapter=folder)


def _read_transformer(layout: Layout, home: Path, trust_remote_code: bool) -> Layout:
    configs = sorted(home.glob("sentence_*_config.json"), key=lambda path: "_bert_" not in path.name)
    config = read_json(configs[0]) if configs else {}
    layout = replace(layout, backbone=home, max_tokens=config.get("max_seq_length"),
                     lower_case=bool(config.get("do_lower_case", False)))
    if (base := base_of(home)) is None:
        return layout
    return replace(layout, backbone=_with_adapter(home, base, trust_remote_code).backbone, adapter=home)


def _read_static(layout: Layout, home: Path) -> Layout:
    return replace(layout, backbone=home, is_static=True)


def _read_layer_weights(layout: Layout, home: Path) -> Layout:
    """The weighted mean of the layers; the module behind it says how that is pooled."""
    first = int(read_json(home / "config.json")["layer_start"])
    weights = (0.0,) * first + tuple(read_weights(*weight_files(home))["layer_weights"].tolist())
    return replace(layout, pooling=(LayerMean(weights=weights), {}))


def _read_pooling(layout: Layout, home: Path) -> Layout:
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
    if layout.pooling is not None and isinstance(before := layout.pooling[0], LayerMean):
        pooling = LayerMean(weights=before.weights, pooling=pooling)
    return replace(layout, pooling=(pooling, {}), pools_prompt=bool(config.get("include_prompt", True)))


def _read_foreign_pooling(
    listed: Path, path: str, home: Path, trust_remote_code: bool
) -> tuple[Pooling, Mapping[str, Tensor]]:
    """A pooling whose class is not sentemb's. A model's folder must not be able to have any code imported, so the
    class must be imported already, an installed package's part, or trusted by the caller."""
    settings = dict(read_json(home / "config.json"))
    try:
        pooling = room("poolings").find(settings.pop("use", None), may_import=trust_remote_code)(**settings)
    except (PartError, TypeError) as error:
        package, _, name = path.rpartition(".")
        raise ModelError(f'{listed}: module type "{path}" is no module that sentemb has ({error})'
                         f"{did_you_mean(name, KNOWN_MODULES)}; where it is a pooling of your own, import {package} "
                         "before loading, or load with trust_remote_code=True") from None
    assert isinstance(pooling, Pooling)  # room.find saw to it
    return pooling, read_weights(home / _WEIGHTS) if (home / _WEIGHTS).is_file() else {}


def _read_prefix(layout: Layout, home: Path) -> Layout:
    try:
        prefix = Prefix(**read_json(home / "config.json"))
    except (TypeError, ValueError) as error:
        raise ModelError(f"{home / 'config.json'}: no settings of a prefix ({first_line(error)})") from None
    return replace(layout, prefix=(prefix, read_weights(home / _WEIGHTS)))


def _read_templates(layout: Layout, home: Path) -> Layout:
    return replace(layout, prompting=Prompting(subtract_empty=float(read_json(home / "config.json")["subtract_empty"])))


def _read_dense(layout: Layout, home: Path) -> Layout:
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
    dense = Dense(out_features=int(config["out_features"]), activation=names[activation],
                  bias=bool(config.get("bias", True)), residual=bool(config.get("use_residual", False)))
    return replace(layout, heads=(*layout.heads, (dense, read_weights(*weight_files(home)))))


def _read_layer_norm(layout: Layout, home: Path) -> Layout:
    stored = read_weights(*weight_files(home))
    # older releases write the weights without the module's name
    weights = {f"norm.{key.removeprefix('norm.')}": value for key, value in stored.items()}
    return replace(layout, heads=(*layout.heads, (LayerNorm(), weights)))


def _read_normalize(layout: Layout, home: Path) -> Layout:
    return replace(layout, is_normalised=True)


def _read_nothing(layout: Layout, home: Path) -> Layout:
    return layout  # dropout does nothing when texts are encoded


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


_READERS: Mapping[str, Callable[[Layout, Path], Layout]] = {
    "StaticEmbedding": _read_static, "Pooling": _read_pooling, "Normalize": _read_normalize, "Dense": _read_dense,
    "LayerNorm": _read_layer_norm, "Dropout": _read_nothing, "WeightedLayerPooling": _read_layer_weights,
}
_OWN_READERS = {PREFIX: _read_prefix, TEMPLATES: _read_templates}
KNOWN_MODULES = ("Transformer", *_READERS)
