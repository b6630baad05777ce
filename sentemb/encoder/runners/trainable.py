"""The BERT family's training forward on a CPU: several batches in one pass, with the backbone's own weights.

What it saves: padding is left out, and of the last layer what nobody reads; products run in the faster library
(``machine.rates``), queries, keys and values are one product, dropout masks are drawn in bulk, attention keeps no copy
that its gradient does not need, and the word vectors' gradient, as large as the vocabulary, is made once for all
batches.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sentemb.encoder.backbone import evaluating
from sentemb.encoder.runners.attention import Rectangle, join_heads, rectangles_of, softmax_parts, split_heads
from sentemb.encoder.runners.families import Unsupported, plain_weights, position_table, stack_of
from sentemb.encoder.runners.forms import activated
from sentemb.machine.rates import linear
from sentemb.types import Tokens

_CHECKED_ROWS = 4
_TOLERANCE = 1e-4  # of the largest hidden state
_STEPS = 2**16  # probabilities are rounded to multiples of 1/65,536; the kept entries are scaled by what is left then
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # bytes of a number -> whole numbers of that size


def trainable(backbone: nn.Module) -> TrainableEncoder | None:
    """The training forward of a backbone; None for other architectures."""
    try:
        return TrainableEncoder(backbone)
    except Unsupported:
        return None


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

    def __call__(
        self, batches: Sequence[Tokens], *, first: Sequence[Float[Tensor, "b d"]] | None = None
    ) -> list[Float[Tensor, "b t d"]]:
        """Last hidden states of every batch; zeros at padding. The first layer reads ``first`` in the place of every
        text's first token, where that is given for every batch."""
        line = _Line.of(batches)
        in_line = [] if first is None else [one[rows.order] for one, rows in zip(first, line.batches, strict=True)]
        parts = self._states(line, first=torch.cat(in_line) if in_line else None).split(line.sizes)
        return [rows.unpacked(part) for rows, part in zip(line.batches, parts, strict=True)]

    def first_states(self, batches: Sequence[Tokens]) -> list[Float[Tensor, "b d"]]:
        """Last hidden states of every text's first token: behind the last layer's attention no others are made."""
        line = _Line.of(batches)
        parts = self._states(line, first_only=True).split(line.rows)
        return [part[torch.argsort(rows.order)] for rows, part in zip(line.batches, parts, strict=True)]

    def _states(
        self, line: _Line, *, first_only: bool = False, first: Float[Tensor, "rows d"] | None = None
    ) -> Float[Tensor, "n d"]:
        """Last hidden states of all tokens, or of every row's first one."""
        masks = [Masks() for _ in line.batches]  # a batch's dropout is the same whatever it is forwarded with
        x, sizes = self._embed(line, masks, first), line.sizes
        for names in self.stack.layers:
            context = self._attend(names, x, line, masks)
            if first_only and names is self.stack.layers[-1]:
                x, context = (states.index_select(0, line.first_tokens) for states in (x, context))
                sizes = line.rows
            out = self._map(context, names["out"])
            mask = self._mask(names.get("out_dropout"), out, sizes, masks)
            x = self._add_and_norm(names["first_norm"], x, out, mask)
            out = self._map(activated(self._map(x, names["up"]), self.stack.activation), names["down"])
            mask = self._mask(names["down_dropout"], out, sizes, masks)
            x = self._add_and_norm(names["second_norm"], x, out, mask)
        return x

    def _embed(self, line: _Line, masks: Sequence[Masks], first: Tensor | None) -> Tensor:
        words: Any = self.backbone.get_submodule("embeddings.word_embeddings")
        x = F.embedding(line.ids, words.weight, words.padding_idx)
        x = x + F.embedding(line.positions, position_table(self.weights, self.stack))
        if line.types is not None:
            vectors = self.weights["embeddings.token_type_embeddings.weight"]
            x = x + F.embedding(line.types, vectors - vectors[0])  # the position table holds type 0's vector already
        x = self._norm("embeddings.LayerNorm", x)
        mask = self._mask("embeddings.dropout", x, line.sizes, masks)
        x = x if mask is None else x * mask
        x = x if first is None else x.index_copy(0, line.first_tokens, first.to(x.dtype))
        return self._map(x, "embeddings_project") if "embeddings_project.weight" in self.weights else x

    def _attend(self, names: dict[str, str], x: Tensor, line: _Line, masks: Sequence[Masks]) -> Tensor:
        qkv, heads = self._map(x, names["query"], names["key"], names["value"]), self.stack.heads
        dropout = self.dropouts[names["attention_dropout"]]
        factors = [
            drawer.draw(dropout, (rectangle.rows * heads, rectangle.length, rectangle.length), qkv.dtype)
            for rows, drawer in zip(line.batches, masks, strict=True) for rectangle in rows.rectangles
        ]
        out: Tensor = _Attention.apply(qkv, heads, [one for rows in line.batches for one in rows.rectangles], factors)
        return out

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


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """A padded batch's place in a line of tokens: its rows by length, without their padding."""

    order: Int[Tensor, " rows"]  # the batch's rows as they stand in the line
    places: Int[Tensor, " tokens"]  # where each token stands in the batch, row after row
    shape: tuple[int, int]
    rectangles: tuple[Rectangle, ...]

    def unpacked(self, states: Float[Tensor, "tokens d"]) -> Float[Tensor, "rows length d"]:
        """Padded again, with zeros."""
        if len(states) < self.shape[0] * self.shape[1]:
            states = states.new_zeros(self.shape[0] * self.shape[1], states.shape[1]).index_copy(0, self.places, states)
        return states.view(*self.shape, -1)


