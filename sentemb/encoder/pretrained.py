"""Checkpoints that companions and terms load beside the encoder: masked-language models, bare backbones, tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from sentemb.errors import ModelError, first_line

# where the dense layer and the norm of a masked-LM head lie: BERT; RoBERTa, MPNet, XLM-R; DistilBERT
HEAD_LAYERS = (
    ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"),
    ("lm_head.dense", "lm_head.layer_norm"),
    ("vocab_transform", "vocab_layer_norm"),
)


def load_masked_lm(folder: Path, *, trust_remote_code: bool = False) -> tuple[nn.Module, frozenset[str]]:
    """The checkpoint with its masked-LM head, in float32, and the names of the weights that it did not have.

    Raises: ModelError where it cannot be opened or its architecture has no masked-LM head.
    """
    from transformers import AutoModelForMaskedLM

    return _load(AutoModelForMaskedLM, folder, trust_remote_code)


def load_bare(folder: Path, *, trust_remote_code: bool = False) -> nn.Module:
    """The checkpoint's encoder in float32, without a pooling layer (its weights would get no gradient).

    Raises: ModelError where it cannot be opened or lacks weights.
    """
    from transformers import AutoModel

    model: Any
    model, missing = _load(AutoModel, folder, trust_remote_code)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    missing = frozenset(name for name in missing if not name.startswith("pooler."))
    if missing:
        raise ModelError(f"{folder}: the checkpoint lacks weights of the encoder, e.g. {min(missing)}")
    bare: nn.Module = model
    return bare


def check_same_tokenizer(folder: Path, other: Path, part: str, *, trust_remote_code: bool = False) -> None:
    """Raise ``ModelError`` unless both checkpoints number the same tokens the same way."""
    from transformers import AutoTokenizer

    try:
        mine, theirs = (
            AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code).get_vocab()
            for path in (folder, other)
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"{part}: {first_line(error)}") from error
    if mine != theirs:
        differing = sum(theirs.get(token) != number for token, number in mine.items())
        raise ModelError(
            f"{part}: the tokenizers of {folder} ({len(mine)} tokens) and {other} ({len(theirs)}) differ in "
            f"{differing} tokens; both read the same token ids, so they must share one vocabulary"
        )


def _load(factory: Any, folder: Path, trust_remote_code: bool) -> tuple[nn.Module, frozenset[str]]:
    from transformers.utils import logging

    # neither bars nor a report of missing weights on stderr: callers decide what is missing
    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, info = factory.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: {first_line(error)}") from error
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()
    return model, frozenset(info["missing_keys"])
