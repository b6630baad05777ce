"""A checkpoint in memory: in full through transformers, or lean, with just what encoding needs.

A lean start does not import transformers (1.4 s instead of 5 s). After the first full load, a memo in the user's cache
folder holds the tokenizer and says that the lean forward pass agrees with transformers'; it is bound to the files (size
and time of change), to the releases and to sentemb's own code. Whatever needs more (training, saving, another
precision) completes the load in full, and anything unexpected in the memo means a full load.

An architecture without a lean form that encodes in bfloat16 is kept in bfloat16, with no float32 copy at any moment;
what needs float32 weights then reads the checkpoint again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from sentemb.encoder import backbone as backbones
from sentemb.encoder.adapter_folder import CONFIG, add_stored
from sentemb.encoder.adapters import state_without_prefix
from sentemb.encoder.digest import digest_of
from sentemb.encoder.heads import HeadChoice, make_heads
from sentemb.encoder.layout import Layout, read_layout
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.poolings import PoolingChoice, make_pooling
from sentemb.encoder.runners.choose import Runners, comparison_name, weights_state
from sentemb.encoder.runners.families import Skeleton, Unsupported, has_lean_form
from sentemb.encoder.static import load_static
from sentemb.encoder.tokeniser import Tokeniser, checked_max, load_hub, load_tokeniser
from sentemb.errors import ModelError
from sentemb.files import cache_dir, write_json
from sentemb.machine.precision import WeightFormat
from sentemb.types import Vocabulary


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A checkpoint on a device."""

    layout: Layout
    module: EncoderModule
    tokeniser: Tokeniser
    state: int  # ``weights_state`` when it was loaded
    runners: Runners = field(default_factory=Runners)
    carried: Mapping[str, Tensor] = field(default_factory=dict)  # weights that are not used, but saved again
    weight_dtype: torch.dtype = torch.float32  # of the backbone's weights in memory
    is_rounded: bool = False  # whether the checkpoint holds finer weights than those in memory
    complete: Callable[[torch.device], Loaded] | None = None  # where float32 weights are not in memory: gives them
    memo: StartMemo | None = None
    memo_path: Path | None = None  # where a memo may be written

    def encodes(self, dtype: torch.dtype, device: torch.device) -> bool:
        """Whether it encodes in ``dtype`` as it is, without being completed."""
        is_kept = dtype == self.weight_dtype != torch.float32
        return self.complete is None or is_kept or comparison_name(dtype, device) in self.runners.agrees

    def saves(self, dtype: torch.dtype | None) -> bool:
        """Whether its weights are what a checkpoint in ``dtype`` (None: in their own format) has to hold."""
        is_kept = self.weight_dtype != torch.float32 and (not self.is_rounded or dtype == self.weight_dtype)
        return self.complete is None or is_kept


def load(
    folder: Path, *, pooling: PoolingChoice | None, head: HeadChoice | None, max_tokens: int | None,
    layers: Sequence[int] | None, trust_remote_code: bool, dtype: torch.dtype, device: torch.device,
    weights: WeightFormat | None,
) -> Loaded:
    """The checkpoint on a device: lean where this machine has a memo of it, taken as it is, else in full.

    ``dtype`` is what it will encode in, ``weights`` the format that its backbone is to stay in, whatever it encodes in.
    """
    is_changed = not (pooling is None and head is None and layers is None) or weights == "bf16"
    # a memo of an adapter would not notice another base
    is_changed = is_changed or trust_remote_code or any(folder.rglob(CONFIG))
    path = None if is_changed else memo_path(folder)
    full = partial(_load_full, folder, pooling=pooling, head=head, max_tokens=max_tokens, path=path, layers=layers,
                   trust_remote_code=trust_remote_code)
    memo = None if path is None else read_memo(path)
    is_known = memo is not None and comparison_name(dtype, device) in memo.checked
    lean = _load_lean(folder, memo, full, max_tokens) if memo and is_known else None
    if lean is not None:
        return lean
    weight_dtype = kept_format(read_layout(folder, trust_remote_code=trust_remote_code), dtype, weights)
    if weight_dtype == torch.float32:
        return full(device)
    loaded = full(device, weight_dtype=weight_dtype)
    return loaded if weights == "bf16" else replace(loaded, complete=full)


def kept_format(layout: Layout, dtype: torch.dtype, weights: WeightFormat | None) -> torch.dtype:
    """The format in which a backbone's weights stay in memory: bfloat16 where that was asked for, or where the plain
    forward pass encodes in it, which can use them as they are; lean forms make their own copy of float32 weights."""
    if weights is not None or layout.is_static:
        return torch.bfloat16 if weights == "bf16" and not layout.is_static else torch.float32
    kind = backbones.read_config(layout.backbone).get("model_type")
    return dtype if dtype == torch.bfloat16 and not has_lean_form(str(kind)) else torch.float32


