"""Encoding, step by step from top to bottom.

    texts ─► distinct texts ─► token ids ─► longest first ─► batches of at most ``batch_tokens`` tokens
          ─► runner (token ids to pooled vectors) ─► heads ─► cut to ``dim`` ─► unit length ─► original order

The other texts of a call decide which rows share a batch, which changes a vector by rounding at most.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sentemb.data.templates import Template, empty_rows
from sentemb.data.tokens import distinct
from sentemb.encoder.backbone import evaluating, position_limit
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.runners.choose import Runner
from sentemb.encoder.tokeniser import Tokeniser
from sentemb.errors import ModelError, OutOfMemory, first_line
from sentemb.machine.resources import is_out_of_memory, keep_freed_memory
from sentemb.progress import Progress
from sentemb.types import Frame, TokenColumn, Vectors, Vocabulary

_log = logging.getLogger("sentemb")

# padded tokens a batch: on a CPU few enough that a layer's values stay in the cache, on a GPU enough to fill it
BATCH_TOKENS = {"cpu": 4096, "cuda": 65_536}
_MAX_ROWS = 4096  # a batch, however short its texts
WINDOW = 32_768  # texts that are tokenised ahead while the ones before them are computed


def rows_of(texts: str | Iterable[str]) -> list[str]:
    """The texts as a list; raises ``ModelError`` for a data frame, whose iteration gives the names of its columns."""
    if hasattr(texts, "columns"):
        names = list(map(str, getattr(texts, "column_names", texts.columns)))
        raise ModelError(f"a data frame has the columns {', '.join(names)}; give the one with the texts: "
                         f'encode(frame["{names[0] if names else "text"}"])')
    return [texts] if isinstance(texts, str) else list(texts)


def encode_texts(
    texts: Sequence[str], encode: Callable[..., Vectors], tokeniser: Tokeniser, *, template: Template | None,
    empty: EmptyTemplate | None, width: int, bar: Progress,
) -> Vectors:
    """Embeddings (texts, width) of texts in a template, by ``encode_tokens`` with its settings; equal texts are
    tokenised and computed once."""
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ModelError(f"text {row} is {type(text).__name__}, not a string")
    cut_before = tokeniser.cut_count
    prompt_tokens = 0 if template is None or template.after else tokeniser.prompt_tokens(template.before)

    unique = distinct(texts)
    out = np.empty((len(texts), width), dtype=np.float32)
    for start, column in tokenise_ahead(unique.values, lambda part: tokeniser(part, template)):
        vectors = encode(column, prompt_tokens=prompt_tokens, empty=empty)
        out[unique.first[start : start + len(column)]] = vectors
    if tokeniser.cut_count > cut_before == 0:
        _log.warning("%d of %d texts are longer than %d tokens and were cut there (Encoder.cut_count counts on)",
                     tokeniser.cut_count, len(texts), tokeniser.max_tokens)
    repeated = unique.repeated
    out[repeated] = out[unique.first[unique.position[repeated]]]
    bar.advance(len(repeated))
    return out


def encode_tokens(
    module: EncoderModule, run: Runner, column: TokenColumn, *, normalise: bool = True, dim: int | None = None,
    budget: TokenBudget | None = None, bar: Progress | None = None, prompt_tokens: int = 0,
    empty: EmptyTemplate | None = None,
) -> Vectors:
    """Embeddings of every row of token ids, by the module in evaluation mode; see ``Encoder.encode``.

    Args:
        budget: of one call, which it may halve; None: the device's.
        prompt_tokens: leading tokens of every row that belong to a prompt.
        empty: of the template that the rows were written in, where its vector is to be subtracted.
    """
    limit, longest = position_limit(module.backbone), column.lengths.max(initial=1)
    if limit is not None and longest > limit:
        raise ModelError(f"a row has {longest} tokens; the backbone's positions end at {limit}")
    if column.lengths.min(initial=1) < 1:
        raise ModelError("a row has no tokens; every row needs at least one")
    if module.pooling.reads_mask_token:
        require_mask_tokens(column, module.mask_token)
    device = next(module.parameters()).device
    width = dim or module.exported_width
    out = np.empty((len(column), width), dtype=np.float32)
    if device.type == "cpu":
        keep_freed_memory()
    order = length_order(column.lengths)

    def compute(begin: int, end: int) -> None:
        batch = order[begin:end]
        rows = column.take(batch)
        pooled = run(rows, prompt_tokens).float()
        if empty is not None:
            pooled = pooled - empty(rows)
        embedding = module.project(pooled, exported=True)[:, :width]
        if normalise:
            embedding = nn.functional.normalize(embedding, dim=-1)
        out[batch] = embedding.cpu().numpy()
        if bar is not None:
            bar.advance(len(batch))

    with torch.inference_mode(), evaluating(module), torch.autocast(device.type, enabled=False):
        compute_batches(column.lengths[order], budget or TokenBudget(None, device), compute)
    return out


def require_mask_tokens(column: TokenColumn, mask_token: int | None) -> None:
    """Raise ``ModelError`` unless every row has exactly one mask token."""
    masks = np.add.reduceat(column.flat == mask_token, column.offsets[:-1]) if len(column) else np.ones(0)
    wrong = np.flatnonzero(masks != 1)
    if len(wrong):
        raise ModelError(f"text {wrong[0]} has {masks[wrong[0]]} mask tokens; the pooling \"mask\" reads the one of a "
                         "template: give a prompt with {text} and {mask}")


class EmptyTemplate:
    """``weight`` times the pooled vector of a template without a text, its tokens at the positions that they have
    around a text of so many tokens; computed once a length, by the module as it is now.

    Source: Jiang et al. 2022, EMNLP (PromptBERT), template denoising, released ``get_delta``.
    Deviations: positions are kept by tokens that are not attended to, instead of by position numbers.
    """

    def __init__(self, module: EncoderModule, frame: Frame, vocabulary: Vocabulary, weight: float) -> None:
        self._module, self._frame, self._vocabulary, self._weight = module, frame, vocabulary, weight
        self._known: dict[int, torch.Tensor] = {}

    def __call__(self, column: TokenColumn) -> torch.Tensor:
        """What to subtract from every row's pooled vector, (rows, d)."""
        lengths = self._frame.room_in(column)
        device = next(self._module.parameters()).device
        for length in set(lengths.tolist()) - self._known.keys():  # one by one, so that no other length changes a bit
            tokens = empty_rows([self._frame], np.array([length]), self._vocabulary).to(device)
            self._known[length] = self._weight * self._module.plain(self._module.backbone, tokens)[1][0].float()
        return torch.stack([self._known[length] for length in lengths.tolist()])


