"""Products of eight bits in the BERT family's lean form, for long work on a CPU that may lose a little precision.

Queries, keys and values, and the feed-forward pair, multiply unsigned bytes (inputs) with signed ones (weights).
Between the two maps of the pair nothing else is done: oneDNN applies the activation to the first one's sums and rounds
them to bytes while they are in the cache. What keeps the embeddings close, found on a sample of the texts at hand:

* a map's input is shifted, dimension by dimension, to the middle of its range and scaled by range^0.75 / weight^0.25,
  so that a few wide dimensions do not cost the others their bits (SmoothQuant, Xiao et al. 2023; the shift is ours);
* the weights behind are rounded one input dimension after the other, and what rounding one changes is made up for by
  those that follow (GPTQ, Frantar et al. 2023);
* the quarter of the inner neurons that reaches farthest goes on in the form's own format;
* the mean of what rounding changes in the last map goes into its bias.

The projection behind attention stays as it is: rounding its input takes as long as the smaller product saves.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor

from sentemb.encoder.fast.linear import FastLinear
from sentemb.encoder.fast.packed import Packed
from sentemb.encoder.fast.post_norm import FeedForward, Map, PostNormEncoder
from sentemb.machine.rates import ByteLinear

_EVENED = 0.75  # the exponent of the range
_FAR = 4  # one in so many inner neurons is not rounded
_ROOM = 1.15  # the bytes' range over the sample's, for texts that reach farther
_DAMPING = 0.01  # of the mean diagonal, added to it: a small sample's second moments can be singular
_BLOCK = 64  # input dimensions whose changes are passed on at once
_LEAST = {"gelu": -0.17, "relu": 0.0}  # what the activation never goes below


def int8_form(encoder: PostNormEncoder, sample: Packed) -> PostNormEncoder:
    """The encoder with maps of bytes; what is not rounded is shared.

    Args:
        sample: rows like those that it is for, with some 2,000 tokens.

    Raises:
        RuntimeError: the sample is of no use (values that are not finite).
    """
    layers = encoder.layers
    qkvs, pairs = [_Watched(layer.qkv) for layer in layers], [_Watched(layer.feed_forward) for layer in layers]
    encoder.with_layers([
        replace(layer, qkv=qkv, feed_forward=pair) for layer, qkv, pair in zip(layers, qkvs, pairs, strict=True)
    ])(sample)
    return encoder.with_layers([
        replace(layer, qkv=_ByteInput(qkv), feed_forward=_ByteFeedForward(pair))
        for layer, qkv, pair in zip(layers, qkvs, pairs, strict=True)
    ])


class _Watched:
    """A map that remembers its last input."""

    seen: Tensor

    def __init__(self, plain: Map) -> None:
        self.plain = plain

    def __call__(self, x: Tensor) -> Tensor:
        self.seen = x
        return self.plain(x)


class _ByteInput:
    """A map whose input is rounded to bytes."""

    def __init__(self, watched: _Watched) -> None:
        plain, seen = watched.plain, watched.seen
        assert isinstance(plain, FastLinear)
        self._dtype = seen.dtype
        weight = plain.plain_weight()
        self._rounding = _Rounding(seen, weight)
        self._map = ByteLinear(*self._rounding.rounded(weight, plain.bias, seen))

    def __call__(self, x: Float[Tensor, "tokens i"]) -> Float[Tensor, "tokens o"]:
        return self._map(self._rounding(x), self._dtype)


class _ByteFeedForward:
    """The pair of maps. Inner neurons that reach far leave the first map in the form's own format, the others as
    bytes with one scale."""

    def __init__(self, watched: _Watched) -> None:
        plain, seen = watched.plain, watched.seen
        assert isinstance(plain, FeedForward)
        self._dtype, self._activation = seen.dtype, plain.up.activation
        inner = plain.up(seen).float()  # once more: watched as well, it would be kept of all layers at a time
        up, down = plain.up.plain_weight(), plain.down.plain_weight()
        order = _by_reach(inner, up)
        count = min(-(-len(order) // (32 * _FAR)) * 32, len(order) - 1)  # whole registers
        far, near = order[:count].sort().values, order[count:].sort().values
        self._rounding = _Rounding(seen, up)
        weight, scale, bias = self._rounding.rounded(up, plain.up.bias, seen)
        self._up_far, self._up_near = (ByteLinear(weight[some], scale[some], bias[some]) for some in (far, near))
        inner, least = inner[:, near], _LEAST[str(self._activation)]
        self._scale = max((_ROOM * inner.max().item() - least) / 255, 1e-8)
        self._zero = round(-least / self._scale)
        self._down_far = FastLinear(down[:, far].contiguous())
        down = down[:, near].float()
        weight, scale = _nearest(down)
        bias = (down - weight * scale[:, None]) @ inner.mean(0)
        bias = bias if plain.down.bias is None else bias + plain.down.bias
        self._down_near = ByteLinear(weight.to(torch.int8), scale, bias, scale=self._scale, zero=self._zero)

    def __call__(self, x: Float[Tensor, "tokens i"]) -> Float[Tensor, "tokens i"]:
        rounded = self._rounding(x)
        summed = self._down_far.plus(self._up_far(rounded, self._dtype, self._activation), x)
        near = self._up_near(rounded, torch.uint8, self._activation, scale=self._scale, zero=self._zero)
        return self._down_near.plus(near, summed)


class _Rounding:
    """Inputs of a map to bytes: ``factor · x + offset`` rounded, 128 for 0.

    Args:
        seen: inputs that the range is taken from.
        weight: what will multiply them.
    """

    def __init__(self, seen: Float[Tensor, "n i"], weight: Float[Tensor, "o i"]) -> None:
        low, high = seen.float().aminmax(dim=0)
        middle, reach = (low + high) / 2, ((high - low) / 2).clamp_min(1e-5)
        width = reach**_EVENED / weight.float().abs().amax(0).clamp_min(1e-5) ** (1 - _EVENED)
        widest = (reach / width).max()
        self._factor = 127 / (widest * width)
        self._offset = -middle * self._factor

    def __call__(self, x: Float[Tensor, "tokens i"]) -> UInt8[Tensor, "tokens i"]:
        # PyTorch converts to signed bytes ten times as fast as to unsigned ones
        signed = torch.addcmul(self._offset, x.float(), self._factor).round_().clamp_(-128, 127).to(torch.int8)
        return signed.view(torch.uint8).bitwise_xor_(128)

    def rounded(
        self, weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"] | None, seen: Float[Tensor, "n i"]
    ) -> tuple[Int8[Tensor, "o i"], Float[Tensor, " o"], Float[Tensor, " o"]]:
        """Weight, its scales and bias of the map behind this rounding."""
        inputs = torch.addcmul(self._offset, seen.float(), self._factor)
        wanted = weight.float() / self._factor
        whole, scale = _rounded(wanted, inputs)
        found = (wanted - whole * scale[:, None]) @ inputs.mean(0) - wanted @ self._offset
        return whole.to(torch.int8), scale, found if bias is None else found + bias.float()


def _by_reach(inner: Float[Tensor, "n inner"], up: Float[Tensor, "inner i"]) -> Tensor:
    """Neurons, the farthest reaching first: two of three by what was seen, one by the norm of its weights, which tells
    of some that are still for most texts and farther than all others for a few."""
    seen, norms = (found.argsort(descending=True).argsort() for found in (inner.amax(0), up.float().norm(dim=1)))
    return torch.minimum(seen, 2 * norms).argsort(stable=True)


def _scale_of(weight: Float[Tensor, "o i"]) -> Float[Tensor, " o"]:
    return (weight.abs().amax(1) / 127).clamp_min(1e-12)


def _nearest(weight: Float[Tensor, "o i"]) -> tuple[Tensor, Tensor]:
    """Whole numbers −127 … 127 (o, i) and scales (o), whatever the inputs."""
    scale = _scale_of(weight)
    return (weight / scale[:, None]).round(), scale


def _rounded(weight: Float[Tensor, "o i"], inputs: Float[Tensor, "n i"]) -> tuple[Tensor, Tensor]:
    """Whole numbers −127 … 127 (o, i) and scales (o) whose products with ``inputs`` are close to the weight's.

    GPTQ: with U the upper Cholesky factor of the inverse of H = inputsᵀ inputs, rounding dimension j by e changes the
    dimensions k > j by −e U[j, k] / U[j, j]. Those with the largest inputs come first.
    """
    moments = inputs.T @ inputs
    diagonal = moments.diagonal()
    diagonal += _DAMPING * diagonal.mean().clamp_min(1e-12)
    order = diagonal.argsort(descending=True)
    moments = moments[order][:, order]
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(moments)), upper=True)
    scale = _scale_of(weight)
    left = (weight[:, order] / scale[:, None]).T.contiguous()  # a dimension a row: steps touch whole rows
    whole = torch.empty_like(left)
    for begin in range(0, len(left), _BLOCK):
        block, within = left[begin : begin + _BLOCK], factor[begin : begin + _BLOCK, begin : begin + _BLOCK]
        changes = torch.empty_like(block)
        for step in range(len(block)):
            whole[begin + step] = block[step].round().clamp_(-127, 127)
            changes[step] = (block[step] - whole[begin + step]) / within[step, step]
            block[step + 1 :].addr_(within[step, step + 1 :], changes[step], alpha=-1)
        end = begin + len(block)
        left[end:].addmm_(factor[begin:end, end:].T, changes, alpha=-1)
    found = torch.empty_like(whole)
    found[order] = whole
    return found.T, scale
