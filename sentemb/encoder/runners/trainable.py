"""The BERT family's training forward on a CPU: several padded batches in one pass, with the backbone's own weights.

What it saves: products run in the faster library (``machine.rates``), queries, keys and values are one product, dropout
masks are drawn in bulk, attention keeps no copy that its gradient does not need, and the word vectors' gradient, as
large as the vocabulary, is made once for all batches.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sentemb.encoder.backbone import evaluating
from sentemb.encoder.runners.attention import join_heads, softmax_parts, split_heads
from sentemb.encoder.runners.families import Unsupported, plain_weights, position_table, stack_of
from sentemb.encoder.runners.forms import activated
from sentemb.machine.rates import linear
from sentemb.types import Tokens

_CHECKED_ROWS = 4
_TOLERANCE = 1e-4  # of the largest hidden state
_STEPS = 2**16  # probabilities are rounded to multiples of 1/65,536; the kept entries are scaled by what is left then


class TrainableEncoder:
    """The training forward of a backbone, after ``is_usable``; raises ``Unsupported`` for other architectures."""

    def __init__(self, backbone: Any) -> None:
        self.backbone, self.stack = backbone, stack_of(backbone)
        if backbone.config.model_type == "mpnet":  # its learned attention bias wants a gradient of its own
            raise Unsupported("MPNet")
        self._agrees: bool | None = None  # with the plain forward; None: not compared yet

    def _read(self) -> None:
        """Take the modules and weights as they are now; raises ``Unsupported`` where calling them would do more than
        stands here: hooks (sharding, a probe), adapters, compilation, checkpointing, further weights."""
        self.weights, modules = plain_weights(self.backbone), dict(self.backbone.named_modules())
        for module in modules.values():
            has_hooks = module._backward_hooks or module._backward_pre_hooks
            if has_hooks or module._compiled_call_impl is not None or getattr(module, "gradient_checkpointing", False):
                raise Unsupported("hooks, compilation or checkpointing")
        used = {name for layer in self.stack.layers for name in layer.values()}
        self.dropouts = {name: modules.get(name) for name in ("embeddings.dropout", *used) if name.endswith("dropout")}
        if any(type(module) is not nn.Dropout for module in self.dropouts.values()):
            raise Unsupported("another dropout")
        expected = {f"{name}.{kind}" for name in used - self.dropouts.keys() for kind in ("weight", "bias")}
        if any(not name.startswith(("embeddings", "pooler.")) for name in self.weights.keys() ^ expected):
            raise Unsupported("other weights than BERT's")

    def is_usable(self, batches: Sequence[Tokens]) -> bool:
        """Whether it computes what the plain forward does; compared once, on a few rows, with a warning if not."""
        try:
            self._read()
            if self._agrees is None:
                self._agrees = self._is_equal(min(batches, key=lambda tokens: tokens.input_ids.numel()))
                if not self._agrees:
                    warnings.warn(f"sentemb's lean training forward of {type(self.backbone).__name__} differs from the "
                                  "plain one; the plain one is used", stacklevel=2)
        except (Unsupported, AttributeError):  # other names for BERT's embeddings
            return False
        return self._agrees

    def _is_equal(self, tokens: Tokens) -> bool:
        ids, mask = tokens.input_ids[:_CHECKED_ROWS], tokens.attention_mask[:_CHECKED_ROWS]
        types = None if tokens.token_types is None else tokens.token_types[:_CHECKED_ROWS]
        given = {} if types is None else {"token_type_ids": types}
        with evaluating(self.backbone), torch.no_grad(), torch.autocast("cpu", enabled=False):
            plain: Tensor = self.backbone(input_ids=ids, attention_mask=mask, **given).last_hidden_state
            ours = self([Tokens(input_ids=ids, attention_mask=mask, token_types=types)])[0]
        gap = ((plain - ours) * mask[:, :, None]).abs().max()
        return bool(gap <= _TOLERANCE * plain.abs().max())

    def __call__(self, batches: Sequence[Tokens]) -> list[Float[Tensor, "b t d"]]:
        """Last hidden states of every batch."""
        shapes = [tuple(tokens.input_ids.shape) for tokens in batches]
        sizes = [rows * length for rows, length in shapes]
        masks = [Masks() for _ in batches]  # a batch's dropout is the same whatever it is forwarded with
        x = self._embed(batches, masks)
        biases = [_bias(tokens.attention_mask, x.dtype) for tokens in batches]
        for names in self.stack.layers:
            out = self._map(self._attend(names, x, shapes, biases, masks), names["out"])
            x = self._add_and_norm(names["first_norm"], x, out, self._mask(names.get("out_dropout"), out, sizes, masks))
            out = self._map(activated(self._map(x, names["up"]), self.stack.activation), names["down"])
            x = self._add_and_norm(names["second_norm"], x, out, self._mask(names["down_dropout"], out, sizes, masks))
        parts = x.split(sizes)
        return [part.view(*shape, -1) for part, shape in zip(parts, shapes, strict=True)]

    def _embed(self, batches: Sequence[Tokens], masks: Sequence[Masks]) -> Tensor:
        words: Any = self.backbone.get_submodule("embeddings.word_embeddings")
        ids = torch.cat([tokens.input_ids.flatten() for tokens in batches])
        table = position_table(self.weights, self.stack)
        positions = [table[:length].expand(count, length, -1).reshape(count * length, -1)
                     for count, length in (tokens.input_ids.shape for tokens in batches)]
        x = F.embedding(ids, words.weight, words.padding_idx) + torch.cat(positions)
        if batches[0].token_types is not None:
            types = torch.cat([tokens.token_types.flatten() for tokens in batches if tokens.token_types is not None])
            vectors = self.weights["embeddings.token_type_embeddings.weight"]
            x = x + F.embedding(types, vectors - vectors[0])  # the position table holds type 0's vector already
        x = self._norm("embeddings.LayerNorm", x)
        mask = self._mask("embeddings.dropout", x, [tokens.input_ids.numel() for tokens in batches], masks)
        x = x if mask is None else x * mask
        return self._map(x, "embeddings_project") if "embeddings_project.weight" in self.weights else x

    def _attend(
        self, names: dict[str, str], x: Tensor, shapes: Sequence[tuple[int, ...]], biases: Sequence[Tensor | None],
        masks: Sequence[Masks],
    ) -> Tensor:
        qkv, heads, contexts = self._map(x, names["query"], names["key"], names["value"]), self.stack.heads, []
        dropout = self.dropouts[names["attention_dropout"]]
        for part, (rows, length), bias, drawer in zip(
            qkv.split([rows * length for rows, length in shapes]), shapes, biases, masks, strict=True
        ):
            keep = drawer.draw(dropout, (rows * heads, length, length), part.dtype)
            contexts.append(_Attention.apply(part.view(rows, length, -1), heads, bias, keep))
        return torch.cat([context.flatten(0, 1) for context in contexts])

    def _map(self, x: Tensor, *names: str) -> Tensor:
        """Linear layers of one input, side by side."""
        weight, bias = ([self.weights[f"{name}.{kind}"] for name in names] for kind in ("weight", "bias"))
        return linear(x, weight[0], bias[0]) if len(names) == 1 else linear(x, torch.cat(weight), torch.cat(bias))

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        return F.layer_norm(x, weight.shape, weight, self.weights[f"{name}.bias"], self.stack.eps)

    def _add_and_norm(self, name: str, residual: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None and residual.dtype == x.dtype:
            return self._norm(name, torch.addcmul(residual, x, mask))
        return self._norm(name, residual + (x if mask is None else x * mask))

    def _mask(self, name: str | None, x: Tensor, sizes: Sequence[int], masks: Sequence[Masks]) -> Tensor | None:
        """Factors for ``x``, whose rows belong to several batches, each with its own generator."""
        dropout = None if name is None else self.dropouts[name]
        drawn = [drawer.draw(dropout, (size, x.shape[1]), x.dtype) for size, drawer in zip(sizes, masks, strict=True)]
        masks_of_batches = [mask for mask in drawn if mask is not None]
        return torch.cat(masks_of_batches) if masks_of_batches else None


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
        if steps >= _STEPS:
            return torch.zeros(tuple(shape), dtype=dtype)
        if self._generator is None:
            self._generator = np.random.SFC64(int(torch.randint(2**62, ())))
        count = int(np.prod(shape))
        drawn = self._generator.random_raw(-(-count // 4)).view(np.uint16)[:count]
        factor = np.float32(_STEPS / (_STEPS - steps))
        mask = torch.from_numpy(np.multiply(drawn >= steps, factor, dtype=np.float32))
        return mask.view(tuple(shape)).to(dtype)
