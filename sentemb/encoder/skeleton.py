"""A checkpoint's weights as bare layers, without importing transformers (which takes longer than loading them).

Enough for the lean forward pass of the BERT family, and for nothing else.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from sentemb.encoder.backbone import require_safetensors
from sentemb.encoder.fast.unsupported import Unsupported

# model type -> (name before the backbone's weights in checkpoints with task heads, whether positions count from
# behind the padding id)
KNOWN: dict[str, tuple[str, bool]] = {
    "bert": ("bert.", False), "electra": ("electra.", False), "distilbert": ("distilbert.", False),
    "roberta": ("roberta.", True), "xlm-roberta": ("roberta.", True), "camembert": ("roberta.", True),
}
_NORMS = ("LayerNorm", "sa_layer_norm", "output_layer_norm")
_BACKBONE = ("embeddings.", "encoder.", "transformer.", "embeddings_project.")
# what the configuration classes take where an old config.json is silent
_DEFAULTS: dict[str, Any] = {
    "hidden_act": "gelu", "activation": "gelu", "layer_norm_eps": 1e-12, "max_position_embeddings": 512,
    "pad_token_id": 1, "is_decoder": False, "add_cross_attention": False,
}


class Skeleton(nn.Module):
    """Layers under the names that the checkpoint gives them, and the configuration."""

    config: SimpleNamespace


def read_skeleton(folder: Path) -> Skeleton:
    """The backbone's layers in float32.

    Raises:
        Unsupported: another architecture, or weights under names of older releases.
    """
    from safetensors.torch import load_file

    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = stored.get("model_type")
    if kind not in KNOWN:
        raise Unsupported(f"architecture {kind}")
    prefix, counts_from_padding = KNOWN[kind]
    root = Skeleton()
    root.config = SimpleNamespace(**(_DEFAULTS | stored))
    if kind == "distilbert":
        root.config.hidden_size, root.config.num_hidden_layers = stored["dim"], stored["n_layers"]
        root.config.layer_norm_eps = 1e-12
    layers: dict[str, dict[str, Tensor]] = {}
    for path in require_safetensors(folder):
        for name, tensor in load_file(path).items():
            place, _, what = name.removeprefix(prefix).rpartition(".")
            if f"{place}.".startswith(_BACKBONE) and what != "position_ids":
                if what not in ("weight", "bias"):
                    raise Unsupported(f"a weight called {name}")
                layers.setdefault(place, {})[what] = tensor.float()
    # a ModuleList wants its children in order, and "10" sorts before "2" as text
    for place in sorted(layers, key=lambda place: [(len(name), name) for name in place.split(".")]):
        _attach(root, place.split("."), _layer(place, layers[place], root.config, counts_from_padding))
    return root


def _layer(place: str, found: dict[str, Tensor], config: SimpleNamespace, counts_from_padding: bool) -> nn.Module:
    weight, bias = found["weight"], found.get("bias")
    name = place.rsplit(".", 1)[-1]
    if name in _NORMS:
        made = _bare(nn.LayerNorm, normalized_shape=tuple(weight.shape), eps=config.layer_norm_eps,
                     elementwise_affine=True)
    elif name.endswith("_embeddings"):
        padding = config.pad_token_id if name == "position_embeddings" and counts_from_padding else None
        made = _bare(nn.Embedding, num_embeddings=weight.shape[0], embedding_dim=weight.shape[1], padding_idx=padding,
                     max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False)
    else:
        made = _bare(nn.Linear, in_features=weight.shape[1], out_features=weight.shape[0])
    made.register_parameter("weight", nn.Parameter(weight, requires_grad=False))
    if not isinstance(made, nn.Embedding):
        made.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=False))
    return made


def _bare(kind: type[nn.Module], **facts: object) -> nn.Module:
    """A layer without weights. Its constructor would draw random ones, and on the meta device import half of torch."""
    made = kind.__new__(kind)
    nn.Module.__init__(made)
    for name, value in facts.items():
        setattr(made, name, value)
    return made


def _attach(root: nn.Module, names: list[str], layer: nn.Module) -> None:
    at = root
    for name, following in pairwise(names):
        child = at._modules.get(name)
        if child is None:
            child = nn.ModuleList() if following.isdigit() else nn.Module()
            at.add_module(name, child)
        at = child
    at.add_module(names[-1], layer)
