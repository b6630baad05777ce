"""What a lean start needs: the memo that a checkpoint's full load left, and the weights without a model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from sentemb.encoder import backbone as backbones
from sentemb.encoder.runners.families import Skeleton, Unsupported
from sentemb.files import cache_dir

# model type -> the name before the backbone's weights in checkpoints with task heads
LEAN_FAMILIES = {
    "bert": "bert.", "electra": "electra.", "distilbert": "distilbert.", "roberta": "roberta.",
    "xlm-roberta": "roberta.", "camembert": "roberta.",
}
_READ = (".json", ".safetensors", ".txt", ".model")
_BACKBONE = ("embeddings.", "encoder.", "transformer.", "embeddings_project.")
# what the configuration classes take where an old config.json is silent
_DEFAULTS: dict[str, Any] = {
    "hidden_act": "gelu", "activation": "gelu", "layer_norm_eps": 1e-12, "max_position_embeddings": 512,
    "pad_token_id": 1,
}


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


def memo_path(folder: Path) -> Path:
    """Where the memo of the checkpoint in ``folder`` lies, or would lie."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in _READ and path.is_file()]
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns)
              for path in (*files, *sorted(Path(__file__).parent.rglob("*.py")))]
    releases = [version(package) for package in ("torch", "transformers", "tokenizers")]
    facts = [str(folder.resolve()), states, torch.backends.cpu.get_cpu_capability(), releases]
    return cache_dir() / "encoders" / f"{sha256(json.dumps(facts).encode()).hexdigest()[:32]}.json"


def read_memo(path: Path) -> StartMemo | None:
    """The memo, or None where there is none that can be used."""
    try:
        return StartMemo(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def read_skeleton(folder: Path) -> Skeleton:
    """The backbone's weights in float32; raises ``Unsupported`` where they have names of older releases."""
    stored = backbones.read_config(folder)
    kind, config = stored["model_type"], SimpleNamespace(**(_DEFAULTS | stored))
    if kind == "distilbert":
        config.hidden_size, config.num_hidden_layers = stored["dim"], stored["n_layers"]
        config.num_attention_heads = stored["n_heads"]
    if LEAN_FAMILIES[kind] == "roberta.":  # positions count from behind the padding's id
        config.max_position_embeddings -= config.pad_token_id + 1
    weights = {}
    for path in backbones.weight_files(folder):
        for stored_name, tensor in backbones.read_weights(path).items():
            name = stored_name.removeprefix(LEAN_FAMILIES[kind])
            if name.startswith(_BACKBONE) and not name.endswith("position_ids"):
                if not name.endswith((".weight", ".bias")):
                    raise Unsupported(f"a weight called {stored_name}")
                weights[name] = tensor.float()
    return Skeleton(config, weights)
