"""What makes a start quick: a checkpoint opened without importing transformers (1.4 s instead of 5 s).

The first full load compares the lean forward pass with transformers' and reads the tokenizer through it. A memo of
that in the user's cache folder, bound to the files (size and time of change), to the releases and to sentemb's own
code, lets later starts read the weights as bare layers (``Skeleton``), enough for the lean forward pass of BERT's
family and for nothing else. Whatever needs more (training, saving, another precision) completes the load in full, and
anything unexpected in the memo means a full load.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from sentemb.encoder.backbone import read_config, read_weights, weight_files
from sentemb.encoder.runners.families import Unsupported
from sentemb.files import cache_dir, write_json
from sentemb.types import Vocabulary

_READ = (".json", ".safetensors", ".txt", ".model")


@dataclass(frozen=True, kw_only=True)
class StartMemo:
    """What one checkpoint's full load found."""

    tokenizer: str  # JSON of the `tokenizers` backend
    size: int
    pad: int
    mask: int | None
    special: list[int]
    max_tokens: int  # without override
    digest: str  # of ``digest_of``
    checked: list[str]  # devices and dtypes in which the lean forward pass agreed with the plain one

    @property
    def vocabulary(self) -> Vocabulary:
        """What parts must know of the tokenizer."""
        return Vocabulary(size=self.size, pad=self.pad, mask=self.mask, special=frozenset(self.special))


def memo_path(folder: Path) -> Path:
    """Where the memo of the checkpoint in ``folder`` lies, or would lie."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in _READ and path.is_file()]
    code = sorted(Path(__file__).parent.rglob("*.py"))
    facts = [str(folder.resolve()), _states([*files, *code]), torch.backends.cpu.get_cpu_capability()]
    for package in ("sentemb", "torch", "transformers", "tokenizers"):
        try:
            facts.append(version(package))
        except PackageNotFoundError:
            facts.append("source")
    key = sha256(json.dumps(facts).encode()).hexdigest()[:32]
    return cache_dir() / "encoders" / f"{key}.json"


def read_memo(path: Path) -> StartMemo | None:
    """The memo, or None where there is none that can be used."""
    try:
        return StartMemo(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_memo(path: Path, memo: StartMemo) -> None:
    """Keep the memo; a cache folder that cannot be written is no fault."""
    with suppress(OSError):
        write_json(path, asdict(memo))


def _states(paths: Iterable[Path]) -> str:
    return json.dumps([(path.name, (state := path.stat()).st_size, state.st_mtime_ns) for path in paths])


# ---------------------------------------------------------------------------------------------- weights
# model type -> (name before the backbone's weights in checkpoints with task heads, whether positions count from
# behind the padding id)
LEAN_FAMILIES: dict[str, tuple[str, bool]] = {
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
    stored = read_config(folder)
    kind = stored.get("model_type")
    if kind not in LEAN_FAMILIES:
        raise Unsupported(f"architecture {kind}")
    prefix, counts_from_padding = LEAN_FAMILIES[kind]
    root = Skeleton()
    root.config = SimpleNamespace(**(_DEFAULTS | stored))
    if kind == "distilbert":
        root.config.hidden_size, root.config.num_hidden_layers = stored["dim"], stored["n_layers"]
        root.config.layer_norm_eps = 1e-12
    layers: dict[str, dict[str, Tensor]] = {}
    for path in weight_files(folder):
        for name, tensor in read_weights(path).items():
            owner, _, kind_of_weight = name.removeprefix(prefix).rpartition(".")
            if f"{owner}.".startswith(_BACKBONE) and kind_of_weight != "position_ids":
                if kind_of_weight not in ("weight", "bias"):
                    raise Unsupported(f"a weight called {name}")
                layers.setdefault(owner, {})[kind_of_weight] = tensor.float()
    # a ModuleList wants its children in order, and "10" sorts before "2" as text
    for owner in sorted(layers, key=lambda owner: [(len(name), name) for name in owner.split(".")]):
        _attach(root, owner.split("."), _layer(owner, layers[owner], root.config, counts_from_padding))
    return root


def _layer(owner: str, tensors: dict[str, Tensor], config: SimpleNamespace, counts_from_padding: bool) -> nn.Module:
    weight, bias = tensors["weight"], tensors.get("bias")
    name = owner.rsplit(".", 1)[-1]
    if name in _NORMS:
        layer = _bare(nn.LayerNorm, normalized_shape=tuple(weight.shape), eps=config.layer_norm_eps,
                     elementwise_affine=True)
    elif name.endswith("_embeddings"):
        padding = config.pad_token_id if name == "position_embeddings" and counts_from_padding else None
        layer = _bare(nn.Embedding, num_embeddings=weight.shape[0], embedding_dim=weight.shape[1], padding_idx=padding,
                     max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False)
    else:
        layer = _bare(nn.Linear, in_features=weight.shape[1], out_features=weight.shape[0])
    layer.register_parameter("weight", nn.Parameter(weight, requires_grad=False))
    if not isinstance(layer, nn.Embedding):
        layer.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=False))
    return layer


def _bare(kind: type[nn.Module], **facts: object) -> nn.Module:
    """A layer without weights. Its constructor would draw random ones, and on the meta device import half of torch."""
    layer = kind.__new__(kind)
    nn.Module.__init__(layer)
    for name, value in facts.items():
        setattr(layer, name, value)
    return layer


def _attach(root: nn.Module, names: list[str], layer: nn.Module) -> None:
    parent = root
    for name, following in pairwise(names):
        child = parent._modules.get(name)
        if child is None:
            child = nn.ModuleList() if following.isdigit() else nn.Module()
            parent.add_module(name, child)
        parent = child
    parent.add_module(names[-1], layer)
