"""How much memory a run will take at its peak, from the checkpoint's configuration alone; and which chunk size fits.

    peak = parameters · (4 weights + 4 gradients + 8 moments) + frozen copies
         + texts at a time · tokens · layers · bytes a token and layer          (what backward needs)
         + rows · d and n · m of the score table                                (never chunked)

The bytes a token leaves in a layer are those of a BERT layer with dropout, measured with ``saved_tensors_hooks``:
``4 (10 h + 2 i) + 12 a t`` in float32 (h hidden, i intermediate, a heads, t tokens; the last part only where attention
with dropout has no fused kernel, as on CPUs). Other architectures differ by tens of percent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from sentemb.errors import ModelError
from sentemb.machine import resources
from sentemb.training.device import resolve_precision
from sentemb.training.settings import TrainSettings

# bytes a parameter: weight, gradient, two moments
TRAINED_BYTES = 16
PYTHON_BYTES = 500 * 2**20  # interpreter, torch, tokenizer
USABLE = 0.8  # of what is free


@dataclass(frozen=True, kw_only=True)
class BackboneShape:
    """What decides a backbone's memory."""

    parameters: int
    hidden: int
    layers: int
    intermediate: int
    heads: int
    longest: int  # tokens of the longest text that it reads

    def activation_bytes(self, texts: int, tokens: int, precision: str, *, on_gpu: bool, recompute: bool) -> float:
        """What ``texts`` texts of ``tokens`` tokens leave for backward."""
        width = 10 * self.hidden + 2 * self.intermediate
        per_layer = (4.0 if precision == "fp32" else 2.6) * width
        if not on_gpu:
            per_layer += 12.0 * self.heads * tokens
        layers: float = self.layers
        if recompute:  # a layer's input each, and one layer at a time in full
            return texts * tokens * (4.0 * self.hidden * self.layers + per_layer)
        return texts * tokens * layers * per_layer


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes at the peak of a step on one device."""

    fixed: float  # weights, gradients, moments, frozen models
    activations: float
    tables: float  # embeddings and score tables of the whole batch
    available: float | None
    chunk_size: int | None  # the largest that fits, where the batch as it is does not
    texts: int  # encoded at a time
    tokens: int

    @property
    def total(self) -> float:
        """Everything."""
        return self.fixed + self.activations + self.tables

    @property
    def fits(self) -> bool:
        """Whether it stays well below what is free (or nobody knows)."""
        return self.available is None or self.total <= USABLE * self.available

    def sentence(self) -> str:
        """For ``sentemb check``."""
        free = "" if self.available is None else f"; {_gib(self.available)} are free"
        line = (
            f"peak memory of about {_gib(self.total)} (models and optimiser {_gib(self.fixed)}, activations of "
            f"{self.texts} texts of {self.tokens} tokens {_gib(self.activations)}, score tables "
            f"{_gib(self.tables)}){free}"
        )
        if self.fits:
            return line
        if self.chunk_size is None:
            return f"{line}: does not fit, not even with train.chunk_size = 1; use a smaller backbone or batch"
        return f"{line}: set train.chunk_size = {self.chunk_size} (same gradients), or lower train.batch_size"


def read_shape(folder: Path, max_tokens: int | None) -> BackboneShape:
    """The shape of the checkpoint in ``folder``, from ``config.json`` and the weights' headers.

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

    hidden = number("hidden_size", "dim", "d_model")
    longest = number("max_position_embeddings", "n_positions")
    heads = number("num_attention_heads", "n_heads")
    return BackboneShape(
        parameters=_parameters(folder), hidden=hidden, layers=number("num_hidden_layers", "n_layers"),
        intermediate=number("intermediate_size", "hidden_dim", "d_ff"), heads=heads,
        longest=min(longest, max_tokens or longest),
    )


def estimate(
    shape: BackboneShape,
    train: TrainSettings,
    *,
    views: int,
    candidates: int,
    companion_bytes: int = 0,
    frozen: bool = False,
    available: float | None = None,
    on_gpu: bool = False,
) -> Estimate:
    """The peak of one device that trains alone.

    Args:
        shape: of the backbone.
        train: batch and chunk sizes, precision, and what is recomputed.
        views: texts encoded for an example.
        candidates: columns of the score table for an example.
        companion_bytes: of all companions together, for each parameter of the backbone.
        frozen: whether the backbone does not learn.
        available: free bytes.
        on_gpu: attention with dropout has a fused kernel there.
    """
    per_parameter = 4 if frozen else TRAINED_BYTES
    fixed = float(shape.parameters) * (per_parameter + companion_bytes)
    if not on_gpu:
        fixed += PYTHON_BYTES

    def activations(texts: int) -> float:
        recompute, precision = train.gradient_checkpointing, resolve_precision(train.precision)
        return shape.activation_bytes(texts, shape.longest, precision, on_gpu=on_gpu, recompute=recompute)

    rows = texts = train.batch_size * views
    if train.chunk_size is not None:
        texts = min(texts, train.chunk_size)
    if train.chunk_tokens is not None:
        texts = min(texts, max(1, train.chunk_tokens // shape.longest))
    # rows: pooled, gathered, projected, normalised, and their gradients; table: similarities, weights, logits, softmax
    tables = 4.0 * (8 * rows * shape.hidden + 10 * train.batch_size**2 * candidates)
    proposal = None
    if available is not None:
        room = USABLE * available - fixed - tables
        proposal = next((size for size in _sizes(rows) if activations(size) <= room), None)
    graphs = train.kept_graphs_mib * 2**20 if texts < rows else 0.0
    return Estimate(
        fixed=fixed, activations=activations(texts) + graphs, tables=tables, available=available, chunk_size=proposal,
        texts=texts, tokens=shape.longest,
    )


def free_memory() -> tuple[int | None, bool]:
    """Free bytes of the device that would train, and whether it is a GPU; None where the system does not say."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0]), True
    return resources.free_memory(), False


def _sizes(rows: int) -> list[int]:
    """Powers of two below ``rows``, the largest first."""
    return [2**power for power in range(max(rows - 1, 1).bit_length() - 1, -1, -1)]


def _parameters(folder: Path) -> int:
    from math import prod

    from safetensors import safe_open

    from sentemb.encoder.backbone import refused, weight_files

    total = 0
    for path in weight_files(folder):
        with refused(path), safe_open(path, framework="pt") as file:
            total += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.0f} MiB"