@dataclass(frozen=True, kw_only=True)
class _Line:
    """The tokens of several batches end to end."""

    ids: Int[Tensor, " tokens"]
    positions: Int[Tensor, " tokens"]
    types: Int[Tensor, " tokens"] | None
    first_tokens: Int[Tensor, " rows"]  # where every row begins
    batches: list[_Rows]

    @property
    def sizes(self) -> list[int]:
        """Tokens of each batch."""
        return [len(rows.places) for rows in self.batches]

    @property
    def rows(self) -> list[int]:
        """Rows of each batch."""
        return [len(rows.order) for rows in self.batches]

    @classmethod
    def of(cls, batches: Sequence[Tokens]) -> _Line:
        parts, starts, end = [], [], 0
        for tokens in batches:
            count, width = tokens.input_ids.shape
            lengths, order = tokens.attention_mask.sum(1).sort(stable=True)
            row, column = tokens.attention_mask[order].nonzero(as_tuple=True)
            begin = end + np.concatenate([[0], np.cumsum(lengths.numpy())])
            parts.append(_Rows(order=order, places=order[row] * width + column, shape=(count, width),
                               rectangles=rectangles_of(lengths.numpy(), begin)))
            starts.append(begin[:-1])
            end = int(begin[-1])

        def joined(padded: Sequence[Tensor]) -> Tensor:
            return torch.cat([one.flatten()[rows.places] for one, rows in zip(padded, parts, strict=True)])

        types = [tokens.token_types for tokens in batches if tokens.token_types is not None]
        return cls(
            ids=joined([tokens.input_ids for tokens in batches]), types=joined(types) if types else None,
            positions=torch.cat([rows.places % rows.shape[1] for rows in parts]),
            first_tokens=torch.from_numpy(np.concatenate(starts)), batches=parts,
        )


class _Attention(torch.autograd.Function):
    """softmax(Q Kᵀ / √d) · mask, times V, for every row and head; its gradient keeps Q, K, V and the softmax."""

    @staticmethod
    def forward(
        ctx: Any, qkv: Float[Tensor, "tokens three_d"], heads: int, rectangles: Sequence[Rectangle],
        factors: Sequence[Tensor | None],
    ) -> Float[Tensor, "tokens d"]:
        saved, outs = [], []
        # autocast would take the softmax to float32; this keeps the format and sums in float32, as PyTorch's own does
        with torch.autocast("cpu", enabled=False):
            for one, factor in zip(rectangles, factors, strict=True):
                query, key, value = split_heads(one.of(qkv), heads).reshape(
                    3, one.rows * heads, one.length, -1).unbind(0)
                powers, totals = softmax_parts(query, key, one.keys, one.rows)
                weights = powers.div_(totals)
                out = torch.bmm(weights if factor is None else weights * factor, value)
                outs.append(one.tokens_of(join_heads(out, one.rows)))
                saved += [query, key, value, weights, factor]
        ctx.save_for_backward(*saved)
        ctx.rectangles = rectangles
        return torch.cat(outs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "tokens d"]) -> tuple[Tensor, None, None, None]:
        saved, gradients = ctx.saved_tensors, []
        for number, one in enumerate(ctx.rectangles):
            query, key, value, weights, factor = saved[5 * number : 5 * number + 5]
            size, length, width = query.shape
            heads = size // one.rows
            of_out = one.of(gradient)
            if one.mask is not None:
                of_out.mul_(one.mask[:, :, None])
            of_out = of_out.view(one.rows, length, heads, width).transpose(1, 2).reshape(size, length, width)
            out = torch.empty(3, size, length, width, dtype=query.dtype)
            dropped = weights if factor is None else weights * factor
            torch.bmm(dropped.transpose(1, 2), of_out, out=out[2])
            of_weights = torch.bmm(of_out, value.transpose(1, 2))
            if factor is not None:
                of_weights.mul_(factor)
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype).mul_(width**-0.5)
            torch.bmm(of_scores, key, out=out[0])
            torch.bmm(of_scores.transpose(1, 2), query, out=out[1])
            split = out.view(3, one.rows, heads, length, width).permute(1, 3, 0, 2, 4)
            gradients.append(one.tokens_of(split.reshape(one.rows, length, -1)))
        return torch.cat(gradients), None, None, None


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
        # 0 or 1 times the factor's bits: a third of the time that float32 factors, rounded to bfloat16, would take
        factor = torch.tensor([_STEPS / (_STEPS - steps)], dtype=dtype).view(_BITS[dtype.itemsize]).numpy()
        mask = torch.from_numpy(np.multiply(drawn >= steps, factor, dtype=factor.dtype))
        return mask.view(dtype).view(tuple(shape))
