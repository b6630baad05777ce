"""How much memory a step will take at its peak, coarsely, from the checkpoint's files alone; and which chunk size fits.

    peak = parameters · (4 weights + 4 gradients + 8 moments) + frozen copies     (2 or 4 for weights that stand still)
         + parameters of adapters · 16
         + texts at a time · tokens · layers · bytes a token and layer          (what backward needs)
         + rows · d and n · m of the score table                                (never chunked)
         + what large parts say of themselves (``Component.footprint``)         (never chunked)

A token leaves what it leaves in a BERT layer with dropout (measured with ``saved_tensors_hooks``): ``4 (10 h + 2 i) +
12 a t`` bytes in float32 (h hidden, i intermediate, a heads, t tokens; the last part only on CPUs, where attention with
dropout has no fused kernel). Other architectures differ by tens of percent.

Decoders of Llama's form (Qwen, Mistral, …: gated, with norms by the root mean square and attention without dropout)
have a count of their own, measured likewise: v bytes a value (2 where they compute in bfloat16, else 4), q and k the
widths of queries and keys:

    8 h (inputs of the norms, in float32) + 4 (q + k) (of those inside attention) + v (4 q + 3 i)
    + v (2 h + q + i) where the weights learn, or a · adapted inputs (a copy for every adapter: 2 bytes a value in a
    bf16 run, else 4; of weights and values in float32 no copy)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch

from sentemb.encoder import four_bits
from sentemb.encoder.adapters import Adapter, linear_layers
from sentemb.errors import ModelError
from sentemb.machine import resources
from sentemb.machine.precision import WeightFormat
from sentemb.training.device import resolve_precision
from sentemb.training.settings import TrainSettings
from sentemb.types import Footprint

_NO_PARTS = Footprint()
_LEARNING = 16  # bytes of a parameter that learns: weight, gradient and AdamW's two moments, in float32
_PYTHON_BYTES = 500 * 2**20  # interpreter, torch, tokenizer
# what a decoder's step takes on a CPU for each byte that it keeps for backward: gradients under way, and holes between
# freed tensors; random models of 30, 100 and 300 million parameters took 1.27, 1.50 and 1.39
_UNDER_WAY = 1.4
_USABLE = 0.8  # of what is free


@dataclass(frozen=True, kw_only=True)
class WeightsInMemory:
    """How a backbone's weights lie in memory, and what learns beside them."""

    bytes: float = 4.0  # a weight, on average
    is_still: bool = False  # they do not learn
    copies: int = 0  # bytes of companions' copies for each weight
    adapter_parameters: int = 0
    adapted_inputs: int = 0  # values a token that go into layers with an adapter

    @classmethod
    def of(cls, shape: BackboneShape, adapters: Sequence[Adapter], **facts: Any) -> WeightsInMemory:
        """With what adapters put into a backbone of this shape."""
        layers = [size for adapter in adapters for size in adapter.layers_in(shape.matrices)]
        return cls(adapter_parameters=sum(adapter.parameters_in(shape.matrices) for adapter in adapters),
                   adapted_inputs=sum(inputs for _, inputs in layers), **facts)


_FLOAT32 = WeightsInMemory()


@dataclass(frozen=True, kw_only=True)
class BackboneShape:
    """What decides a backbone's memory."""

    parameters: int
    hidden: int
    layers: int
    intermediate: int
    heads: int
    longest: int  # tokens of the longest text that it reads
    vocabulary: int = 0
    is_gated: bool = False  # a decoder of Llama's form
    queries: int = 0  # width of all heads' queries, of a gated one
    keys: int = 0
    matrices: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # name -> (outputs, inputs)

    def weight_bytes(self, form: WeightFormat) -> float:
        """Of a weight in memory, on average."""
        if form != "nf4":
            return {"fp32": 4.0, "bf16": 2.0}[form]
        rounded = sum(map(prod, linear_layers(self.matrices).values()))
        return 2.0 - (2.0 - four_bits.BYTES) * rounded / self.parameters

    def text_bytes(self, train: TrainSettings, weights: WeightsInMemory = _FLOAT32) -> float:
        """What a text of ``longest`` tokens leaves for backward."""
        is_half = resolve_precision(train.precision) != "fp32"
        layer = self._gated_bytes(weights, is_half=is_half) if self.is_gated else self._bert_bytes(is_half=is_half)
        if train.gradient_checkpointing:  # every layer's input, and one layer at a time in full
            return self.longest * (4.0 * self.hidden * self.layers + layer)
        return self.longest * self.layers * layer

    def _bert_bytes(self, *, is_half: bool) -> float:
        layer = (2.6 if is_half else 4.0) * (10 * self.hidden + 2 * self.intermediate)
        return layer if torch.cuda.is_available() else layer + 12.0 * self.heads * self.longest

    def _gated_bytes(self, weights: WeightsInMemory, *, is_half: bool) -> float:
        value = 2.0 if is_half or weights.bytes <= 2 else 4.0
        layer = 8.0 * self.hidden + 4.0 * (self.queries + self.keys)
        layer += value * (4 * self.queries + 3 * self.intermediate)
        inputs = 2 * self.hidden + self.queries + self.intermediate  # of all maps, those of one input counted once
        adapted = weights.adapted_inputs / max(self.layers, 1)
        if not weights.is_still:
            layer += value * inputs
        elif value == 4.0:  # an adapter reads the input itself; else a copy of its own
            layer += value * min(inputs, adapted)
        else:
            layer += (2.0 if is_half else 4.0) * adapted
        return layer


