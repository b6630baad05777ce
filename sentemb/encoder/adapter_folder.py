"""Adapters as the hub has them, in peft's layout: a folder with ``adapter_config.json``, which names the model that
they were trained on, and ``adapter_model.safetensors``."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from sentemb.encoder.adapters import merge_into
from sentemb.encoder.backbone import read_json, read_weights, refused
from sentemb.encoder.source import locate
from sentemb.errors import ModelError, needs_extra

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def base_of(folder: Path) -> Path | None:
    """The folder of the model that the adapter in ``folder`` was trained on; None where there is no adapter.

    Raises: ModelError where it is no LoRA alone, or its model is not to be had.
    """
    path = folder / _CONFIG
    if not path.is_file():
        return None
    config = read_json(path)
    if config.get("peft_type") != "LORA":
        raise ModelError(f'{path}: peft_type = "{config.get("peft_type")}"; sentemb opens "LORA"')
    if config.get("modules_to_save") or config.get("bias", "none") != "none":
        more = config.get("modules_to_save") or "biases"
        raise ModelError(f"{path}: it also replaces {more}; sentemb opens adapters of linear layers alone. Merge it "
                         "with peft (merge_and_unload) and save the whole model")
    base = config.get("base_model_name_or_path")
    if not base:
        raise ModelError(f"{path}: has no base_model_name_or_path; write there the model that it was trained on")
    try:
        return locate(base, revision=config.get("revision"))
    except ModelError as error:
        raise ModelError(f"{path}: its base_model_name_or_path: {error}") from None


def add_stored(backbone: nn.Module, folder: Path) -> None:
    """Add the adapter in ``folder`` to the backbone's weights, as ``merge_and_unload`` of peft does.

    Raises: ModelError where it does not fit.
    """
    needs_extra("peft", "peft")
    from peft import PeftConfig, inject_adapter_in_model, set_peft_model_state_dict

    with refused(folder):
        config = PeftConfig.from_pretrained(str(folder))
        weights = read_weights(folder / _WEIGHTS)
        # adapters of a model with a task head name the encoder inside it
        inner = f"base_model.model.{getattr(backbone, 'base_model_prefix', None) or 'model'}."
        weights = {name.replace(inner, "base_model.model.", 1): value for name, value in weights.items()}
        inject_adapter_in_model(config, backbone)
        left_out = set_peft_model_state_dict(backbone, weights).unexpected_keys
    lacking = {name.replace(".default.", ".") for name, _ in backbone.named_parameters() if "lora_" in name}
    lacking -= {name.removeprefix("base_model.model.") for name in weights}
    if left_out or lacking:
        raise ModelError(f"{folder / _WEIGHTS}: does not fit {type(backbone).__name__}: "
                         f"{'no place for ' + left_out[0] if left_out else 'lacks ' + min(lacking)}")
    merge_into(backbone)
