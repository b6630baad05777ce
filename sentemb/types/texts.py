"""Texts as token ids: columns, examples, views, padded batches; and the short names of common types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, MinLen
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pydantic import AfterValidator
from torch import Tensor

Similarity = Literal["cosine", "dot"]
Cosine = Annotated[float, Gt(-1), Le(1)]  # as a setting: a threshold
Temperature = Annotated[float, Ge(1e-4)]  # as a setting; below it float32 cannot tell logits apart
Names = Annotated[Sequence[str], MinLen(1), AfterValidator(tuple)]  # as a setting
UNKNOWN = -1  # of ids, content hashes and labels; equal to nothing, not even to itself
Vectors = NDArray[np.float32]  # (texts, width)


@dataclass(frozen=True, kw_only=True)
class TokenColumn:
    """Ragged token ids of one column: row i is ``flat[offsets[i]:offsets[i + 1]]``, special tokens included."""

    flat: NDArray[np.int32]  # of a whole data set perhaps a mapped file with two bytes an id
    offsets: NDArray[np.int64]  # (rows + 1,)
    text: NDArray[np.int64]  # (rows,) content hash of the source text: equal texts have equal hashes

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def rows(self, start: int, end: int) -> TokenColumn:
        """Consecutive rows, which share memory with these."""
        return TokenColumn(flat=self.flat, offsets=self.offsets[start : end + 1], text=self.text[start:end])

    def take(self, rows: NDArray[np.int64]) -> TokenColumn:
        """The given rows, in the given order."""
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        index = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return TokenColumn(flat=self.flat[index].astype(np.int32, copy=False), offsets=offsets, text=self.text[rows])


@dataclass(frozen=True, kw_only=True)
class RowFacts:
    """What is known of a data set's rows beside their texts."""

    label: NDArray[np.int64] | None = None  # (rows,) class of the anchor
    label_names: tuple[str, ...] = ()  # of the classes 0, 1, …, where the data have names for them
    levels: NDArray[np.int64] | None = None  # (rows, l) its coarser classes, finest first
    score: NDArray[np.float32] | None = None  # (rows,) graded similarity of anchor and positive
    margin: NDArray[np.float32] | None = None  # (rows,) by how much the positive is to be preferred
    weight: NDArray[np.float32] | None = None  # (rows,) how much the example counts
    negative_scores: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # text column -> (rows,), as score
    grades: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # text column -> (rows,) its relevance

    def facts(self) -> dict[str, Any]:
        """All of it by name, to be passed on."""
        return {one.name: getattr(self, one.name) for one in fields(RowFacts)}


@dataclass(frozen=True, kw_only=True)
class Examples(RowFacts):
    """A data set, or a batch of it: tokenised columns that share their rows."""

    ids: NDArray[np.int64]  # (rows,) position in the data set; equal ids are the same example
    columns: Mapping[str, TokenColumn]  # "anchor", "positive", "negative_1", … in this order
    sources: Mapping[str, Examples] = field(default_factory=dict)  # of a mixture: its consecutive parts, by name
    # column -> its texts, without prefixes, where a part's needs say "texts"; batches have none
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.int64]) -> Examples:
        return Examples(
            ids=self.ids[rows],
            columns={name: column.take(rows) for name, column in self.columns.items()},
            **{name: _of_rows(value, rows) for name, value in self.facts().items()},
        )

    def batch(self, rows: NDArray[np.int64]) -> tuple[str, Examples]:
        """The source of a mixture that these rows come from, and they with its own columns; all rows are of one."""
        for name, part in self.sources.items():
            if part.ids[0] <= rows[0] <= part.ids[-1]:
                return name, part.take(rows - part.ids[0])
        return "", self.take(rows)


def _of_rows(value: Any, rows: NDArray[np.int64]) -> Any:
    """The rows' part of an array or of several by name; whatever else it is holds for all rows."""
    if isinstance(value, Mapping):
        return {name: part[rows] for name, part in value.items()}
    return value[rows] if isinstance(value, np.ndarray) else value


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A template's token ids before and behind the text, special tokens included."""

    begin: tuple[int, ...]
    end: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.begin) + len(self.end)

    def room_in(self, column: TokenColumn) -> NDArray[np.int64]:
        """How many tokens the text takes in every row that was written in this template."""
        # where a word of the text and one of the template became one token, there may be fewer than the template's
        return np.maximum(column.lengths - len(self), 0)


@dataclass(frozen=True, kw_only=True)
class View:
    """What is encoded (or only read) for every example under one name."""

    column: TokenColumn
    ids: NDArray[np.int64]  # (rows,) example ids the texts come from
    targets: NDArray[np.int32] | None = None  # flat like column.flat: original token, or -100 where none is asked
    dropout: float | None = None  # rate of the backbone's dropout while this view is encoded; None: the backbone's own
    minus: Frame | None = None  # the template whose own vector, without a text, is subtracted from the pooled rows
    fields: tuple[TokenColumn, ...] = ()  # the texts whose vectors' mean it is; none: its column alone
    shares: Float[NDArray[np.float32], "fields rows"] | None = None  # of each field in that mean; together 1

    @property
    def parts(self) -> list[View]:
        """What is encoded for it: views of one text a row."""
        return [replace(self, column=column, fields=(), shares=None) for column in self.fields] or [self]

    def shares_in(self, rows: NDArray[np.int64]) -> Float[NDArray[np.float32], "fields rows"]:
        """The shares of its parts in these rows."""
        return np.ones((1, len(rows)), dtype=np.float32) if self.shares is None else self.shares[:, rows]


Views = Mapping[str, View]  # "anchor", "positive", "negative_1", …, and copies such as "anchor.masked"


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What parts must know of a tokenizer."""

    size: int
    pad: int
    mask: int | None
    special: frozenset[int]  # never masked, replaced or counted: [CLS], [SEP], [PAD], …

    @property
    def rows(self) -> int:
        """How many different numbers stand in a batch: a static model pads with one behind its tokens."""
        return max(self.size, self.pad + 1)


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """One padded batch of token ids on a device (right padding)."""

    input_ids: Int[Tensor, "b t"]
    attention_mask: Int[Tensor, "b t"]
    targets: Int[Tensor, "b t"] | None = None  # see View.targets; -100 at padding
    token_types: Int[Tensor, "b t"] | None = None  # of pairs: 1 in the second text; None: 0 everywhere

    def to(self, device: torch.device) -> Tokens:
        """The same on a device."""
        moved = {name: tensor.to(device) for name, tensor in vars(self).items() if tensor is not None}
        return Tokens(**moved)
