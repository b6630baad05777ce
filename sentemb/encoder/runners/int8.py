"""Products of eight bits in the lean form of BERT's family: prepared once on a sample, kept as tensors.

Queries, keys and values, and the feed-forward pair, multiply unsigned bytes (inputs) with signed ones (weights).
Between the two maps of the pair nothing else is done: oneDNN applies the activation to the first one's sums and rounds
them to bytes while they are in the cache. What keeps the embeddings close, found on the sample:

* a map's input is shifted, dimension by dimension, to the middle of its range and scaled by range^0.75 / weight^0.25,
  so that a few wide dimensions do not cost the others their bits (SmoothQuant, Xiao et al. 2023; the shift is ours);
* the quarter of the inner neurons that reaches farthest goes on in the form's own format;
* the mean of what rounding changes goes into the biases.

The projection behind attention stays as it is: rounding its input takes as long as the smaller product saves.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from functools import cache

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor

from sentemb.encoder.runners.attention import Map, Packed
from sentemb.encoder.runners.forms import ONEDNN_ACTIVATIONS, USUAL_ROWS, FastLinear, FeedForward, PostNormEncoder

_EVENED = 0.75  # the exponent of the range
_FAR = 4  # one in so many inner neurons is not rounded
_ROOM = 1.15  # the bytes' range over the sample's, for texts that reach farther
_LEAST = {"gelu": -0.17, "relu": 0.0}  # what the activation never goes below

Tensors = Mapping[str, Tensor]


# --------------------------------------------------------------------------------------------- computing
def with_bytes(encoder: PostNormEncoder, tensors: Tensors) -> PostNormEncoder:
    """The encoder with the maps of bytes that ``prepare`` gave; what is not rounded is shared."""
    other, dtype = copy(encoder), encoder.words.dtype
    other.layers = [
        replace(
            layer, qkv=_byte_map(_under(f"{number}.qkv.", tensors), dtype),
            feed_forward=_ByteFeedForward(_under(f"{number}.pair.", tensors), dtype, encoder.activation),
        )
        for number, layer in enumerate(encoder.layers)
    ]
    return other


def _byte_map(tensors: Tensors, dtype: torch.dtype) -> Map:
    linear = _byte_linear(tensors)
    return lambda x: linear(_rounded_input(x, tensors), dtype)


class _ByteFeedForward:
    """Inner neurons that reach far leave the first map in the form's own format, the others as bytes with one scale."""

    def __init__(self, tensors: Tensors, dtype: torch.dtype, activation: str | None) -> None:
        self._dtype, self._activation, self._tensors = dtype, activation, tensors
        self._scale, self._zero = float(tensors["scale"]), int(tensors["zero"])
        self._up_far, self._up_near = (_byte_linear(_under(name, tensors)) for name in ("up_far.", "up_near."))
        self._down_far = FastLinear(tensors["down_far"].to(dtype))
        self._down_near = _byte_linear(_under("down_near.", tensors), scale=self._scale, zero=self._zero)

    def __call__(self, x: Float[Tensor, "tokens i"]) -> Float[Tensor, "tokens i"]:
        rounded = _rounded_input(x, self._tensors)
        summed = self._down_far.plus(self._up_far(rounded, self._dtype, self._activation), x)
        near = self._up_near(rounded, torch.uint8, self._activation, scale=self._scale, zero=self._zero)
        return self._down_near.plus(near, summed)


def _rounded_input(x: Float[Tensor, "tokens i"], tensors: Tensors) -> UInt8[Tensor, "tokens i"]:
    """Inputs of a map to bytes: ``factor · x + offset`` rounded, 128 for 0."""
    # PyTorch converts to signed bytes ten times as fast as to unsigned ones
    signed = torch.addcmul(tensors["offset"], x.float(), tensors["factor"]).round_().clamp_(-128, 127).to(torch.int8)
    return signed.view(torch.uint8).bitwise_xor_(128)


class ByteLinear:
    """``W x + b`` for a weight and input of bytes, each a whole number times a scale; ``zero`` is the input's for 0."""

    def __init__(
        self, weight: Int8[Tensor, "o i"], weight_scale: Float[Tensor, " o"], bias: Float[Tensor, " o"], *,
        scale: float = 1.0, zero: int = 128,
    ) -> None:
        packed = torch.ops.onednn.qlinear_prepack(weight.contiguous(), [USUAL_ROWS, weight.shape[1]])
        no_zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._input, self._map = (scale, zero), (packed, weight_scale.float(), no_zeros)
        self._bias = bias.float()

    def __call__(
        self, x: UInt8[Tensor, "tokens i"], dtype: torch.dtype, activation: str | None = None, *,
        scale: float = 1.0, zero: int = 0,
    ) -> Tensor:
        """(tokens, o) in ``dtype``; ``scale`` and ``zero`` are those of the result where it is of bytes."""
        name, algorithm = ONEDNN_ACTIVATIONS[activation]
        out: Tensor = torch.ops.onednn.qlinear_pointwise(
            x, *self._input, *self._map, self._bias, scale, zero, dtype, name, [], algorithm)
        return out

    def plus(self, x: UInt8[Tensor, "tokens i"], residual: Float[Tensor, "tokens o"]) -> Float[Tensor, "tokens o"]:
        """``residual + W x + b``, in the residual's place."""
        out: Tensor = torch.ops.onednn.qlinear_pointwise.binary(
            x, *self._input, *self._map, residual, self._bias, 1.0, 0, residual.dtype, 1.0, 0, "sum", 1.0, "none", [],
            "")
        return out