def read_shape(folder: Path, max_tokens: int | None) -> BackboneShape:
    """The shape of the checkpoint in ``folder``, from ``config.json`` and the weights' headers, or, where there are no
    weights, from a model without memory that transformers makes of the configuration.

    Raises:
        ModelError: the configuration does not say how wide and deep the model is.
    """
    from sentemb.encoder.backbone import read_config

    config = read_config(folder)

    def number(*names: str) -> int:
        for name in names:
            if isinstance(config.get(name), int):
                return int(config[name])
        raise ModelError(f"{folder / 'config.json'}: has none of {', '.join(names)}; the memory cannot be estimated")

    longest, hidden = number("max_position_embeddings", "n_positions"), number("hidden_size", "dim", "d_model")
    heads, is_gated = number("num_attention_heads", "n_heads"), "rms_norm_eps" in config
    head = (config.get("head_dim") or hidden // heads) if is_gated else 0
    shapes = _weights_in(folder) if any(folder.glob("*.safetensors")) else _weights_of(folder)
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith("lm_head.")}  # is not loaded
    return BackboneShape(
        parameters=sum(map(prod, shapes.values())), hidden=hidden,
        layers=number("num_hidden_layers", "n_layers"), intermediate=number("intermediate_size", "hidden_dim", "d_ff"),
        heads=heads, longest=min(longest, max_tokens or longest), vocabulary=number("vocab_size"), is_gated=is_gated,
        queries=heads * head, keys=int(config.get("num_key_value_heads") or heads) * head,
        matrices={name: (shape[0], shape[1]) for name, shape in shapes.items() if len(shape) == 2},
    )


def _weights_in(folder: Path) -> dict[str, Sequence[int]]:
    from safetensors import safe_open

    from sentemb.encoder.backbone import weight_files

    shapes: dict[str, Sequence[int]] = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            shapes |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    return shapes


def _weights_of(folder: Path) -> dict[str, Sequence[int]]:
    from transformers import AutoConfig, AutoModel

    from sentemb.encoder.backbone import refused

    with refused(folder), torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.from_pretrained(folder))
    return {name: tuple(value.shape) for name, value in model.named_parameters()}


def read_static_shape(folder: Path, max_tokens: int | None) -> BackboneShape:
    """The shape of a static model's table in ``folder``, from its header."""
    from safetensors import safe_open

    from sentemb.encoder.backbone import refused, weight_files

    path = weight_files(folder)[0]
    with refused(path), safe_open(path, framework="pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    rows, width = max((shape for shape in shapes if len(shape) == 2), key=prod, default=(0, 0))
    return BackboneShape(
        parameters=rows * width, hidden=width, layers=0, intermediate=0, heads=0, longest=max_tokens or 512
    )


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Bytes of a step on one device."""

    models: float  # weights, gradients, moments, and Python itself
    parts: float  # decoders and heads of terms
    a_text: float  # activations of a text
    texts: int  # encoded at a time
    tables: float
    longest: int  # tokens of a text

    def peak(self, texts: int | None = None) -> float:
        """With so many texts at a time; None: as set."""
        return self.models + self.parts + (self.texts if texts is None else texts) * self.a_text + self.tables

    def advice(self, available: float | None) -> tuple[bool, str]:
        """Whether it fits into ``available`` bytes, and a sentence that says what to set if not."""
        sentence = (
            f"peak memory of about {_gib(self.peak())} (models and optimiser {_gib(self.models)}, "
            + (f"decoders and heads of terms {_gib(self.parts)}, " if self.parts else "") +
            f"activations of {self.texts} text{'s' * (self.texts != 1)} of {self.longest} tokens "
            f"{_gib(self.texts * self.a_text)}, score tables {_gib(self.tables)})"
        )
        if available is None:
            return True, sentence
        sentence += f"; {_gib(available)} are free"
        sizes = [self.texts, *(2**power for power in range(self.texts.bit_length(), -1, -1))]
        fitting = next((size for size in sizes if self.peak(size) <= _USABLE * available), None)
        if fitting == self.texts:
            return True, sentence
        if fitting is None:
            advice = ("that does not fit with a fifth kept in reserve, not even with train.chunk_size = 1; use a "
                      "smaller backbone or batch, or adapters on fewer bits (encoder.weights)")
        else:
            advice = f"set train.chunk_size = {fitting} (same gradients), or lower train.batch_size"
        return False, f"{sentence}: {advice}"


def forecast(
    shape: BackboneShape, train: TrainSettings, *, views: int, candidates: int, weights: WeightsInMemory = _FLOAT32,
    parts: Footprint = _NO_PARTS,
) -> Forecast:
    """``views`` are texts encoded and ``candidates`` columns of the score table for an example; ``parts`` is what the
    other parts take together."""
    rows, a_text = train.batch_size * views, shape.text_bytes(train, weights)
    if shape.is_gated and not torch.cuda.is_available():
        a_text *= _UNDER_WAY
    a_weight = weights.copies + (weights.bytes if weights.is_still else _LEARNING)
    return Forecast(
        models=float(shape.parameters) * a_weight + weights.adapter_parameters * _LEARNING + _PYTHON_BYTES,
        parts=parts.parameters * _LEARNING + parts.activation_bytes,
        a_text=a_text, texts=min(rows, train.chunk_size or rows),
        # rows: pooled, gathered, projected, normalised, and their gradients; table: similarities, weights, logits,
        # softmax
        tables=4.0 * (8 * rows * shape.hidden + 10 * train.batch_size**2 * candidates), longest=shape.longest,
    )


def free_memory() -> int | None:
    """Free bytes of the device that would train; None where the system does not say."""
    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else resources.free_memory()


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.0f} MiB"
