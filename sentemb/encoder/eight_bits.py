"""How much of some work runs in eight bits: prepared on a sample of its rows, compared on others."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from weakref import WeakSet

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray

from sentemb.encoder.batching import length_order
from sentemb.encoder.fast import PostNormEncoder, pack
from sentemb.encoder.fast.int8 import int8_form
from sentemb.encoder.inference import FastInference, Inference
from sentemb.machine.rates import has_int8
from sentemb.types import TokenColumn

# mean cosine that the embeddings must keep to those without eight bits. bfloat16 costs another 0.00004 to 0.00005, and
# a mean over a sample is uncertain by 0.00003: so 0.9995 is kept to float32
LEAST_COSINE = 0.99955
_CAREFUL = 0.9  # of what may change is planned with where only some maps can be rounded
_LEAST_PAIRS = 1 / 2  # of the layers; fewer save less than preparing costs
_PREPARED = 2048  # tokens to prepare on
_COMPARED = 1536  # tokens to compare on


_refused: WeakSet[PostNormEncoder] = WeakSet()  # they go with their weights


class Int8Inference(FastInference):
    """Packed rows through a lean form of eight bits."""


def in_eight_bits(run: Inference, column: TokenColumn, prompt_tokens: int, *, is_asked: bool = False) -> Inference:
    """``run`` with as many maps of eight bits as keep the embeddings; as it is where those are too few to pay.

    What comes out depends on the model and ``column`` alone, not on earlier work; except that a model of which too
    little could be rounded once is not tried again, unless that is asked for.

    Args:
        is_asked: warn where ``run`` goes on as it is.
    """
    if not isinstance(run, FastInference) or not isinstance(run.fast, PostNormEncoder):
        why = "no form of eight bits is built for this architecture"
    elif run.fast.home.type != "cpu" or not has_int8():
        why = "there are no exact products of bytes here"
    elif len(column) < 2:
        why = "one text alone cannot be prepared on and compared"
    elif run.fast in _refused and not is_asked:
        return run
    else:
        found = _prepare(run, run.fast, column, prompt_tokens)
        if isinstance(found, Int8Inference):
            return found
        _refused.add(run.fast)
        why = found
    if is_asked:
        warnings.warn(f"eight bits are not used: {why}", stacklevel=2)
    return run


def _prepare(
    run: FastInference, fast: PostNormEncoder, column: TokenColumn, prompt_tokens: int
) -> Int8Inference | str:
    """``run``, whose form is ``fast``, in eight bits, or why not."""
    prepared, compared = _samples(column)
    plain = F.normalize(run(compared, prompt_tokens).float(), dim=-1)

    def ready(form: PostNormEncoder) -> Int8Inference:
        return Int8Inference(form, run.pooling, run.device)

    def change(form: PostNormEncoder) -> float:
        found = F.normalize(ready(form)(compared, prompt_tokens).float(), dim=-1)
        return 1 - (found * plain).sum(-1).mean().item()

    try:
        found = _within(fast, int8_form(fast, pack(prepared)), change)
    except RuntimeError as error:  # values that are not finite, for one
        return str(error).splitlines()[0]
    return ready(found) if isinstance(found, PostNormEncoder) else (
        f"on a sample of these texts the mean cosine is {1 - found:.5f}, less than {LEAST_COSINE}")


def _within(
    plain: PostNormEncoder, rounded: PostNormEncoder, change: Callable[[PostNormEncoder], float]
) -> PostNormEncoder | float:
    """As many rounded maps as change the embeddings little enough; where those are few, what all of them change.

    Layers change the embeddings about equally, and their changes add up. The feed-forward pairs come first: they save
    more time for the same change.
    """
    layers, least = len(plain.layers), 1 - LEAST_COSINE

    def mixed(pairs: int, qkvs: int) -> PostNormEncoder:
        """The last layers' maps rounded."""
        return plain.with_layers([
            replace(old, feed_forward=new.feed_forward if layers - place <= pairs else old.feed_forward,
                    qkv=new.qkv if layers - place <= qkvs else old.qkv)
            for place, (old, new) in enumerate(zip(plain.layers, rounded.layers, strict=True))
        ])

    every = change(rounded)
    if every <= least:
        return rounded
    of_pairs = change(mixed(layers, 0))
    room = _CAREFUL * least
    if of_pairs <= room < every:
        pairs, qkvs = layers, int(layers * (room - of_pairs) / (every - of_pairs))
    else:
        pairs, qkvs = int(layers * min(room / of_pairs, 1)) if of_pairs > 0 else 0, 0  # 0 where it is not finite
    if pairs < _LEAST_PAIRS * layers:
        return every
    found = mixed(pairs, qkvs)
    return found if change(found) <= least else every


def _samples(column: TokenColumn) -> tuple[TokenColumn, TokenColumn]:
    """Rows to prepare on and others to compare on, evenly over the lengths, longest first."""
    order = length_order(column.lengths)
    turns = np.arange(len(order)) % 2
    return (column.take(_evenly(order[turns == 0], column, _PREPARED)),
            column.take(_evenly(order[turns == 1], column, _COMPARED)))


def _evenly(rows: NDArray[np.int64], column: TokenColumn, tokens: int) -> NDArray[np.int64]:
    lengths = column.lengths[rows]
    count = min(max(round(tokens / lengths.mean()), 2), len(rows))
    return rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)]
