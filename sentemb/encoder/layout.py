"""Reading the sentence-transformers folder layout, with older and newer module names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sentemb.encoder.backbone import read_json, read_weights, weight_files
from sentemb.encoder.heads import ACTIVATIONS, Dense, Head, LayerNorm
from sentemb.encoder.poolings import TOKEN_POOLINGS, LayerMean, Pooling, make_pooling
from sentemb.errors import ModelError, PartError, did_you_mean
from sentemb.parts import room
from sentemb.types import Similarity

KNOWN_MODULES = ("Transformer", "Pooling", "Normalize", "Dense", "LayerNorm", "Dropout", "WeightedLayerPooling")
_SIMILARITIES: dict[str, Similarity] = {"cosine": "cosine", "dot": "dot"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a checkpoint's folder says beside the backbone's weights.

    Attributes:
        backbone: folder of the backbone.
        pooling: not bound yet, with the weights that it was saved with; None: not said.
        pools_prompt: whether a prompt's tokens are pooled too.
        heads: not bound yet, with their weights.
    """

    backbone: Path
    pooling: tuple[Pooling, Mapping[str, Tensor]] | None = None
    pools_prompt: bool = True
    heads: tuple[tuple[Head, Mapping[str, Tensor]], ...] = ()
    is_normalised: bool = False
    max_tokens: int | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    similarity: Similarity = "cosine"


def read_layout(folder: Path, *, trust_remote_code: bool = False) -> Layout:
    """Read ``modules.json`` and what it names; a plain Hugging Face folder gives a bare ``Layout``.

    Args:
        trust_remote_code: import a pooling's class that is neither sentemb's nor imported already.

    Raises:
        ModelError: a module that sentemb does not have, a missing file, weights that are not safetensors.
    """
    layout = Layout(backbone=folder)
    if not (folder / "modules.json").is_file():
        return layout
    modules = sorted(read_json(folder / "modules.json"), key=lambda module: int(module.get("idx", 0)))
    layer_weights: tuple[float, ...] | None = None
    for module in modules:
        path = str(module["type"])
        name, home = path.rsplit(".", 1)[-1], folder / module.get("path", "")
        is_theirs = path.startswith("sentence_transformers.")
        if name == "Transformer":
            layout = _read_transformer(layout, home)
        elif name == "Pooling" and is_theirs:
            layout = _read_pooling(layout, home, layer_weights)
        elif name == "WeightedLayerPooling":
            layer_weights = _read_layer_weights(home)
        elif name == "Dense":
            layout = replace(layout, heads=(*layout.heads, (_read_dense(home), _head_weights(home))))
        elif name == "LayerNorm":
            # older releases write the weights without the module's name
            weights = {f"norm.{key.removeprefix('norm.')}": value for key, value in _head_weights(home).items()}
            layout = replace(layout, heads=(*layout.heads, (LayerNorm(), weights)))
        elif name == "Normalize":
            layout = replace(layout, is_normalised=True)
        elif not is_theirs:
            pooling = _pooling_from_outside(path, home, folder, trust_remote_code)
            weights = read_weights(home / "model.safetensors") if (home / "model.safetensors").is_file() else {}
            layout = replace(layout, pooling=(pooling, weights))
        elif name != "Dropout":
            raise ModelError(f'{folder / "modules.json"}: module type "{path}"{did_you_mean(name, KNOWN_MODULES)}')
    return _read_model_config(layout, folder)


def _read_transformer(layout: Layout, home: Path) -> Layout:
    paths = sorted(home.glob("sentence_*_config.json"), key=lambda path: "_bert_" not in path.name)
    config = read_json(paths[0]) if paths else {}
    return replace(layout, backbone=home, max_tokens=config.get("max_seq_length"),
                   lower_case=bool(config.get("do_lower_case", False)))


