"""Which runner a model is encoded with: decided by backbone, dtype and device, never by the texts of a call."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from sentemb.data.tokens import pad
from sentemb.encoder.backbone import evaluating, position_limit
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.poolings import Cls
from sentemb.encoder.runners import int8
from sentemb.encoder.runners.attention import pack
from sentemb.encoder.runners.decoders import DecoderEncoder
from sentemb.encoder.runners.families import Unsupported
from sentemb.encoder.runners.forms import ModernBertEncoder, PostNormEncoder, lean_form
from sentemb.encoder.static import StaticTable
from sentemb.errors import ModelError, first_line
from sentemb.types import TokenColumn, Tokens, Vocabulary

_FLOAT32_TOLERANCE = 1e-4  # between the lean and the plain form, in entries of unit vectors
_HALF_COSINE = 0.99
_COMPARED_LENGTHS = (40, 17, 17, 5)


class Runner(Protocol):
    """Rows of token ids, longest first, to pooled vectors (rows, d) on the module's device."""

    def __call__(self, column: TokenColumn, prompt_tokens: int = 0) -> Float[Tensor, "b d"]: ...


class PlainRunner:
    """Works for every architecture and device, with the module's weights; another dtype takes a copy of them."""

    def __init__(self, module: EncoderModule, dtype: torch.dtype, pad_id: int) -> None:
        backbone = module.backbone
        if next(backbone.parameters()).dtype != dtype:
            backbone = copy.deepcopy(backbone).to(dtype).requires_grad_(False)
        self._backbone, self._module, self._pad_id = backbone, module, pad_id

    def __call__(self, column: TokenColumn, prompt_tokens: int = 0) -> Float[Tensor, "b d"]:
        tokens = pad(column, self._pad_id).to(next(self._backbone.parameters()).device)
        return self._module.plain(self._backbone, tokens, prompt_tokens=prompt_tokens)[1]


class LeanRunner:
    """Rows through a lean form; neighbouring rows of equal length are pooled as a rectangle without padding."""

    def __init__(self, form: PostNormEncoder | ModernBertEncoder | DecoderEncoder, module: EncoderModule) -> None:
        self.form, self._module = form, module

    def __call__(self, column: TokenColumn, prompt_tokens: int = 0) -> Float[Tensor, "b d"]:
        packed, module = pack(column), self._module
        pools_first = isinstance(module.pooling, Cls) and (module.pools_prompt or not prompt_tokens)
        if pools_first and isinstance(self.form, PostNormEncoder):
            return self.form(packed, first_only=True)[0]
        layers = self.form(packed, all_layers=module.pooling.needs_layers)
        pooled = []
        for rows in packed.rectangles:
            ids = rows.of(packed.ids[:, None])[..., 0]
            mask = torch.ones_like(ids) if rows.mask is None else rows.mask.long()
            tokens = Tokens(input_ids=ids, attention_mask=mask)
            pooled.append(module.pool([rows.of(layer) for layer in layers], tokens, prompt_tokens))
        return torch.cat(pooled)


class StaticRunner:
    """Token ids of a static model to the mean of their vectors, which are not copied side by side before."""

    def __init__(self, table: StaticTable) -> None:
        self._weight = table.embedding.weight

    def __call__(self, column: TokenColumn, prompt_tokens: int = 0) -> Float[Tensor, "b d"]:
        device = self._weight.device
        flat, offsets = torch.from_numpy(column.flat).to(device), torch.from_numpy(column.offsets[:-1]).to(device)
        return F.embedding_bag(flat.long(), self._weight, offsets, mode="mean")


