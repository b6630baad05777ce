"""Checkpoints beside the encoder: masked-language models and their heads, and cross-encoders."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sentemb.encoder.backbone import load_pretrained, read_json, refused
from sentemb.encoder.source import locate
from sentemb.errors import ModelError, first_line, needs_extra

# where the dense layer and the norm of a masked-LM head lie: BERT; RoBERTa, MPNet, XLM-R; DistilBERT
_HEAD_LAYERS = (
    ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"),
    ("lm_head.dense", "lm_head.layer_norm"),
    ("vocab_transform", "vocab_layer_norm"),
)


def load_masked_lm(folder: Path, *, trust_remote_code: bool = False) -> tuple[Any, set[str]]:
    """The checkpoint with its masked-LM head, in float32, and the names of the weights that it did not have."""
    from transformers import AutoModelForMaskedLM

    return load_pretrained(AutoModelForMaskedLM, folder, trust_remote_code=trust_remote_code)


def lacks_head(missing: Collection[str]) -> bool:
    """Whether a checkpoint that lacks these weights has no masked-LM head."""
    return any(name.startswith(layer) for name in missing for pair in _HEAD_LAYERS for layer in pair)


def check_same_tokenizer(folder: Path, other: Path, part: str, *, trust_remote_code: bool = False) -> None:
    """Raise ``ModelError`` unless both checkpoints number the same tokens the same way."""
    from transformers import AutoTokenizer

    with refused(other):
        mine, theirs = (
            AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code).get_vocab()
            for path in (folder, other)
        )
    if mine != theirs:
        differing = sum(theirs.get(token) != number for token, number in mine.items())
        raise ModelError(
            f"{part}: the tokenizers of {folder} ({len(mine)} tokens) and {other} ({len(theirs)}) differ in "
            f"{differing} tokens; both read the same token ids, so they must share one vocabulary"
        )


def load_masked_lm_head(folder: Path, *, seed: int, trust_remote_code: bool = False) -> tuple[nn.Sequential, bool]:
    """The head of the checkpoint in ``folder`` (dense layer, activation, norm, decoder), and whether it was trained.

    Its decoder is a copy of the input embeddings where the checkpoint ties them; here the two then learn apart. A
    checkpoint without a head gets a fresh one, drawn from the seed as BERT's is (normal, sd 0.02), whose decoder
    starts from the input embeddings.
    """
    from transformers.activations import ACT2FN

    model, missing = load_masked_lm(folder, trust_remote_code=trust_remote_code)
    dense, norm = _layers(model, folder)
    tied = model.get_output_embeddings()
    decoder = nn.Linear(tied.in_features, tied.out_features)
    trained = not lacks_head(missing)
    with torch.no_grad():
        decoder.weight.copy_(tied.weight)
        decoder.bias.zero_()
        if trained and tied.bias is not None:
            decoder.bias.copy_(tied.bias)
        if not trained:
            dense.weight.normal_(0.0, 0.02, generator=torch.Generator().manual_seed(seed))
            dense.bias.zero_()
            norm.reset_parameters()
    # RoBERTa's and MPNet's heads have GELU whatever the layers have
    config = model.config
    name = "gelu" if hasattr(model, "lm_head") else getattr(config, "hidden_act", None) or config.activation
    return nn.Sequential(dense, ACT2FN[name], norm, decoder).requires_grad_(True).train(), trained


def load_decoder(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """An encoder's checkpoint as a decoder: causal, with fresh cross-attention to states of its own width.

    Its output weights start from the input embeddings where the checkpoint ties them; here the two learn apart.

    Raises: ModelError where transformers has no decoder of this architecture.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    with refused(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    config.is_decoder = config.add_cross_attention = True
    config.tie_word_embeddings = False
    model, missing = load_pretrained(
        AutoModelForCausalLM, folder, trust_remote_code=trust_remote_code, config=config
    )
    if not any("crossattention" in name for name in missing):
        raise ModelError(f"{folder}: {type(model).__name__} has no cross-attention for a decoder; those of BERT, "
                         "RoBERTa and XLM-RoBERTa have")
    if any("decoder.weight" in name for name in missing):
        with torch.no_grad():
            model.get_output_embeddings().weight.copy_(model.get_input_embeddings().weight)
    return model.requires_grad_(True).train()


def head_of_decoder(decoder: Any) -> nn.Module:
    """What makes logits of a decoder's last states, so that it can be given some of them alone."""
    (head,) = (child for name, child in decoder.named_children() if name != decoder.base_model_prefix)
    assert isinstance(head, nn.Module)
    return head


def load_causal_head(folder: Path, *, trust_remote_code: bool = False) -> nn.Linear:
    """The map from last states to logits over the vocabulary of a causal language model's checkpoint.

    A copy of the input embeddings where the checkpoint ties them; here the two then learn apart.

    Raises: ModelError where the checkpoint is no causal language model, or lacks that map.
    """
    from transformers import AutoModelForCausalLM

    model, missing = load_pretrained(AutoModelForCausalLM, folder, trust_remote_code=trust_remote_code)
    output: Any = model.get_output_embeddings()
    with torch.no_grad():  # whether a token sees the one behind it
        first = model.eval()(torch.tensor([[5, 6], [5, 7]])).logits[:, 0]
    is_causal = torch.allclose(first[0], first[1], rtol=1e-3, atol=1e-4)
    if not is_causal or not isinstance(output, nn.Linear) or any("lm_head" in name for name in missing):
        raise ModelError(f"{folder}: {type(model).__name__} is no causal language model with its head (GPT-2, Qwen, …)")
    return output.requires_grad_(True).train()


def _layers(model: nn.Module, folder: Path) -> tuple[nn.Linear, nn.LayerNorm]:
    modules = dict(model.named_modules())
    for names in _HEAD_LAYERS:
        dense, norm = map(modules.get, names)
        if isinstance(dense, nn.Linear) and isinstance(norm, nn.LayerNorm):
            return dense, norm
    raise ModelError(
        f"{folder}: {type(model).__name__} has a masked-language-model head of an unknown shape; known are those of "
        "BERT, RoBERTa, XLM-RoBERTa, MPNet, DistilBERT and DeBERTa"
    )


def load_cross_encoder(name: str | Path) -> Callable[[list[tuple[str, str]]], NDArray[np.float32]]:
    """Scores of (query, text) pairs by a cross-encoder, given by path or id.

    A sequence classifier of one output (what ``sentemb rerank train`` and most of sentence-transformers' cross-encoders
    are) is opened here, any other kind by sentence-transformers.
    """
    from sentemb.encoder.cross_encoder import CrossEncoder, is_sequence_classifier

    folder = locate(name)
    is_theirs_alone = "cross_encoder" in str(read_json(path)) if (path := folder / "modules.json").is_file() else False
    if is_sequence_classifier(folder) or not is_theirs_alone:
        return CrossEncoder.load(name).score
    needs_extra("sentence_transformers", "rerank")
    from sentence_transformers import CrossEncoder as TheirCrossEncoder

    try:
        model: Any = TheirCrossEncoder(str(folder), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: no cross-encoder: {first_line(error)}") from None
    return partial(model.predict, batch_size=64, show_progress_bar=False)
