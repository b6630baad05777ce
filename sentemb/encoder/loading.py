"""A checkpoint in memory: in full through transformers, or lean, with just what encoding needs.

A lean start does not import transformers (1.4 s instead of 5 s). After the first full load, a memo in the user's cache
folder holds the tokenizer and says that the lean forward pass agrees with transformers'; it is bound to the files (size
and time of change), to the releases and to sentemb's own code. Whatever needs more (training, saving, another
precision) completes the load in full, and anything unexpected in the memo means a full load.

An architecture without a lean form that encodes in bfloat16 is kept in bfloat16, with no float32 copy at any moment;
what needs float32 weights then reads the checkpoint again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sentemb.encoder import backbone as backbones
from sentemb.encoder.adapter_folder import add_stored
from sentemb.encoder.adapters import state_without_prefix
from sentemb.encoder.digest import digest_of
from sentemb.encoder.four_bits import loading_options, rounded_weights
from sentemb.encoder.heads import HeadChoice, make_heads
from sentemb.encoder.layout import Layout, read_layout
from sentemb.encoder.lean_start import LEAN_FAMILIES, StartMemo, memo_path, read_memo, read_skeleton
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.poolings import PoolingChoice, make_pooling
from sentemb.encoder.runners.choose import Runner, Runners, comparison_name, weights_state
from sentemb.encoder.runners.families import Unsupported, has_lean_form
from sentemb.encoder.static import load_static, refuse_other_pooling
from sentemb.encoder.tokeniser import Tokeniser, checked_max, load_hub, load_tokeniser
from sentemb.errors import ModelError
from sentemb.files import write_json
from sentemb.machine.precision import WeightFormat
from sentemb.types import Vocabulary

_log = logging.getLogger("sentemb")


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """What a caller of ``Encoder.load``, which explains it, wants to be otherwise than the checkpoint has it."""

    pooling: PoolingChoice | None = None
    head: HeadChoice | None = None
    max_tokens: int | None = None
    layers: Sequence[int] | None = None
    weights: WeightFormat | None = None  # that the backbone is to stay in, whatever it encodes in
    trust_remote_code: bool = False

    @property
    def are_plain(self) -> bool:
        """Whether the module is the checkpoint's, so that a memo may tell of it."""
        has_own_parts = self.pooling is not None or self.head is not None or self.layers is not None
        return not (has_own_parts or self.is_kept or self.trust_remote_code)

    @property
    def is_kept(self) -> bool:
        """Whether the backbone's weights stay in a smaller format for good."""
        return self.weights not in (None, "fp32")


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

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    def digest(self) -> str:
        """Of the checkpoint's own weights, so that the format they are kept in changes no digest; see ``digest_of``."""
        if self.memo is not None and self.complete is not None:
            return self.memo.digest  # lean: the weights cannot have changed
        whole = self.complete(self.device) if self.complete and self.is_rounded else self
        return digest_of(whole.module, self.tokeniser)

    def encodes(self, dtype: torch.dtype) -> bool:
        """Whether it encodes in ``dtype`` as it is, without being completed."""
        is_kept = dtype == self.weight_dtype != torch.float32
        return self.complete is None or is_kept or comparison_name(dtype, self.device) in self.runners.agrees

    def runner(self, dtype: torch.dtype, int8_tensors: Mapping[str, Tensor] | None) -> Runner:
        """What turns token ids into pooled vectors, see ``Runners.ready``."""
        if dtype != self.weight_dtype and self.weights == "nf4":
            raise ModelError(f'{self.layout.backbone}: weights = "nf4" encodes with precision = "bf16" alone')
        if self.is_rounded and dtype != self.weight_dtype:
            forms = (str(form).removeprefix("torch.") for form in (dtype, self.weight_dtype))
            _log.warning("%s: encodes in %s with weights that were rounded to %s when they were loaded",
                         self.layout.backbone, *forms)
        return self.runners.ready(self.module, dtype, self.tokeniser.vocabulary, int8_tensors)

    @property
    def weights(self) -> WeightFormat:
        """The format of the backbone's weights in memory."""
        if self.weight_dtype == torch.float32:
            return "fp32"
        return "nf4" if rounded_weights(self.module.backbone) else "bf16"

    def saves(self, dtype: torch.dtype | None) -> bool:
        """Whether its weights are what a checkpoint in ``dtype`` (None: in their own format) has to hold."""
        is_kept = self.weight_dtype != torch.float32 and (not self.is_rounded or dtype == self.weight_dtype)
        return self.complete is None or is_kept


def load(folder: Path, options: LoadOptions, *, dtype: torch.dtype, device: torch.device) -> Loaded:
    """The checkpoint on a device: lean where this machine has a memo of it, taken as it is, else in full.

    ``dtype`` is what it will encode in.
    """
    layout = read_layout(folder, trust_remote_code=options.trust_remote_code)
    # a memo of an adapter would not notice another base
    path = memo_path(folder) if options.are_plain and layout.adapter is None else None
    full = partial(_load_full, layout, options, path)
    memo = None if path is None else read_memo(path)
    if memo is not None and comparison_name(dtype, device) in memo.checked:
        lean = _load_lean(layout, memo, full, options.max_tokens)
        if lean is not None:
            return lean
    weight_dtype = kept_format(layout, dtype, options)
    if weight_dtype == torch.float32:
        return full(device)
    loaded = full(device, weight_dtype=weight_dtype)
    return loaded if options.is_kept else replace(loaded, complete=full)


