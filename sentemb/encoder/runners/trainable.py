"""The BERT family's training forward on a CPU: several padded batches in one pass, with the backbone's own weights.

What it saves against the plain one: products run in the faster library (``machine.rates``), queries, keys and values
are one product, dropout masks are drawn in bulk, attention keeps no copy that its gradient does not need, and the
word vectors' gradient, as large as the vocabulary, is made once for all batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sentemb.encoder.backbone import evaluating
from sentemb.encoder.runners.attention import join_heads, softmax_parts, split_heads
from sentemb.encoder.runners.families import FAMILIES, LayerModules, Unsupported, kind_of, position_table, stack_of
from sentemb.machine.rates import linear
from sentemb.types import Tokens

_CHECKED_ROWS = 4
_TOLERANCE = 1e-4  # of the largest hidden state
_STEPS = 2**16  # probabilities are rounded to multiples of 1/65,536; the kept entries are scaled by what is left then
_MODULES = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.Dropout)


class TrainableEncoder:
    """The training forward of a backbone; reads its modules anew in every call.

    Raises:
        Unsupported: another architecture, or layers that compute something else than their names say.
    """

    def __init__(self, backbone: nn.Module) -> None:
        model: Any = backbone
        kind = kind_of(backbone, "transformers.models.")
        if kind not in FAMILIES or kind == "mpnet":  # MPNet's learned attention bias wants a gradient of its own
            raise Unsupported(f"architecture {kind}")
        try:
            self.stack = stack_of(backbone)
            self.embeddings = model.embeddings
            self.projection: nn.Module | None = getattr(model, "embeddings_project", None)
            position_table(self.embeddings)
        except AttributeError as error:  # another release of transformers names a layer differently
            raise Unsupported(str(error)) from error
        if any(part.bias is None for layer in self.stack.layers for part in (layer.query, layer.key, layer.value)):
            raise Unsupported("a layer without bias")
        self.backbone = backbone

    def is_usable(self) -> bool:
        """Whether calling the backbone's modules would do nothing but what stands here: no hooks (sharding, a
        probe), adapters, compilation or checkpointing, and everything on the CPU."""
        self.stack = stack_of(self.backbone)  # layers may have been replaced
        used = self._used()
        if any(type(module) not in _MODULES for module in used):
            return False
        for module in self.backbone.modules():
            if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
                return False
            if module._backward_pre_hooks or module._compiled_call_impl is not None:
                return False
            if getattr(module, "gradient_checkpointing", False):
                return False
        known = {id(weight) for module in used for weight in module.parameters(recurse=False)}
        return all(
            type(weight) is nn.Parameter and weight.device.type == "cpu"
            and (id(weight) in known or name.startswith("pooler."))
            for name, weight in self.backbone.named_parameters()
        )

    def _used(self) -> list[nn.Module]:
        """The modules whose work is done here."""
        used = [getattr(layer, field.name) for layer in self.stack.layers for field in fields(layer)]
        names = ("word_embeddings", "position_embeddings", "token_type_embeddings", "LayerNorm", "dropout")
        used += [getattr(self.embeddings, name, None) for name in names]
        return [module for module in (*used, self.projection) if module is not None]

    def __call__(self, batches: Sequence[Tokens]) -> list[Float[Tensor, "b t d"]]:
        """Last hidden states of every batch."""
        shapes = [tuple(tokens.input_ids.shape) for tokens in batches]
        sizes = [rows * length for rows, length in shapes]
        masks = [Masks() for _ in batches]  # a batch's dropout is the same whatever it is forwarded with
        x = self._embed(batches, masks)
        biases = [_bias(tokens.attention_mask, x.dtype) for tokens in batches]
        for layer in self.stack.layers:
            context = self._attend(layer, x, shapes, biases, masks)
            out = _map(layer.out, context)
            x = _add_and_norm(layer.first_norm, x, out, _mask(layer.out_dropout, out, sizes, masks))
            inner = _map(layer.up, x)
            inner = F.gelu(inner) if self.stack.activation == "gelu" else F.relu(inner)
            out = _map(layer.down, inner)
            x = _add_and_norm(layer.second_norm, x, out, _mask(layer.down_dropout, out, sizes, masks))
        parts = x.split(sizes)
        return [part.view(*shape, -1) for part, shape in zip(parts, shapes, strict=True)]

    def agrees(self, tokens: Tokens) -> bool:
        """Whether the last hidden states are the plain forward's, without dropout, on a few rows of a batch."""
        ids, mask = tokens.input_ids[:_CHECKED_ROWS], tokens.attention_mask[:_CHECKED_ROWS]
        with evaluating(self.backbone), torch.no_grad(), torch.autocast("cpu", enabled=False):
            plain: Tensor = self.backbone(input_ids=ids, attention_mask=mask, return_dict=True).last_hidden_state
            ours = self([Tokens(input_ids=ids, attention_mask=mask)])[0]
        gap = ((plain - ours) * mask[:, :, None]).abs().max()
        return bool(gap <= _TOLERANCE * plain.abs().max())

    # -------------------------------------------------------------------------------------------- embeddings
    def _embed(self, batches: Sequence[Tokens], masks: Sequence[Masks]) -> Tensor:
        embeddings, words = self.embeddings, self.embeddings.word_embeddings
        ids = torch.cat([tokens.input_ids.flatten() for tokens in batches])
        table = position_table(embeddings)
        positions = [table[:length].expand(count, length, -1).reshape(count * length, -1)
                     for count, length in (tokens.input_ids.shape for tokens in batches)]
        x = _norm(embeddings.LayerNorm, F.embedding(ids, words.weight, words.padding_idx) + torch.cat(positions))
        mask = _mask(embeddings.dropout, x, [tokens.input_ids.numel() for tokens in batches], masks)
        x = x if mask is None else x * mask
        return x if self.projection is None else _map(self.projection, x)

    # --------------------------------------------------------------------------------------------- attention
    def _attend(
        self, layer: LayerModules, x: Tensor, shapes: Sequence[tuple[int, ...]], biases: Sequence[Tensor | None],
        masks: Sequence[Masks],
    ) -> Tensor:
        heads = self.stack.heads
        three: list[Any] = [layer.query, layer.key, layer.value]
        qkv = linear(x, torch.cat([part.weight for part in three]), torch.cat([part.bias for part in three]))
        contexts = []
        for part, (rows, length), bias, drawer in zip(
            qkv.split([rows * length for rows, length in shapes]), shapes, biases, masks, strict=True
        ):
            keep = drawer.draw(layer.attention_dropout, (rows * heads, length, length), part.dtype)
            contexts.append(_Attention.apply(part.view(rows, length, -1), heads, bias, keep))
        return torch.cat([context.flatten(0, 1) for context in contexts])


