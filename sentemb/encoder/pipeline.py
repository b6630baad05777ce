"""Token ids to embeddings: length order, token-budget batches, preallocated output in the original order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sentemb.encoder.batching import budget_batches, length_order
from sentemb.encoder.budget import Budget, budget_for
from sentemb.encoder.eight_bits import in_eight_bits
from sentemb.encoder.inference import inference_for
from sentemb.encoder.module import EncoderModule
from sentemb.errors import ModelError
from sentemb.machine.allocation import keep_freed_memory
from sentemb.machine.precision import Int8Use
from sentemb.progress import Progress, is_quiet
from sentemb.types import TokenColumn

# texts that are tokenised ahead while the ones before are computed
WINDOW = 32_768
# tokens in a window below which compiling (10 to 40 seconds) is not begun even where it was asked for
COMPILED_FROM = 200_000
# tokens in a window from which eight bits are worth preparing (which takes as long as some 12,000 tokens)
INT8_FROM = 100_000


@dataclass(frozen=True)
class EncodeOptions:
    """How token ids become embeddings.

    Attributes:
        pad_id: fills short rows, where rows are padded at all.
        dtype: of weights and activations; heads and what follows run in float32.
        normalise: to unit length.
        budget: tokens a batch; None takes what is fastest here (see ``encoder.budget``).
        dim: leading dimensions to keep (before normalising); None keeps all.
        prompt_tokens: leading tokens of every row that belong to a prompt.
        compile: run long work through torch.compile, where there is no lean form.
        int8: run long work in eight bits, where that keeps the embeddings (see ``encoder.eight_bits``).
    """

    pad_id: int
    dtype: torch.dtype = torch.float32
    normalise: bool = True
    budget: int | None = None
    dim: int | None = None
    prompt_tokens: int = 0
    compile: bool = False
    int8: Int8Use = "off"


def embed_column(
    module: EncoderModule,
    column: TokenColumn,
    options: EncodeOptions,
    *,
    bar: Progress | None = None,
    out: NDArray[np.float32] | None = None,
    rows: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Exported embeddings of every row, (rows, d) float32, by the module in evaluation mode, without gradient.

    Args:
        bar: advanced by the rows of every batch.
        out: where to write; allocated when None.
        rows: row of ``out`` for every row of ``column``; the same row when None.
    """
    device = next(module.parameters()).device
    width = options.dim or module.exported_width
    if out is None:
        out = np.empty((len(column), width), dtype=np.float32)
    if not len(column):
        return out
    order = length_order(column.lengths)
    lengths = column.lengths[order]
    delivery = _Delivery(out)
    if device.type == "cpu":
        keep_freed_memory()
    with torch.inference_mode(), _evaluating(module), torch.autocast(device.type, enabled=False):
        infer = inference_for(module, options.dtype, options.pad_id, column,
                              compiled=options.compile and len(column.flat) >= COMPILED_FROM)
        if options.int8 != "off" and len(column.flat) >= INT8_FROM:
            infer = in_eight_bits(infer, column, options.prompt_tokens, is_asked=options.int8 == "on")
        budget = (Budget((options.budget,)) if options.budget is not None
                  else budget_for(module.backbone, options.dtype, device, type(infer).__name__))
        for begin, end in budget_batches(lengths, budget):
            batch = order[begin:end]
            taken = column.take(batch)
            with budget.timing(len(taken.flat), device):
                pooled = infer(taken, options.prompt_tokens).float()
                embedding = finish(module.project(pooled, exported=True), width, options.normalise)
            delivery.put(batch if rows is None else rows[batch], embedding)
            if bar is not None:
                bar.advance(len(batch))
        delivery.close()
    return out


def embed_texts(
    module: EncoderModule,
    texts: Sequence[str],
    tokenise: Callable[[Sequence[str]], TokenColumn],
    options: EncodeOptions,
    *,
    bar: Progress,
) -> NDArray[np.float32]:
    """Exported embeddings (texts, d) float32; equal texts are tokenised and computed once.

    Raises:
        ModelError: an entry is no string.
    """
    unique, first, like = distinct_texts(texts)
    out = np.empty((len(texts), options.dim or module.exported_width), dtype=np.float32)
    for start, column in tokenise_ahead(unique, tokenise):
        embed_column(module, column, options, bar=bar, out=out, rows=first[start : start + len(column)])
    again = np.flatnonzero(first[like] != np.arange(len(texts)))
    out[again] = out[first[like[again]]]
    bar.advance(len(again))
    return out


def finish(embedding: Tensor, width: int, normalise: bool) -> Tensor:
    """Cut to ``width``, to unit length where asked."""
    embedding = embedding[:, :width]
    return nn.functional.normalize(embedding, dim=-1) if normalise else embedding


def tokenise_ahead(
    texts: Sequence[str], tokenise: Callable[[Sequence[str]], TokenColumn], window: int = WINDOW
) -> Iterator[tuple[int, TokenColumn]]:
    """Token columns of ``texts`` window by window, each with its first row; the next is made in a thread of its own
    while the caller works on this one (the tokenizers library releases the interpreter)."""
    if len(texts) <= window:
        yield 0, tokenise(texts)
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenise") as pool:
        starts = range(0, len(texts), window)
        ahead = pool.submit(tokenise, texts[:window])
        for start in starts:
            column = ahead.result()
            if start + window < len(texts):
                ahead = pool.submit(tokenise, texts[start + window : start + 2 * window])
            yield start, column


class _Delivery:
    """Writes batches into the output; from a GPU one batch late, so that copying overlaps with computing."""

    def __init__(self, out: NDArray[np.float32]) -> None:
        self._out = out
        self._pending: tuple[NDArray[np.int64], Tensor, torch.cuda.Event] | None = None

    def put(self, rows: NDArray[np.int64], values: Tensor) -> None:
        if values.device.type != "cuda":
            self._out[rows] = values.cpu().numpy()
            return
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self.close()
        self._pending = rows, host, event

    def close(self) -> None:
        if self._pending is not None:
            rows, host, event = self._pending
            event.synchronize()
            self._out[rows] = host.numpy()
            self._pending = None


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while, every submodule's own mode restored."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def progress_bar(progress: bool | Progress | None, total: int) -> Iterator[Progress]:
    """The caller's bar, or one of our own; None shows it for more than 10,000 texts."""
    if isinstance(progress, Progress):
        yield progress
        return
    is_shown = total > 10_000 if progress is None else progress
    with Progress("encoding", total=total, unit="texts", enabled=is_shown and not is_quiet()) as bar:
        yield bar


def distinct_texts(texts: Sequence[str]) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """The different texts, the row where each first stands, and for every text its place among them."""
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ModelError(f"text {row} is {type(text).__name__}, not a string")
    place: dict[str, int] = {}
    like = np.fromiter((place.setdefault(text, len(place)) for text in texts), dtype=np.int64, count=len(texts))
    first = np.empty(len(place), dtype=np.int64)
    # written backwards, so the first of equal texts stays
    first[like[::-1]] = np.arange(len(texts))[::-1]
    return list(place), first, like