def kept_format(layout: Layout, dtype: torch.dtype, options: LoadOptions) -> torch.dtype:
    """The format in which a backbone's weights stay in memory (``nf4``: those that are not in four bits): bfloat16
    where that was asked for, or where it is encoded in it by what uses the weights as they are; the other lean forms
    make their own copy of float32 weights."""
    if options.weights is not None or layout.is_static:
        return torch.bfloat16 if options.is_kept and not layout.is_static else torch.float32
    kind = backbones.read_config(layout.backbone).get("model_type")
    return dtype if dtype == torch.bfloat16 and not has_lean_form(str(kind)) else torch.float32


def _load_full(
    layout: Layout, options: LoadOptions, path: Path | None, device: torch.device, *,
    weight_dtype: torch.dtype = torch.float32,
) -> Loaded:
    """Everything, through transformers: what training, saving and unknown architectures need."""
    if layout.is_static:
        return _load_static(layout, options, device)
    is_nf4 = options.weights == "nf4"
    if is_nf4 and (layout.adapter is not None or layout.prefix):
        raise ModelError(f'{layout.adapter or layout.backbone}: weights = "nf4" rounds what an adapter changes, too; '
                         'load it with weights = "bf16", save it, and give that model')
    backbone, pooler = backbones.load_backbone(
        layout.backbone, trust_remote_code=options.trust_remote_code, dtype=weight_dtype,
        **(loading_options(device) if is_nf4 else {}),
    )
    if layout.adapter is not None:
        add_stored(backbone, layout.adapter)
    if options.layers is not None:
        backbones.keep_layers(backbone, options.layers)
    tokeniser = load_tokeniser(
        layout.backbone, max_tokens=options.max_tokens, stored_max=layout.max_tokens, lower_case=layout.lower_case,
        limit=backbones.position_limit(backbone), trust_remote_code=options.trust_remote_code,
    )
    module = _assemble(layout, backbone, tokeniser.vocabulary.mask, options).to(device)
    config: Any = backbone.config
    if options.max_tokens is not None or tokeniser.backend_json is None or config.model_type not in LEAN_FAMILIES:
        path = None
    return Loaded(
        layout=layout, module=module, tokeniser=tokeniser, state=weights_state(module), memo_path=path,
        memo=None if path is None else read_memo(path), carried=pooler, weight_dtype=weight_dtype,
        is_rounded=weight_dtype != torch.float32 and (
            is_nf4 or layout.adapter is not None or not backbones.is_stored_as(layout.backbone, weight_dtype)
        ),
    )


def _load_static(layout: Layout, options: LoadOptions, device: torch.device) -> Loaded:
    """A static model, which needs no transformers."""
    refuse_other_pooling(layout.backbone, options.pooling, options.layers)
    table, tokeniser = load_static(layout.backbone, options.max_tokens)
    module = _assemble(layout, table, None, options).to(device)
    return Loaded(layout=layout, module=module, tokeniser=tokeniser, state=weights_state(module))


def _assemble(layout: Layout, backbone: nn.Module, mask_token: int | None, options: LoadOptions) -> EncoderModule:
    """The backbone with prefix, pooling and heads, in evaluation mode."""
    choice, stored = options.pooling, None
    if choice is None:
        stored = layout.pooling
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
    for stored_head, weights in layout.heads:
        head = stored_head.fresh()  # a lean start and what completes it have one layout
        module.add_head(head)
        _load_weights(head, weights, layout.backbone)
    for head in make_heads(options.head):
        module.add_head(head)
    return module.eval()


def _load_weights(part: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    try:
        part.load_state_dict({name: value.float() for name, value in weights.items()})
    except RuntimeError as error:
        raise ModelError(f"{folder}: the weights of {type(part).__name__} do not fit: "
                         f"{str(error).splitlines()[-1].strip()}") from error


# -------------------------------------------------------------------------------------------- lean starts
def remember(loaded: Loaded, dtype: torch.dtype) -> Loaded:
    """Write the memo once the lean forward pass was checked in ``dtype`` on the weights as they were loaded."""
    name = comparison_name(dtype, loaded.device)
    checked = loaded.memo.checked if loaded.memo else []
    path, is_new = loaded.memo_path, name not in checked and loaded.runners.agrees.get(name)
    if path is None or not is_new or weights_state(loaded.module) != loaded.state:
        return loaded
    vocabulary = loaded.tokeniser.vocabulary
    memo = StartMemo(
        tokenizer=str(loaded.tokeniser.backend_json), size=vocabulary.size, pad=vocabulary.pad, mask=vocabulary.mask,
        special=sorted(vocabulary.special), max_tokens=loaded.tokeniser.max_tokens,
        digest=loaded.digest(), checked=sorted({name, *checked}),
    )
    with suppress(OSError):  # a cache folder that cannot be written is no fault
        write_json(path, asdict(memo))
    return replace(loaded, memo=memo)


def _load_lean(
    layout: Layout, memo: StartMemo, full: Callable[[torch.device], Loaded], max_tokens: int | None
) -> Loaded | None:
    """Enough to encode on a CPU, without importing transformers."""
    from tokenizers import Tokenizer

    try:
        module = _assemble(layout, read_skeleton(layout.backbone), memo.mask, LoadOptions())
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
