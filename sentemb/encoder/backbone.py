"""The Hugging Face model inside an encoder: loading it, and what sentemb must know of it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sentemb.errors import ModelError, first_line


def load_backbone(folder: Path, *, trust_remote_code: bool = False) -> nn.Module:
    """The encoder of the checkpoint in ``folder``, in float32, without task heads.

    An unused pooling layer (BERT's ``pooler``) is left out: its parameters would never get a gradient.

    Raises:
        ModelError: no safetensors, an unknown architecture, or weights that the checkpoint does not have.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding

    require_safetensors(folder)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        # of T5 and its like only the encoder half, which says so once it was saved alone
        is_half = any(name.endswith("EncoderModel") for name in config.architectures or [])
        family = AutoModelForTextEncoding if config.is_encoder_decoder or is_half else AutoModel
        kind = family._model_mapping.get(type(config), None)  # there is no public way to the class
        extra = {}
        if inspect.isclass(kind) and "add_pooling_layer" in inspect.signature(kind.__init__).parameters:
            extra["add_pooling_layer"] = False
        with _quiet_transformers():
            model, report = family.from_pretrained(
                folder, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True,
                trust_remote_code=trust_remote_code, **extra,
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{folder}: {first_line(error)}") from error
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise ModelError(f"{folder}: the checkpoint lacks {len(missing)} of the backbone's weights, e.g. "
                         f"{', '.join(missing[:3])}; it is damaged or of another architecture")
    result: nn.Module = model.eval()
    return result


def require_safetensors(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint.

    Raises:
        ModelError: there are none.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        return [folder / name for name in names]
    single = folder / "model.safetensors"
    if not single.is_file():
        found = ", ".join(sorted(path.name for path in folder.glob("*.bin"))) or "no weights"
        raise ModelError(f"{folder}: found {found}, needed model.safetensors; pickled weights are never read (they can "
                         "run any code). Convert them once with transformers' save_pretrained")
    return [single]


def layer_count(backbone: nn.Module) -> int:
    """Transformer layers."""
    config: Any = backbone.config
    return int(config.num_hidden_layers)


def hidden_width(backbone: nn.Module) -> int:
    """Width of the hidden states."""
    config: Any = backbone.config
    return int(config.hidden_size)


def position_limit(backbone: nn.Module) -> int | None:
    """Longest input that the position embeddings allow, or None where there is no table."""
    config: Any = backbone.config
    limit = getattr(config, "max_position_embeddings", None)
    if limit is None or limit <= 0:
        return None
    # RoBERTa and MPNet count positions from padding_idx + 1
    for module in backbone.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, nn.Embedding) and table.padding_idx is not None:
            return int(limit) - int(table.padding_idx) - 1
    return int(limit)


def is_causal(backbone: nn.Module) -> bool:
    """Whether tokens see only what stands before them (then the last token's vector is the default pooling)."""
    config: Any = backbone.config
    architectures = getattr(config, "architectures", None) or []
    return bool(getattr(config, "is_decoder", False)) or any(name.endswith("ForCausalLM") for name in architectures)


@contextmanager
def eager_attention(backbone: nn.Module) -> Iterator[None]:
    """Switch to the attention that returns its weights, and back.

    Raises:
        ModelError: the architecture has no such attention.
    """
    config: Any = backbone.config
    model: Any = backbone
    before = config._attn_implementation
    if before == "eager":
        yield
        return
    try:
        model.set_attn_implementation("eager")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{type(backbone).__name__} cannot return attention weights ({error}); leave out the parts "
                         "that need attentions, or use a BERT- or RoBERTa-like backbone") from error
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def stored_pooler(folder: Path) -> dict[str, Tensor]:
    """The checkpoint's unused pooling layer, so that a saved copy has it again."""
    from safetensors import safe_open

    kept: dict[str, Tensor] = {}
    for path in require_safetensors(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - a safetensors handle is no dict
                _, found, rest = name.rpartition("pooler.")
                if found and name.count(".") <= 3:
                    kept[f"pooler.{rest}"] = file.get_tensor(name).float()
    return kept


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No bars and no report of missing poolers: what matters is checked here."""
    from transformers.utils import logging

    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()
