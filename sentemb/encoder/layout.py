"""The sentence-transformers folder layout, older and newer module names: reading."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from sentemb.encoder.heads import Dense, Head, LayerNorm
from sentemb.encoder.heads.dense import ACTIVATIONS
from sentemb.encoder.pooling import MODES, PoolingSpec
from sentemb.errors import ModelError, did_you_mean
from sentemb.types import Similarity

KNOWN_MODULES = ("Transformer", "Pooling", "Normalize", "Dense", "LayerNorm", "Dropout", "WeightedLayerPooling")
_SIMILARITIES: dict[str, Similarity] = {"cosine": "cosine", "dot": "dot"}


@dataclass
class Layout:
    """What a checkpoint's folder says beside the backbone's weights."""

    backbone: Path
    pooling: PoolingSpec | None = None
    heads: list[tuple[Head, dict[str, Tensor]]] = field(default_factory=list)  # unbound, with their weights
    is_normalised: bool = False
    max_tokens: int | None = None
    lower_case: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    similarity: Similarity = "cosine"


def read_layout(folder: Path) -> Layout:
    """Read ``modules.json`` and what it names; a plain Hugging Face folder gives a bare ``Layout``.

    Raises:
        ModelError: a module that sentemb does not have, a missing file, weights that are not safetensors.
    """
    if not (folder / "modules.json").is_file():
        return Layout(folder)
    modules = sorted(_read_json(folder / "modules.json"), key=lambda module: int(module.get("idx", 0)))
    layout = Layout(folder)
    layer_weights: tuple[float, ...] | None = None
    for module in modules:
        name, place = str(module["type"]).rsplit(".", 1)[-1], folder / module.get("path", "")
        if name == "Transformer":
            _read_transformer(layout, place)
        elif name == "Pooling":
            layout.pooling = _read_pooling(place, layer_weights)
        elif name == "WeightedLayerPooling":
            layer_weights = _read_layer_weights(place)
        elif name == "Dense":
            layout.heads.append((_read_dense(place), _read_weights(place)))
        elif name == "LayerNorm":
            layout.heads.append((LayerNorm(), _read_weights(place)))
        elif name == "Normalize":
            layout.is_normalised = True
        elif name != "Dropout":
            raise ModelError(f'{folder / "modules.json"}: module type "{module["type"]}"'
                             f"{did_you_mean(name, KNOWN_MODULES)}")
    _read_model_config(layout, folder)
    return layout


def _read_transformer(layout: Layout, place: Path) -> None:
    layout.backbone = place
    for name in ("sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json",
                 "sentence_camembert_config.json", "sentence_albert_config.json",
                 "sentence_xlm-roberta_config.json", "sentence_xlnet_config.json"):
        path = place / name
        if path.is_file():
            config = _read_json(path)
            layout.max_tokens = config.get("max_seq_length")
            layout.lower_case = bool(config.get("do_lower_case", False))
            return


def _read_pooling(place: Path, layer_weights: tuple[float, ...] | None) -> PoolingSpec:
    config = _read_json(place / "config.json")
    if "pooling_mode" in config:
        asked = config["pooling_mode"]
        asked = [asked] if isinstance(asked, str) else list(asked)
        ours = {theirs: mode for mode, (theirs, _) in MODES.items()}
        unknown = [mode for mode in asked if mode not in ours]
        if unknown:
            raise ModelError(f'{place / "config.json"}: pooling_mode = "{unknown[0]}"{did_you_mean(unknown[0], ours)}')
        modes = tuple(ours[mode] for mode in asked)
    else:
        modes = tuple(mode for mode, (_, flag) in MODES.items() if config.get(flag)) or ("mean",)
    return PoolingSpec(modes, layer_weights, bool(config.get("include_prompt", True)))


def _read_layer_weights(place: Path) -> tuple[float, ...]:
    config, weights = _read_json(place / "config.json"), _read_weights(place)["layer_weights"]
    return (0.0,) * int(config["layer_start"]) + tuple(float(weight) for weight in weights)


def _read_dense(place: Path) -> Dense:
    config = _read_json(place / "config.json")
    path = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    names = {known.rsplit(".", 1)[-1]: name for name, (_, known) in ACTIVATIONS.items()}
    activation = path.rsplit(".", 1)[-1]
    if not path.startswith("torch.") or activation not in names:
        raise ModelError(f'{place / "config.json"}: activation_function = "{path}"{did_you_mean(activation, names)}')
    inputs = {config.get("module_input_name", "sentence_embedding"), config.get("module_output_name",
              "sentence_embedding")} - {None}
    if inputs != {"sentence_embedding"}:
        raise ModelError(f"{place / 'config.json'}: the Dense module works on {sorted(inputs)}; sentemb knows only "
                         "sentence_embedding")
    return Dense(out_features=int(config["out_features"]), activation=names[activation],
                 bias=bool(config.get("bias", True)), residual=bool(config.get("use_residual", False)))


def _read_weights(place: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    path = place / "model.safetensors"
    if not path.is_file():
        other = ", ".join(sorted(entry.name for entry in place.glob("*.bin"))) or "no weights"
        raise ModelError(f"{place}: found {other}; only model.safetensors is read (a pickle can run any code). Save "
                         "the model again with a current sentence-transformers")
    weights: dict[str, Tensor] = load_file(path)
    return weights


def _read_model_config(layout: Layout, folder: Path) -> None:
    path = folder / "config_sentence_transformers.json"
    if not path.is_file():
        return
    config = _read_json(path)
    layout.prompts = {str(name): str(prompt) for name, prompt in (config.get("prompts") or {}).items()}
    layout.default_prompt = config.get("default_prompt_name")
    if layout.default_prompt is not None and layout.default_prompt not in layout.prompts:
        raise ModelError(f'{path}: default_prompt_name = "{layout.default_prompt}"'
                         f"{did_you_mean(layout.default_prompt, layout.prompts)}")
    # Euclidean and Manhattan similarities rank like none of ours; callers that need them compute them
    layout.similarity = _SIMILARITIES.get(str(config.get("similarity_fn_name") or "cosine"), "cosine")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path}: missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not JSON ({error})") from None
