"""How much memory a step will take at its peak, coarsely, from the checkpoint's files alone; and which chunk size fits.

    peak = parameters · (4 weights + 4 gradients + 8 moments) + frozen copies
         + texts at a time · tokens · layers · bytes a token and layer          (what backward needs)
         + rows · d and n · m of the score table                                (never chunked)
         + what large parts say of themselves (``Component.footprint``)         (never chunked)

A token leaves what it leaves in a BERT layer with dropout (measured with ``saved_tensors_hooks``): ``4 (10 h + 2 i) +
12 a t`` bytes in float32 (h hidden, i intermediate, a heads, t tokens; the last part only on CPUs, where attention with
dropout has no fused kernel). Other architectures differ by tens of percent.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from sentemb.errors import ModelError
from sentemb.machine import resources
from sentemb.training.device import resolve_precision
from sentemb.training.settings import TrainSettings
from sentemb.types import Footprint

_NO_PARTS = Footprint()
_PYTHON_BYTES = 500 * 2**20  # interpreter, torch, tokenizer
_USABLE = 0.8  # of what is free


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

    def text_bytes(self, train: TrainSettings) -> float:
        """What a text of ``longest`` tokens leaves for backward."""
        per_value = 4.0 if resolve_precision(train.precision) == "fp32" else 2.6
        layer = per_value * (10 * self.hidden + 2 * self.intermediate)
        if not torch.cuda.is_available():
            layer += 12.0 * self.heads * self.longest
        if train.gradient_checkpointing:  # every layer's input, and one layer at a time in full
            return self.longest * (4.0 * self.hidden * self.layers + layer)
        return self.longest * self.layers * layer


def read_shape(folder: Path, max_tokens: int | None) -> BackboneShape:
    """The shape of the checkpoint in ``folder``, from ``config.json`` and the weights' headers.

    Raises:
        ModelError: the configuration does not say how wide and deep the model is.
    """
    from safetensors import safe_open

    from sentemb.encoder.backbone import read_config, weight_files

    config = read_config(folder)

    def number(*names: str) -> int:
        for name in names:
            if isinstance(config.get(name), int):
                return int(config[name])
        raise ModelError(f"{folder / 'config.json'}: has none of {', '.join(names)}; the memory cannot be estimated")

    longest, parameters = number("max_position_embeddings", "n_positions"), 0
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            parameters += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return BackboneShape(
        parameters=parameters, hidden=number("hidden_size", "dim", "d_model"),
        layers=number("num_hidden_layers", "n_layers"), intermediate=number("intermediate_size", "hidden_dim", "d_ff"),
        heads=number("num_attention_heads", "n_heads"), longest=min(longest, max_tokens or longest),
        vocabulary=number("vocab_size"),
    )


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


def estimate(
    shape: BackboneShape, train: TrainSettings, *, views: int, candidates: int, parameter_bytes: int,
    available: float | None, parts: Footprint = _NO_PARTS,
) -> tuple[bool, str]:
    """Whether a step on one device fits into ``available`` bytes, and a sentence that says what to set if not.

    ``views`` are texts encoded and ``candidates`` columns of the score table for an example; ``parameter_bytes`` are
    weight, gradient, moments and companions' copies for each parameter of the backbone; ``parts`` is what the other
    parts take together.
    """
    rows = train.batch_size * views
    texts = min(rows, train.chunk_size or rows)
    large = parts.parameters * 16 + parts.activation_bytes  # weight, gradient and AdamW's two moments
    fixed, a_text = float(shape.parameters) * parameter_bytes + _PYTHON_BYTES + large, shape.text_bytes(train)
    # rows: pooled, gathered, projected, normalised, and their gradients; table: similarities, weights, logits, softmax
    tables = 4.0 * (8 * rows * shape.hidden + 10 * train.batch_size**2 * candidates)

    def fits(texts: int) -> bool:
        return available is None or fixed + texts * a_text + tables <= _USABLE * available

    sentence = (
        f"peak memory of about {_gib(fixed + texts * a_text + tables)} (models and optimiser {_gib(fixed - large)}, "
        + (f"decoders and heads of terms {_gib(large)}, " if large else "") +
        f"activations of {texts} texts of {shape.longest} tokens {_gib(texts * a_text)}, score tables {_gib(tables)})"
    )
    sentence += "" if available is None else f"; {_gib(available)} are free"
    if fits(texts):
        return True, sentence
    chunk_size = next((2**power for power in range(texts.bit_length(), -1, -1) if fits(2**power)), None)
    if chunk_size is None:
        advice = "does not fit, not even with train.chunk_size = 1; use a smaller backbone or batch"
    else:
        advice = f"set train.chunk_size = {chunk_size} (same gradients), or lower train.batch_size"
    return False, f"{sentence}: {advice}"


def free_memory() -> int | None:
    """Free bytes of the device that would train; None where the system does not say."""
    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else resources.free_memory()


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.0f} MiB"