class Runners:
    """The runner of one encoder, made when first needed, and again after the weights changed. A lean form is compared
    with the plain path on a few made-up rows before its first use."""

    def __init__(self, agrees: dict[str, bool] | None = None) -> None:
        self.agrees = dict(agrees or {})  # "cpu bfloat16" -> whether the lean form agreed with the plain path there
        # key and runner in one value, which other threads see whole
        self._ready: tuple[tuple[int, torch.dtype, int], Runner] | None = None

    def __deepcopy__(self, memo: object) -> Runners:
        return Runners(self.agrees)  # prepared weights cannot be copied, and belong to the other module

    def ready(
        self, module: EncoderModule, dtype: torch.dtype, vocabulary: Vocabulary,
        int8_tensors: Mapping[str, Tensor] | None = None,
    ) -> Runner:
        """The module's runner in ``dtype``; with ``int8_tensors`` the lean form with these maps of bytes."""
        key = weights_state(module), dtype, id(int8_tensors)
        ready = self._ready
        if ready is not None and ready[0] == key:
            return ready[1]
        with evaluating(module):
            runner: Runner | None = self._lean(module, dtype, vocabulary)
            if isinstance(module.backbone, StaticTable) and dtype == torch.float32:
                runner = StaticRunner(module.backbone)
            if int8_tensors is not None:
                runner = LeanRunner(int8.with_bytes(post_norm_form(runner, module), int8_tensors), module)
            runner = runner or PlainRunner(module, dtype, vocabulary.pad)
        self._ready = key, runner
        return runner

    def _lean(self, module: EncoderModule, dtype: torch.dtype, vocabulary: Vocabulary) -> LeanRunner | None:
        name = comparison_name(dtype, next(module.parameters()).device)
        if self.agrees.get(name) is False:
            return None
        try:
            runner = LeanRunner(lean_form(module.backbone, dtype), module)
            if name not in self.agrees:
                self.agrees[name] = _agree(runner, module, dtype, vocabulary)
        except Unsupported:
            self.agrees[name] = False
        except (RuntimeError, NotImplementedError, ImportError) as error:
            self.agrees[name] = False
            warnings.warn(f"sentemb's lean forward pass of {type(module.backbone).__name__} cannot run here "
                          f"({first_line(error)}); the plain one is used", stacklevel=2)
        return runner if self.agrees[name] else None


def comparison_name(dtype: torch.dtype, device: torch.device) -> str:
    """What a comparison of the lean and the plain form holds for: kernels differ by device and dtype."""
    return f"{device.type} {str(dtype).removeprefix('torch.')}"


def post_norm_form(runner: Runner | None, module: EncoderModule) -> PostNormEncoder:
    """The runner's lean form, which can go on in eight bits; raises ``ModelError`` where it is none of that kind."""
    if isinstance(runner, LeanRunner) and isinstance(runner.form, PostNormEncoder):
        return runner.form
    raise ModelError(f"{type(module.backbone).__name__} has no form of eight bits; BERT, RoBERTa, XLM-RoBERTa, "
                     "CamemBERT, ELECTRA, DistilBERT and MPNet have one")


@torch.inference_mode()
def _agree(runner: Runner, module: EncoderModule, dtype: torch.dtype, vocabulary: Vocabulary) -> bool:
    rows = _made_up_rows(module.backbone, vocabulary)
    is_kept = next(module.backbone.parameters()).dtype == torch.bfloat16  # then a copy in float32 may not fit
    plain = PlainRunner(module, dtype if is_kept else torch.float32, vocabulary.pad)
    ours, theirs = (F.normalize(path(rows).float(), dim=-1) for path in (runner, plain))
    if dtype == torch.float32:
        gap, allowed = (ours - theirs).abs().max().item(), _FLOAT32_TOLERANCE
    else:
        gap, allowed = 1 - (ours * theirs).sum(-1).min().item(), 1 - _HALF_COSINE
    if not gap <= allowed:
        warnings.warn(f"sentemb's lean forward pass of {type(module.backbone).__name__} differs from the plain forward "
                      f"pass by {gap:.2g} in {str(dtype).removeprefix('torch.')}; the plain one is used", stacklevel=2)
    return gap <= allowed


def _made_up_rows(backbone: Any, vocabulary: Vocabulary) -> TokenColumn:
    """Rows of random token ids, always the same ones; none of them is special to the tokenizer or to a table."""
    lengths = np.minimum(_COMPARED_LENGTHS, position_limit(backbone) or max(_COMPARED_LENGTHS))
    tables = (part for part in backbone.modules() if isinstance(part, nn.Embedding))
    special = {*vocabulary.special, vocabulary.pad, *(table.padding_idx for table in tables)} - {None}
    ids = np.setdiff1d(np.arange(backbone.get_input_embeddings().num_embeddings, dtype=np.int32), [*special])
    flat = np.random.default_rng(0).choice(ids, lengths.sum())
    return TokenColumn(flat=flat, offsets=np.cumsum([0, *lengths]), text=np.full(len(lengths), -1, dtype=np.int64))


# ------------------------------------------------------------------------------------- noticing changed weights
_optimizer_steps = 0


def weights_state(module: nn.Module) -> int:
    """A number that changes whenever a weight is replaced, written in place (not through ``data``) or stepped."""
    tensors = [*module.parameters(), *module.buffers()]
    # an inference tensor has no version and cannot be written in place outside inference mode
    versions = tuple((tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors)
    return hash((_optimizer_steps, versions))


def _count_step(*_: Any) -> None:
    global _optimizer_steps
    _optimizer_steps += 1


# fused optimizers write weights without raising autograd's version counter
register_optimizer_step_post_hook(_count_step)
