"""A sentence and the same sentence, each with words deleted, moved or replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, runtime_checkable

import numpy as np
from annotated_types import Le
from numpy.typing import NDArray
from pydantic import AfterValidator

from sentemb.errors import ModelError, RecipeError
from sentemb.parts import Count, Fraction
from sentemb.types import Examples, TokenColumn, View, ViewContext, Views
from sentemb.views.view import ViewMaker

TextEdits = Annotated[
    Sequence[Literal["delete_words", "delete_spans", "swap_spans", "substitute"]], AfterValidator(tuple)
]
_KEPT = 2  # tokens that deletions leave of a text


@runtime_checkable
class WordSource(Protocol):
    """What substitution needs of the companion ``similar_words``."""

    def similar(self, tokens: NDArray[np.int32]) -> NDArray[np.int32]: ...


class Edited(ViewMaker):
    """Anchor and positive are one sentence with edits of its tokens, drawn anew each step:

        delete_words   every token is deleted with the chance ``delete_share``
        delete_spans   ``spans`` spans of ``span_share`` of the tokens each are deleted
        swap_spans     ``spans`` pairs of such spans change places
        substitute     every token is replaced with the chance ``substitute_share`` by one of its ``similar_words``

    Special tokens stay, and so do two tokens of a text at least. A span has one token at least; short texts have fewer
    spans, so that about spans · span_share of the tokens are deleted, or twice as many moved. Spans do not overlap.
    Without edits it is ``twice``.

    Args:
        first: edits of the anchor, one after the other.
        second: edits of the positive.
        delete_share: chance of every token to be deleted by ``delete_words``.
        spans: how many spans ``delete_spans`` deletes, or pairs of spans ``swap_spans`` swaps.
        span_share: length of a span as a share of the text's tokens; all spans together are at most half of them.
        substitute_share: chance of every token to be replaced by ``substitute``.
        marker: put one mask token in the place of every run of deleted tokens.
    Returns: ``anchor`` and ``positive``, with the ids and content hashes of the sentence itself.
    Raises:
        RecipeError: substitution without the companion ``similar_words``.
        ModelError: a marker is asked for, and the tokenizer has no mask token.
    Source: Wu et al. 2020, arXiv:2012.15466 (CLEAR): the four edits.
    Deviations: no code is public and the defaults are from memory. Edits act on tokens, not on words; CLEAR marks
        deletions by a token [DEL] of its own, for which pre-trained vocabularies have none.
    """

    columns = frozenset({"anchor"})

    def __init__(
        self, *, first: TextEdits = ("delete_spans",), second: TextEdits = ("substitute",),
        delete_share: Fraction = 0.7, spans: Count = 5, span_share: Annotated[Fraction, Le(0.5)] = 0.05,
        substitute_share: Fraction = 0.3, marker: bool = False,
    ) -> None:
        if spans * span_share > 0.5 + 1e-9:
            raise ValueError(f"spans = {spans} of span_share = {span_share} are more than half of a text")
        self.first, self.second = first, second
        self.delete_share, self.substitute_share = delete_share, substitute_share
        self.spans, self.span_share, self.marker = spans, span_share, marker
        substitutes = "substitute" in (*first, *second)
        self.needs = frozenset({"companion:similar_words"} if substitutes else ())

    def __call__(self, examples: Examples, context: ViewContext) -> Views:
        """Two edited copies of every sentence."""
        return {
            name: View(column=self._edit(examples.columns["anchor"], edits, context), ids=examples.ids)
            for name, edits in (("anchor", self.first), ("positive", self.second))
        }

    def _edit(self, column: TokenColumn, edits: TextEdits, context: ViewContext) -> TokenColumn:
        generator, special = context.generator, np.fromiter(context.vocabulary.special, dtype=np.int32)
        for edit in edits:
            words = Words.of(column, special)
            if edit == "substitute":
                column = self._substituted(column, words, context)
            elif edit == "swap_spans":
                column = swapped(column, words, words.spans(self.spans, self.span_share, generator, pairs=True))
            elif edit == "delete_spans":
                is_deleted = np.zeros(len(column.flat), dtype=bool)
                is_deleted[words.spans(self.spans, self.span_share, generator).tokens(words)] = True
                column = without(column, is_deleted, self._marker(context))
            else:
                draw = generator.random(len(words.position))
                is_deleted = np.zeros(len(column.flat), dtype=bool)
                is_deleted[words.position] = (draw < self.delete_share) & (rank_in_rows(words.row, -draw) >= _KEPT)
                column = without(column, is_deleted, self._marker(context))
        return column

    def _substituted(self, column: TokenColumn, words: Words, context: ViewContext) -> TokenColumn:
        source: object = context.companions.get("similar_words")
        if not isinstance(source, WordSource):
            raise RecipeError('views edited: "substitute" needs [[companions]] use = "similar_words"')
        position = words.position[context.generator.random(len(words.position)) < self.substitute_share]
        known = source.similar(column.flat[position])
        flat = column.flat.copy()
        flat[position] = known[np.arange(len(position)), context.generator.integers(known.shape[1], size=len(position))]
        return TokenColumn(flat=flat, offsets=column.offsets, text=column.text)

    def _marker(self, context: ViewContext) -> int | None:
        if self.marker and context.vocabulary.mask is None:
            raise ModelError("views edited: marker = true, but the tokenizer has no mask token; set marker = false")
        return context.vocabulary.mask if self.marker else None


@dataclass(frozen=True, kw_only=True)
class Spans:
    """Spans of words, row after row."""

    first: NDArray[np.int64]  # the word at which each begins, counted over all rows
    length: NDArray[np.int64]

    def tokens(self, words: Words) -> NDArray[np.int64]:
        """The positions of all their words, span after span."""
        index = np.arange(self.length.sum()) - np.repeat(np.cumsum(self.length) - self.length, self.length)
        places: NDArray[np.int64] = words.position[np.repeat(self.first, self.length) + index]
        return places


@dataclass(frozen=True, kw_only=True)
class Words:
    """The tokens of a column that are not special."""

    position: NDArray[np.int64]  # where they stand in the flat ids
    row: NDArray[np.int64]
    count: NDArray[np.int64]  # (rows,)

    @classmethod
    def of(cls, column: TokenColumn, special: NDArray[np.int32]) -> Words:
        """Those of a column."""
        position = np.flatnonzero(~np.isin(column.flat, special))
        row = np.repeat(np.arange(len(column)), column.lengths)[position]
        return cls(position=position, row=row, count=np.bincount(row, minlength=len(column)))

    def spans(self, count: int, share: float, generator: np.random.Generator, *, pairs: bool = False) -> Spans:
        """Random spans of every row that do not overlap; with ``pairs`` two for one, partners one after the other."""
        length = np.maximum(1, np.rint(share * self.count).astype(np.int64))
        wanted = np.minimum(count, np.rint(count * share * self.count / length).astype(np.int64))
        fit = self.count // (2 * length) if pairs else np.maximum(self.count - _KEPT, 0) // length
        spans = np.minimum(wanted, fit) * (2 if pairs else 1)
        # a span takes one of the slots that are left when all spans are one word long: every arrangement is as likely
        slots = np.where(spans > 0, self.count - spans * (length - 1), 0)
        row = np.repeat(np.arange(len(slots)), slots)
        rank = rank_in_rows(row, generator.random(len(row)))
        chosen = np.flatnonzero(rank < spans[row])  # in the order of the text
        row, rank = row[chosen], rank[chosen]
        before = np.arange(len(row)) - (np.cumsum(spans) - spans)[row]  # spans of the row that stand before it
        slot = chosen - (np.cumsum(slots) - slots)[row]
        first = (np.cumsum(self.count) - self.count)[row] + slot + before * (length[row] - 1)
        order = np.lexsort((rank, row)) if pairs else slice(None)
        return Spans(first=first[order], length=length[row][order])


def rank_in_rows(row: NDArray[np.int64], key: NDArray[np.float64]) -> NDArray[np.int64]:
    """The rank of every key among those of its row, the smallest first; ``row`` is sorted."""
    rank = np.empty(len(row), dtype=np.int64)
    rank[np.lexsort((key, row))] = np.arange(len(row))
    return rank - np.searchsorted(row, row)


def swapped(column: TokenColumn, words: Words, spans: Spans) -> TokenColumn:
    """The column in which every other span has changed places with the one after it."""
    flat = column.flat.copy()
    one, other = (
        Spans(first=spans.first[turn::2], length=spans.length[turn::2]).tokens(words) for turn in (0, 1)
    )
    flat[one], flat[other] = column.flat[other], column.flat[one]
    return TokenColumn(flat=flat, offsets=column.offsets, text=column.text)


def without(column: TokenColumn, is_deleted: NDArray[np.bool_], marker: int | None) -> TokenColumn:
    """The column without some of its tokens; a marker stands in the place of every run of them."""
    row = np.repeat(np.arange(len(column)), column.lengths)
    flat, is_kept = column.flat, ~is_deleted
    if marker is not None:
        goes_on = np.zeros(len(flat), dtype=bool)
        goes_on[1:] = is_deleted[:-1] & (row[1:] == row[:-1])
        starts = is_deleted & ~goes_on
        flat, is_kept = np.where(starts, np.int32(marker), flat), is_kept | starts
    lengths = np.bincount(row[is_kept], minlength=len(column))
    return TokenColumn(flat=flat[is_kept], offsets=np.concatenate([[0], np.cumsum(lengths)]), text=column.text)