def _read_pooling(layout: Layout, home: Path, layer_weights: tuple[float, ...] | None) -> Layout:
    config = read_json(home / "config.json")
    names = {cls.mode: name for name, cls in TOKEN_POOLINGS.items()}
    if "pooling_mode" in config:
        theirs = [config["pooling_mode"]] if isinstance(config["pooling_mode"], str) else list(config["pooling_mode"])
        unknown = [mode for mode in theirs if mode not in names]
        if unknown:
            raise ModelError(f'{home / "config.json"}: pooling_mode = "{unknown[0]}"{did_you_mean(unknown[0], names)}')
        modes = tuple(names[mode] for mode in theirs)
    else:
        modes = tuple(name for name, cls in TOKEN_POOLINGS.items() if config.get(cls.flag)) or ("mean",)
    pooling = make_pooling("+".join(modes))
    if layer_weights is not None:
        pooling = LayerMean(weights=layer_weights, pooling=pooling)
    return replace(layout, pooling=(pooling, {}), pools_prompt=bool(config.get("include_prompt", True)))


def _pooling_from_outside(path: str, home: Path, folder: Path, trust_remote_code: bool) -> Pooling:
    """A pooling whose class is not sentemb's. A model's folder must not be able to have any code imported, so the
    class must be imported already, an installed package's part, or trusted by the caller."""
    settings = read_json(home / "config.json")
    try:
        cls = room("poolings").find(settings.pop("use", None), may_import=trust_remote_code)
        part = cls(**settings)
    except (PartError, TypeError) as error:
        module = path.rpartition(".")[0]
        raise ModelError(f'{folder / "modules.json"}: module type "{path}" is no module that sentemb has '
                         f"({error}){did_you_mean(path.rpartition('.')[2], KNOWN_MODULES)}; where it is a pooling of "
                         f"your own, import {module} before loading, or load with trust_remote_code=True") from None
    assert isinstance(part, Pooling)  # room.find saw to it
    return part


def _read_layer_weights(home: Path) -> tuple[float, ...]:
    config, weights = read_json(home / "config.json"), _head_weights(home)["layer_weights"]
    return (0.0,) * int(config["layer_start"]) + tuple(float(weight) for weight in weights)


def _read_dense(home: Path) -> Dense:
    config = read_json(home / "config.json")
    path = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    names = {cls.__name__: name for name, cls in ACTIVATIONS.items()}
    activation = path.rsplit(".", 1)[-1]
    if not path.startswith("torch.") or activation not in names:
        raise ModelError(f'{home / "config.json"}: activation_function = "{path}"{did_you_mean(activation, names)}')
    inputs = {config.get(key, "sentence_embedding") for key in ("module_input_name", "module_output_name")} - {None}
    if inputs != {"sentence_embedding"}:
        raise ModelError(f"{home / 'config.json'}: the Dense module works on {sorted(inputs)}; sentemb knows only "
                         "sentence_embedding")
    settings: dict[str, Any] = {"out_features": int(config["out_features"]), "activation": names[activation],
                                "bias": bool(config.get("bias", True)),
                                "residual": bool(config.get("use_residual", False))}
    return Dense(**settings)


def _head_weights(home: Path) -> dict[str, Tensor]:
    return read_weights(weight_files(home)[0])


def _read_model_config(layout: Layout, folder: Path) -> Layout:
    path = folder / "config_sentence_transformers.json"
    if not path.is_file():
        return layout
    config: dict[str, Any] = read_json(path)
    prompts = {str(name): str(prompt) for name, prompt in (config.get("prompts") or {}).items()}
    default = config.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ModelError(f'{path}: default_prompt_name = "{default}"{did_you_mean(default, prompts)}')
    # Euclidean and Manhattan similarities rank like none of ours; callers that need them compute them
    similarity = _SIMILARITIES.get(str(config.get("similarity_fn_name") or "cosine"), "cosine")
    return replace(layout, prompts=prompts, default_prompt=default, similarity=similarity)