def _load_full(
    folder: Path, device: torch.device, *, pooling: PoolingChoice | None, head: HeadChoice | None,
    max_tokens: int | None, layers: Sequence[int] | None, trust_remote_code: bool, path: Path | None,
    weight_dtype: torch.dtype = torch.float32,
) -> Loaded:
    """Everything, through transformers: what training, saving and unknown architectures need."""
    layout = read_layout(folder, trust_remote_code=trust_remote_code)
    if layout.is_static:
        return _load_static(layout, device, pooling=pooling, head=head, max_tokens=max_tokens, layers=layers)
    backbone, pooler = backbones.load_backbone(layout.backbone, trust_remote_code=trust_remote_code, dtype=weight_dtype)
    if layout.adapter is not None:
        add_stored(backbone, layout.adapter)
    if layers is not None:
        backbones.keep_layers(backbone, layers)
    tokeniser = load_tokeniser(
        layout.backbone, max_tokens=max_tokens, stored_max=layout.max_tokens, lower_case=layout.lower_case,
        limit=backbones.position_limit(backbone), trust_remote_code=trust_remote_code,
    )
    module = _assemble(layout, backbone, pooling, tokeniser.vocabulary.mask)
    for one in make_heads(head):
        module.add_head(one)
    module.eval().to(device)
    config: Any = backbone.config
    if max_tokens is not None or tokeniser.backend_json is None or config.model_type not in LEAN_FAMILIES:
        path = None
    return Loaded(
        layout=layout, module=module, tokeniser=tokeniser, state=weights_state(module), memo_path=path,
        memo=None if path is None else read_memo(path), carried=pooler, weight_dtype=weight_dtype,
        is_rounded=weight_dtype != torch.float32 and (
            layout.adapter is not None or not backbones.is_stored_as(layout.backbone, weight_dtype)
        ),
    )


def _load_static(
    layout: Layout, device: torch.device, *, pooling: PoolingChoice | None, head: HeadChoice | None,
    max_tokens: int | None, layers: Sequence[int] | None,
) -> Loaded:
    """A static model, which needs no transformers."""
    if layers is not None or (pooling is not None and make_pooling(pooling) != make_pooling("mean")):
        raise ModelError(f"{layout.backbone}: a static model is the mean of its tokens' vectors; it has no layers and "
                         "no other pooling")
    table, tokeniser = load_static(layout.backbone, max_tokens)
    module = _assemble(layout, table, None, None)
    for one in make_heads(head):
        module.add_head(one)
    module.eval().to(device)
    return Loaded(layout=layout, module=module, tokeniser=tokeniser, state=weights_state(module))


def _assemble(
    layout: Layout, backbone: nn.Module, choice: PoolingChoice | None, mask_token: int | None
) -> EncoderModule:
    stored = layout.pooling if choice is None else None
    if choice is None:
        choice = stored[0] if stored else "last" if backbones.is_causal(backbone) else "mean"
    if layout.prefix:
        prefix, weights = layout.prefix
        prefix.add_to(backbone)
        backbone.requires_grad_(True)
        _load_weights(backbone, {**state_without_prefix(backbone), **weights}, layout.backbone)
    module = EncoderModule(
        backbone, make_pooling(choice), pools_prompt=layout.pools_prompt, mask_token=mask_token
    )
    if stored:
        _load_weights(module.pooling, stored[1], layout.backbone)
    else:
        module.pooling.start_from(layout.backbone)
    for head, weights in layout.heads:
        module.add_head(head)
        _load_weights(head, weights, layout.backbone)
    return module


def _load_weights(part: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    try:
        part.load_state_dict({name: value.float() for name, value in weights.items()})
    except RuntimeError as error:
        raise ModelError(f"{folder}: the weights of {type(part).__name__} do not fit: "
                         f"{str(error).splitlines()[-1].strip()}") from error


# -------------------------------------------------------------------------------------------- lean starts
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


def remember(loaded: Loaded, dtype: torch.dtype) -> Loaded:
    """Write the memo once the lean forward pass was checked in ``dtype`` on the weights as they were loaded."""
    name = comparison_name(dtype, next(loaded.module.parameters()).device)
    checked = loaded.memo.checked if loaded.memo else []
    path, is_new = loaded.memo_path, name not in checked and loaded.runners.agrees.get(name)
    if path is None or not is_new or weights_state(loaded.module) != loaded.state:
        return loaded
    vocabulary = loaded.tokeniser.vocabulary
    memo = StartMemo(
        tokenizer=str(loaded.tokeniser.backend_json), size=vocabulary.size, pad=vocabulary.pad, mask=vocabulary.mask,
        special=sorted(vocabulary.special), max_tokens=loaded.tokeniser.max_tokens,
        digest=digest_of(loaded.module, loaded.tokeniser), checked=sorted({name, *checked}),
    )
    with suppress(OSError):  # a cache folder that cannot be written is no fault
        write_json(path, asdict(memo))
    return replace(loaded, memo=memo)


def _load_lean(
    folder: Path, memo: StartMemo, full: Callable[[torch.device], Loaded], max_tokens: int | None
) -> Loaded | None:
    """Enough to encode on a CPU, without importing transformers."""
    from tokenizers import Tokenizer

    layout = read_layout(folder)
    try:
        module = _assemble(layout, read_skeleton(layout.backbone), None, memo.mask).eval()
    except (Unsupported, KeyError, AttributeError):
        return None
    tokeniser = Tokeniser(
        Tokenizer.from_str(memo.tokenizer),
        Vocabulary(size=memo.size, pad=memo.pad, mask=memo.mask, special=frozenset(memo.special)),
        checked_max(max_tokens or memo.max_tokens, backbones.position_limit(module.backbone)),
        lambda: load_hub(layout.backbone, lower_case=layout.lower_case),
    )
    return Loaded(
        layout=layout, module=module, tokeniser=tokeniser, state=weights_state(module), complete=full, memo=memo,
        runners=Runners(dict.fromkeys(memo.checked, True)),
    )


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
