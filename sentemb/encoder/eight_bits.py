"""Whether some work runs in eight bits: prepared on a sample of its rows, compared on others."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray

from sentemb.encoder.fast import PostNormEncoder, pack
from sentemb.encoder.fast.int8 import has_int8, int8_form
from sentemb.encoder.inference import FastInference, Inference
from sentemb.types import TokenColumn

# mean cosine that the embeddings must keep to those without eight bits. bfloat16 costs another 0.00004 to 0.00005, and
# a mean over a sample is uncertain by 0.00003: so 0.9995 is kept to float32
LEAST_COSINE = 0.99955
_PREPARED = 2048  # tokens to prepare on
_COMPARED = 1536  # tokens to compare on


class Int8Inference(FastInference):
    """Packed rows through a lean form of eight bits."""


def in_eight_bits(run: Inference, column: TokenColumn, prompt_tokens: int, *, is_asked: bool = False) -> Inference:
    """``run`` in eight bits; as it is where that is not built or would keep too little.

    What comes out depends on the model and ``column`` alone, never on earlier work. First everything that can be
    rounded is, then the feed-forward maps alone.

    Args:
        is_asked: warn where ``run`` goes on as it is.
    """
    why = _try(run, column, prompt_tokens)
    if not isinstance(why, str):
        return why
    if is_asked:
        warnings.warn(f"eight bits are not used: {why}", stacklevel=2)
    return run


def _try(run: Inference, column: TokenColumn, prompt_tokens: int) -> Int8Inference | str:
    """``run`` in eight bits, or why not."""
    if not isinstance(run, FastInference) or not isinstance(run.fast, PostNormEncoder):
        return "no form of eight bits is built for this architecture"
    if run.fast.home.type != "cpu" or not has_int8():
        return "there are no exact products of bytes here"
    if len(column) < 2:
        return "one text alone cannot be prepared on and compared"
    prepared, compared = _samples(column)
    plain = F.normalize(run(compared, prompt_tokens).float(), dim=-1)
    cosine = 0.0
    try:
        for form in _forms(run.fast, prepared):
            rounded = Int8Inference(form, run.pooling, run.device)
            found = F.normalize(rounded(compared, prompt_tokens).float(), dim=-1)
            cosine = (found * plain).sum(-1).mean().item()
            if cosine >= LEAST_COSINE:
                return rounded
    except RuntimeError as error:  # values that are not finite, for one
        return str(error).splitlines()[0]
    return f"on a sample of these texts their mean cosine is {cosine:.5f}, less than {LEAST_COSINE}"


def _forms(fast: PostNormEncoder, prepared: TokenColumn) -> Iterator[PostNormEncoder]:
    rounded = int8_form(fast, pack(prepared))
    yield rounded
    pairs = zip(fast.layers, rounded.layers, strict=True)
    yield fast.with_layers([replace(plain, feed_forward=layer.feed_forward) for plain, layer in pairs])


def _samples(column: TokenColumn) -> tuple[TokenColumn, TokenColumn]:
    """Rows to prepare on and others to compare on, evenly over the lengths, longest first."""
    order = np.argsort(-column.lengths, kind="stable")
    turns = np.arange(len(order)) % 2
    return (column.take(_evenly(order[turns == 0], column, _PREPARED)),
            column.take(_evenly(order[turns == 1], column, _COMPARED)))


def _evenly(rows: NDArray[np.int64], column: TokenColumn, tokens: int) -> NDArray[np.int64]:
    lengths = column.lengths[rows]
    count = min(max(round(tokens / lengths.mean()), 2), len(rows))
    return rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)]
