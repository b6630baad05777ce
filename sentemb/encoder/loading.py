"""A checkpoint in memory: in full through transformers, or lean, with just what encoding needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sentemb.encoder import backbone as backbones
from sentemb.encoder.digest import digest_of
from sentemb.encoder.heads import Head
from sentemb.encoder.layout import Layout, read_layout
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.poolings import PoolingChoice, make_pooling
from sentemb.encoder.quick_start import LEAN_FAMILIES, StartMemo, memo_path, read_memo, read_skeleton, write_memo
from sentemb.encoder.runners.choose import Runners, comparison_name, weights_state
from sentemb.encoder.runners.families import Unsupported
from sentemb.encoder.tokeniser import Tokeniser, checked_max, load_hub, load_tokeniser
from sentemb.errors import ModelError
from sentemb.parts import room

HeadChoice = Head | str | Mapping[str, Any] | Sequence["Head | str | Mapping[str, Any]"]


@dataclass(frozen=True, kw_only=True)
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
    runners: Runners = field(default_factory=Runners)
    carried: Mapping[str, Tensor] = field(default_factory=dict)
    complete: Callable[[], Loaded] | None = None
    memo: StartMemo | None = None
    memo_path: Path | None = None
    state: int = 0


def load(
    folder: Path, *, pooling: PoolingChoice | None, head: HeadChoice | None, max_tokens: int | None,
    trust_remote_code: bool, dtype: torch.dtype, device: torch.device,
) -> Loaded:
    """The checkpoint on a device: lean where this machine has a memo of it, taken as it is, else in full.

    Raises:
        ModelError: parts that are missing or do not fit.
    """
    path = memo_path(folder) if pooling is None and head is None and not trust_remote_code else None
    full = partial(_load_full, folder, pooling=pooling, head=head, max_tokens=max_tokens, memo=path,
                   trust_remote_code=trust_remote_code)
    lean = path and _load_lean(folder, path, full, max_tokens=max_tokens, name=comparison_name(dtype, device))
    loaded = lean or full()
    loaded.module.to(device)
    return loaded


def _load_full(
    folder: Path, *, pooling: PoolingChoice | None, head: HeadChoice | None, max_tokens: int | None,
    trust_remote_code: bool, memo: Path | None,
) -> Loaded:
    """Everything, through transformers: what training, saving and unknown architectures need."""
    layout = read_layout(folder, trust_remote_code=trust_remote_code)
    backbone = backbones.load_backbone(layout.backbone, trust_remote_code=trust_remote_code)
    module = _assemble(layout, backbone, pooling)
    for one in make_heads(head):
        module.add_head(one)
    tokeniser = load_tokeniser(
        layout.backbone, max_tokens=max_tokens, stored_max=layout.max_tokens, lower_case=layout.lower_case,
        limit=backbones.position_limit(backbone), trust_remote_code=trust_remote_code,
    )
    path = memo if max_tokens is None else None
    return Loaded(
        layout=layout, module=module.eval(), tokeniser=tokeniser, carried=backbones.stored_pooler(layout.backbone),
        memo_path=path, memo=None if path is None else read_memo(path),
    )


def _load_lean(
    folder: Path, path: Path, full: Callable[[], Loaded], *, max_tokens: int | None, name: str
) -> Loaded | None:
    """Enough to encode, without importing transformers; None where the memo does not know the device and dtype."""
    memo = read_memo(path)
    if memo is None or name not in memo.checked:
        return None
    layout = read_layout(folder)
    try:
        module = _assemble(layout, read_skeleton(layout.backbone), None)
    except (Unsupported, KeyError, AttributeError):
        return None
    from tokenizers import Tokenizer

    tokeniser = Tokeniser(
        Tokenizer.from_str(memo.tokenizer), memo.vocabulary,
        checked_max(max_tokens or memo.max_tokens, backbones.position_limit(module.backbone)),
        lambda: load_hub(layout.backbone, lower_case=layout.lower_case),
    )
    return Loaded(
        layout=layout, module=module.eval(), tokeniser=tokeniser, runners=Runners(dict.fromkeys(memo.checked, True)),
        complete=full, memo=memo, memo_path=path,
    )


def remember(loaded: Loaded, dtype: torch.dtype) -> Loaded:
    """Write the memo once the lean forward pass was checked in ``dtype`` on the weights as they were loaded."""
    backend, path = loaded.tokeniser.backend_json, loaded.memo_path
    name = comparison_name(dtype, next(loaded.module.parameters()).device)
    is_known = loaded.memo is not None and name in loaded.memo.checked
    if path is None or backend is None or loaded.complete is not None or is_known:
        return loaded
    config: Any = loaded.module.backbone.config
    if config.model_type not in LEAN_FAMILIES or not loaded.runners.agrees.get(name):
        return loaded
    if weights_state(loaded.module) != loaded.state:
        return replace(loaded, memo_path=None)
    vocabulary = loaded.tokeniser.vocabulary
    memo = StartMemo(
        tokenizer=backend, size=vocabulary.size, pad=vocabulary.pad, mask=vocabulary.mask,
        special=sorted(vocabulary.special), max_tokens=loaded.tokeniser.max_tokens,
        digest=digest_of(loaded.module, loaded.tokeniser),
        checked=sorted({name, *(loaded.memo.checked if loaded.memo else ())}),
    )
    write_memo(path, memo)
    return replace(loaded, memo=memo)


def _assemble(layout: Layout, backbone: nn.Module, choice: PoolingChoice | None) -> EncoderModule:
    stored = None if choice is not None else layout.pooling
    if choice is None:
        choice = stored[0] if stored else "last" if backbones.is_causal(backbone) else "mean"
    try:
        module = EncoderModule(backbone, make_pooling(choice), pools_prompt=layout.pools_prompt)
    except ModelError as error:
        raise ModelError(f"{layout.backbone}: {error}") from None
    if stored:
        _load_weights(module.pooling, stored[1], layout.backbone)
    for head, weights in layout.heads:
        module.add_head(head)
        _load_weights(head, weights, layout.backbone)
    return module


def make_heads(choice: HeadChoice | None) -> list[Head]:
    """Heads, not bound yet, from a name, a table with ``use``, a head of the same settings, or a list of those.

    Raises:
        PartError: an unknown head or setting.
    """
    if choice is None:
        return []
    if isinstance(choice, Head):
        return [choice.fresh()]
    if isinstance(choice, str | Mapping):
        part = room("heads").make({"use": choice} if isinstance(choice, str) else choice)
        assert isinstance(part, Head)  # room.find saw to it
        return [part]
    return [head for one in choice for head in make_heads(one)]


def _load_weights(part: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    try:
        part.load_state_dict({name: value.float() for name, value in weights.items()})
    except RuntimeError as error:
        raise ModelError(f"{folder}: the weights of {type(part).__name__} do not fit: "
                         f"{str(error).splitlines()[-1].strip()}") from error