class _Attention(torch.autograd.Function):
    """softmax(Q Kᵀ / √d + bias) · mask, times V, for every row and head; its gradient keeps Q, K, V and the softmax."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, heads: int, bias: Tensor | None, keep: Tensor | None) -> Tensor:
        rows, length, _ = qkv.shape
        query, key, value = split_heads(qkv, heads).reshape(3, rows * heads, length, -1).unbind(0)
        # autocast would take the softmax to float32; this keeps the format and sums in float32, as PyTorch's own does
        with torch.autocast("cpu", enabled=False):
            powers, totals = softmax_parts(query, key, bias, rows)
            weights = powers.div_(totals)
            out = torch.bmm(weights if keep is None else weights * keep, value)
        ctx.save_for_backward(query, key, value, weights, keep)
        ctx.rows = rows
        return join_heads(out, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        query, key, value, weights, keep = ctx.saved_tensors
        size, length, width = query.shape
        heads = size // ctx.rows
        gradient = gradient.view(ctx.rows, length, heads, width).transpose(1, 2).reshape(size, length, width)
        out = torch.empty(3, size, length, width, dtype=query.dtype)
        dropped = weights if keep is None else weights * keep
        torch.bmm(dropped.transpose(1, 2), gradient, out=out[2])
        of_weights = torch.bmm(gradient, value.transpose(1, 2))
        if keep is not None:
            of_weights.mul_(keep)
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype).mul_(width**-0.5)
        torch.bmm(of_scores, key, out=out[0])
        torch.bmm(of_scores.transpose(1, 2), query, out=out[1])
        split = out.view(3, ctx.rows, heads, length, width).permute(1, 3, 0, 2, 4)
        return split.reshape(ctx.rows, length, -1), None, None, None


def _bias(mask: Tensor, dtype: torch.dtype) -> Tensor | None:
    """0 where a key is a token, a very small number where it is padding; None where nothing is."""
    if bool(mask.all()):
        return None
    bias = torch.zeros(mask.shape, dtype=dtype).masked_fill_(mask == 0, torch.finfo(dtype).min)
    return bias[:, None, None, :]


# ------------------------------------------------------------------------------------------------- pieces
class Masks:
    """Dropout masks of one batch's forward pass, drawn in bulk (PyTorch draws them one number after the other on a
    CPU), from a seed that PyTorch's generator gives: replaying that replays them."""

    def __init__(self) -> None:
        self._generator: np.random.SFC64 | None = None  # nothing is drawn where nothing is dropped

    def draw(
        self, dropout: nn.Module | None, shape: Sequence[int], dtype: torch.dtype
    ) -> Float[Tensor, "*shape"] | None:
        """Factors 0 or 1 / (1 - p), independent; None where nothing is dropped."""
        steps = round(dropout.p * _STEPS) if isinstance(dropout, nn.Dropout) and dropout.training else 0
        if steps == 0:
            return None
        count = int(np.prod(shape))
        if steps >= _STEPS:
            return torch.zeros(tuple(shape), dtype=dtype)
        if self._generator is None:
            self._generator = np.random.SFC64(int(torch.randint(2**62, ())))
        drawn = self._generator.random_raw(-(-count // 4)).view(np.uint16)[:count]
        factor = np.float32(_STEPS / (_STEPS - steps))
        mask = torch.from_numpy(np.multiply(drawn >= steps, factor, dtype=np.float32))
        return mask.view(tuple(shape)).to(dtype)


def _map(module: Any, x: Tensor) -> Tensor:
    return linear(x, module.weight, module.bias)


def _norm(module: Any, x: Tensor) -> Tensor:
    return F.layer_norm(x, module.normalized_shape, module.weight, module.bias, module.eps)


def _add_and_norm(norm: Any, residual: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return _norm(norm, residual + x)
    if residual.dtype == x.dtype:
        return _norm(norm, torch.addcmul(residual, x, mask))
    return _norm(norm, residual + x * mask)


def _mask(dropout: nn.Module | None, x: Tensor, sizes: Sequence[int], masks: Sequence[Masks]) -> Tensor | None:
    """Factors for ``x``, whose rows belong to several batches, each with its own generator."""
    drawn = [drawer.draw(dropout, (size, x.shape[1]), x.dtype) for size, drawer in zip(sizes, masks, strict=True)]
    masks_of_batches = [mask for mask in drawn if mask is not None]
    return torch.cat(masks_of_batches) if masks_of_batches else None
