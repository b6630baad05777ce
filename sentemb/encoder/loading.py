"""A checkpoint in memory: in full through transformers, or lean, with just what encoding needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sentemb.encoder import backbone as backbones
from sentemb.encoder.digest import digest_of
from sentemb.encoder.fast import Unsupported
from sentemb.encoder.heads import PARTS, Head
from sentemb.encoder.inference import is_trusted, trust, verdict_name
from sentemb.encoder.layout import Layout, read_layout
from sentemb.encoder.memo import Memo, memo_path, read_memo, write_memo
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.pooling import Pooling, PoolingSpec, pooling_spec
from sentemb.encoder.skeleton import KNOWN, read_skeleton
from sentemb.encoder.tokeniser import Tokeniser, checked_max, load_hub, load_tokeniser, tokeniser_from_json
from sentemb.encoder.weights import weights_state
from sentemb.errors import ModelError, did_you_mean

HeadChoice = Head | str | Mapping[str, Any] | Sequence["Head | str | Mapping[str, Any]"]


@dataclass(frozen=True)
class Request:
    """What is asked of a checkpoint; see ``Encoder.load``."""

    folder: Path
    pooling: str | None = None
    head: HeadChoice | None = None
    max_tokens: int | None = None
    trust_remote_code: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether the checkpoint is taken as it is, so that a memo of it holds."""
        return self.pooling is None and self.head is None and not self.trust_remote_code


@dataclass(frozen=True)
class Loaded:
    """A checkpoint in memory.

    Attributes:
        carried: weights that are not used, but saved again.
        complete: after a lean start, gives the full form; None where this is it.
        state: ``weights_state`` where the module was first put.
    """

    layout: Layout
    module: EncoderModule
    tokeniser: Tokeniser
    carried: dict[str, Tensor] = field(default_factory=dict)
    complete: Callable[[], Loaded] | None = None
    memo: Memo | None = None
    memo_path: Path | None = None
    state: int = 0

    def knows(self, dtype: torch.dtype, device: torch.device) -> bool:
        """Whether the lean forward pass was checked in ``dtype`` on such a device."""
        return self.memo is not None and verdict_name(dtype, device) in self.memo.checked


def load_full(asked: Request) -> Loaded:
    """Everything, through transformers: what training, saving and unknown architectures need.

    Raises:
        ModelError: parts that are missing or do not fit.
    """
    layout = read_layout(asked.folder)
    backbone = backbones.load_backbone(layout.backbone, trust_remote_code=asked.trust_remote_code)
    module = _assemble(layout, backbone, asked.pooling)
    for made in make_heads(asked.head):
        module.add_head(made)
    tokeniser = load_tokeniser(
        layout.backbone, max_tokens=asked.max_tokens, stored_max=layout.max_tokens,
        limit=backbones.position_limit(backbone), lower_case=layout.lower_case,
        trust_remote_code=asked.trust_remote_code,
    )
    path = memo_path(asked.folder) if asked.is_plain and asked.max_tokens is None else None
    return Loaded(layout, module.eval(), tokeniser, backbones.stored_pooler(layout.backbone), memo_path=path,
                  memo=None if path is None else read_memo(path))


def load_lean(asked: Request, dtype: torch.dtype, device: torch.device) -> Loaded | None:
    """Enough to encode in ``dtype``, without importing transformers; None where this machine has no memo of it.

    Raises:
        ModelError: as ``load_full``.
    """
    path = memo_path(asked.folder) if asked.is_plain else None
    memo = None if path is None else read_memo(path)
    if memo is None or verdict_name(dtype, device) not in memo.checked:
        return None
    layout = read_layout(asked.folder)
    try:
        module = _assemble(layout, read_skeleton(layout.backbone), None)
    except (Unsupported, KeyError, AttributeError):
        return None
    for known in memo.checked:
        trust(module, known)
    tokeniser = tokeniser_from_json(
        memo.tokenizer, memo.vocabulary,
        checked_max(asked.max_tokens or memo.max_tokens, backbones.position_limit(module.backbone)),
        lambda: load_hub(layout.backbone, lower_case=layout.lower_case),
    )
    return Loaded(layout, module.eval(), tokeniser, complete=lambda: load_full(asked), memo=memo, memo_path=path)


def remember(loaded: Loaded, dtype: torch.dtype) -> Loaded:
    """Write the memo once the lean forward pass was checked in ``dtype`` on the weights as they were loaded."""
    backend, path = loaded.tokeniser.backend_json, loaded.memo_path
    device = next(loaded.module.parameters()).device
    if path is None or backend is None or loaded.complete is not None or loaded.knows(dtype, device):
        return loaded
    config: Any = loaded.module.backbone.config
    if config.model_type not in KNOWN or not is_trusted(loaded.module, verdict_name(dtype, device)):
        return loaded
    if weights_state(loaded.module) != loaded.state:
        return replace(loaded, memo_path=None)
    vocabulary = loaded.tokeniser.vocabulary
    memo = Memo(
        backend, vocabulary.size, vocabulary.pad, vocabulary.mask, sorted(vocabulary.special),
        loaded.tokeniser.max_tokens, digest_of(loaded.module, loaded.tokeniser),
        sorted({verdict_name(dtype, device), *(loaded.memo.checked if loaded.memo else ())}),
    )
    write_memo(path, memo)
    return replace(loaded, memo=memo)


def _assemble(layout: Layout, backbone: nn.Module, pooling: str | None) -> EncoderModule:
    module = EncoderModule(backbone, _pooling(pooling, layout, backbone), [])
    for stored, weights in layout.heads:
        module.add_head(stored)
        _load_head(stored, weights, layout.backbone)
    return module


def make_heads(choice: HeadChoice | None) -> list[Head]:
    """Heads from a name, a table with ``use``, a ``Head``, or a list of those.

    Raises:
        ModelError: unknown head or option.
    """
    if choice is None:
        return []
    if isinstance(choice, Head):
        return [choice]
    if isinstance(choice, str):
        choice = {"use": choice}
    if not isinstance(choice, Mapping):
        return [head for one in choice for head in make_heads(one)]
    options = dict(choice)
    name = str(options.pop("use", ""))
    if name not in PARTS:
        raise ModelError(f'head.use = "{name}"{did_you_mean(name, PARTS)}')
    try:
        return [PARTS[name](**options)]
    except TypeError as error:
        raise ModelError(f'head "{name}": {error}') from None


def _pooling(name: str | None, layout: Layout, backbone: torch.nn.Module) -> Pooling:
    layers = backbones.layer_count(backbone)
    if name is not None:
        spec = pooling_spec(name, layers)
    else:
        spec = layout.pooling or PoolingSpec(("last" if backbones.is_causal(backbone) else "mean",))
    if spec.layer_weights is not None and len(spec.layer_weights) != layers + 1:
        raise ModelError(f"{layout.backbone}: weights for {len(spec.layer_weights)} hidden layers, the backbone has "
                         f"{layers + 1} with its embeddings")
    return Pooling(spec, backbones.hidden_width(backbone))


def _load_head(head: Head, weights: dict[str, Tensor], folder: Path) -> None:
    renamed = {f"norm.{name.removeprefix('norm.')}" if "linear" not in name and "residual" not in name else name: value
               for name, value in weights.items()}
    try:
        head.load_state_dict({name: value.float() for name, value in renamed.items()})
    except RuntimeError as error:
        raise ModelError(f"{folder}: a head's weights do not fit: {str(error).splitlines()[-1].strip()}") from error