@cache
def has_byte_products() -> bool:
    """Whether oneDNN multiplies bytes here, exactly: older processors add pairs of products in 16 bits, which
    overflow (tried once)."""
    try:
        x, ones = torch.full((2, 64), 255, dtype=torch.uint8), torch.ones(16)
        tried = ByteLinear(torch.full((16, 64), 127, dtype=torch.int8), ones, ones, zero=0)
        out = tried.plus(x, tried(x, torch.float32, "gelu"))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return bool((out == 2 * (64 * 255 * 127 + 1)).all())


def _byte_linear(tensors: Tensors, *, scale: float = 1.0, zero: int = 128) -> ByteLinear:
    return ByteLinear(tensors["weight"], tensors["weight_scale"], tensors["bias"], scale=scale, zero=zero)


def _under(prefix: str, tensors: Tensors) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


# --------------------------------------------------------------------------------------------- preparing
def prepare(encoder: PostNormEncoder, sample: Packed) -> dict[str, Tensor]:
    """What ``with_bytes`` needs, from rows like those that it is for, with some thousand tokens."""
    x, bias = encoder.embed(sample)
    tensors: dict[str, Tensor] = {}
    for number, layer in enumerate(encoder.layers):
        qkv, pair = layer.qkv, layer.feed_forward
        assert isinstance(qkv, FastLinear)
        assert isinstance(pair, FeedForward)
        middle = layer.attended(x, sample, encoder.heads, bias)
        maps = {"qkv": _rounded_map(x, qkv.plain_weight(), qkv.bias), "pair": _prepare_pair(pair, middle)}
        tensors |= {f"{number}.{use}.{name}": tensor.contiguous() for use, made in maps.items()
                    for name, tensor in made.items()}
        x = layer.second_norm(pair(middle))
    return tensors


def _prepare_pair(plain: FeedForward, seen: Float[Tensor, "n i"]) -> dict[str, Tensor]:
    inner = plain.up(seen).float()
    up, down = plain.up.plain_weight(), plain.down.plain_weight()
    # by risk: two of three by their largest value, one by the norm of its weights: it may fire rarely but strongly
    by_value, by_norm = (size.argsort(descending=True).argsort() for size in (inner.amax(0), up.float().norm(dim=1)))
    order = torch.minimum(by_value, 2 * by_norm).argsort(stable=True)
    count = min(-(-len(order) // (32 * _FAR)) * 32, len(order) - 1)  # whole registers
    far, near = order[:count].sort().values, order[count:].sort().values
    rounded = _rounded_map(seen, up, plain.up.bias)
    tensors = {"factor": rounded["factor"], "offset": rounded["offset"], "down_far": down[:, far]}
    for name, rows in (("up_far", far), ("up_near", near)):
        tensors |= {f"{name}.{key}": rounded[key][rows] for key in ("weight", "weight_scale", "bias")}
    inner, least = inner[:, near], _LEAST[str(plain.up.activation)]
    scale = max((_ROOM * inner.max().item() - least) / 255, 1e-8)
    down_near = down[:, near].float()
    weight, weight_scale = _rounded(down_near)
    bias = (down_near - weight * weight_scale[:, None]) @ inner.mean(0)
    bias = bias if plain.down.bias is None else bias + plain.down.bias
    return tensors | {
        "down_near.weight": weight.to(torch.int8), "down_near.weight_scale": weight_scale, "down_near.bias": bias,
        "scale": torch.tensor(scale, dtype=torch.float64), "zero": torch.tensor(round(-least / scale)),
    }


def _rounded_map(
    seen: Float[Tensor, "n i"], weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"] | None
) -> dict[str, Tensor]:
    """How a map's inputs, of which ``seen`` are a sample, become bytes, and the map of those bytes."""
    low, high = seen.float().aminmax(dim=0)
    middle, reach = (low + high) / 2, ((high - low) / 2).clamp_min(1e-5)
    width = reach**_EVENED / weight.float().abs().amax(0).clamp_min(1e-5) ** (1 - _EVENED)
    factor = 127 / ((reach / width).max() * width)
    offset = -middle * factor
    inputs = torch.addcmul(offset, seen.float(), factor)
    wanted = weight.float() / factor
    whole, scale = _rounded(wanted)
    shift = (wanted - whole * scale[:, None]) @ inputs.mean(0) - wanted @ offset
    return {"factor": factor, "offset": offset, "weight": whole.to(torch.int8), "weight_scale": scale,
            "bias": shift if bias is None else shift + bias.float()}


def _rounded(weight: Float[Tensor, "o i"]) -> tuple[Float[Tensor, "o i"], Float[Tensor, " o"]]:
    """Whole numbers −127 … 127 and a scale for every output."""
    scale = (weight.abs().amax(1) / 127).clamp_min(1e-12)
    return (weight / scale[:, None]).round(), scale