def length_order(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows from longest to shortest (stable): padding is least, and what needs most memory comes first."""
    return np.argsort(-lengths, kind="stable")


class TokenBudget:
    """Padded tokens a batch in one call of ``encode``: halved once, for all batches that follow, where one does not fit
    into memory. Batches change a vector by rounding at most."""

    def __init__(self, batch_tokens: int | None, device: torch.device) -> None:
        if batch_tokens is not None and batch_tokens < 1:
            raise ModelError(f"batch_tokens = {batch_tokens}; it must be at least 1")
        self.tokens = batch_tokens or BATCH_TOKENS.get(device.type, 16_384)
        self._before: int | None = None  # it was halved

    def halve(self, rows: int, longest: int, said: str) -> None:
        """Make batches half as large as the one of ``rows`` texts that did not fit.

        Raises:
            OutOfMemory: they were halved before, or one text alone does not fit.
        """
        where = f"out of memory in a batch of {rows} texts of up to {longest} tokens"
        if rows == 1 or self._before is not None:
            halved = "" if self._before is None else f" (halved from {self._before:,})"
            advice = "shorten the texts: max_tokens (--max-tokens)" if rows == 1 else (
                f"set batch_tokens (--batch-tokens) to {max(1, rows * longest // 4):,} or less")
            raise OutOfMemory(f"{where}, with batch_tokens = {self.tokens:,}{halved}: {said}. Free memory, or {advice}")
        self._before, self.tokens = self.tokens, max(1, rows * longest // 2)
        _log.warning("%s, with batch_tokens = %s; going on with %s. Vectors stay the same but for rounding",
                     where, f"{self._before:,}", f"{self.tokens:,}")


def compute_batches(
    lengths: NDArray[np.int64], budget: TokenBudget, compute: Callable[[int, int], None]
) -> None:
    """``compute(begin, end)`` for the batches of rows that are sorted from longest to shortest."""
    begin = 0
    while begin < len(lengths):
        first, end = next(budget_batches(lengths, budget.tokens, begin))
        try:
            compute(first, end)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            budget.halve(end - first, int(lengths[first]), first_line(error))
        else:  # what the failed batch held is free again once its error is gone
            begin = end


def budget_batches(lengths: NDArray[np.int64], budget: int, begin: int = 0) -> Iterator[tuple[int, int]]:
    """Cut rows that are sorted from longest to shortest, from ``begin`` on, into (begin, end) of rows × longest ≤
    ``budget`` tokens, or of one row that is longer."""
    while begin < len(lengths):
        end = min(len(lengths), begin + max(1, min(_MAX_ROWS, budget // int(lengths[begin]))))
        yield begin, end
        begin = end


def tokenise_ahead(
    texts: Sequence[str], tokenise: Callable[[Sequence[str]], TokenColumn], window: int = WINDOW
) -> Iterator[tuple[int, TokenColumn]]:
    """Token columns of ``texts`` window by window, each with its first row; the next is made in a thread of its own
    while the caller works on this one (the tokenizers library releases the interpreter)."""
    if len(texts) <= window:
        yield 0, tokenise(texts)
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenise") as pool:
        ahead = pool.submit(tokenise, texts[:window])
        for start in range(0, len(texts), window):
            column, following = ahead.result(), texts[start + window : start + 2 * window]
            if following:
                ahead = pool.submit(tokenise, following)
            yield start, column


@contextmanager
def progress_bar(progress: bool | Progress | None, total: int) -> Iterator[Progress]:
    """The caller's bar, or one of our own; None shows it for more than 10,000 texts."""
    if isinstance(progress, Progress):
        yield progress
        return
    enabled = total > 10_000 if progress is None else progress
    with Progress("encoding", total=total, unit="texts", enabled=enabled) as bar:
        yield bar
