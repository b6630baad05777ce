"""What is mined: anchors, the corpus, and which corpus texts may never be an anchor's negatives.

Equal texts are one row of the corpus, so a negative is never the text of the anchor or of any of its positives,
however often either occurs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import DataError, did_you_mean

Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Lists:
    """A list of corpus rows for every anchor; those of anchor a are ``rows[offsets[a] : offsets[a + 1]]``."""

    offsets: Ids
    rows: Ids

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]], anchors: int) -> Self:
        """From pairs (anchor, corpus row); a repeated pair counts once."""
        table = np.unique(np.array(list(pairs), dtype=np.int64).reshape(-1, 2), axis=0)
        return cls(offsets=np.searchsorted(table[:, 0], np.arange(anchors + 1)), rows=table[:, 1].copy())

    @property
    def longest(self) -> int:
        """Rows of the longest list."""
        return int(np.diff(self.offsets).max(initial=0))

    def part(self, start: int, stop: int) -> Lists:
        """The lists of anchors start … stop - 1."""
        offsets = self.offsets[start : stop + 1]
        return Lists(offsets=offsets - offsets[0], rows=self.rows[offsets[0] : offsets[-1]])

    def contain(self, ids: Ids) -> Mask:
        """Whether candidate ``ids[a, c]`` is in the list of anchor a; False where it is -1."""
        total = 1 + max(int(ids.max(initial=0)), int(self.rows.max(initial=0)))
        owners = np.repeat(np.arange(len(ids)), np.diff(self.offsets))
        keys = np.append(np.sort(owners * total + self.rows), -1)
        candidates = np.arange(len(ids))[:, None] * total + ids
        is_member: Mask = keys[np.searchsorted(keys[:-1], candidates)] == candidates
        return is_member & (ids >= 0)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns that mining reads.

    Args:
        anchor: column with the anchors.
        positive: column with each anchor's positive; None: the anchors are texts alone, each its own positive.
        corpus: column with the text in the file of further texts.
        anchor_id, positive_id, corpus_id: columns with ids; texts of one id are never an anchor and its negative.
    """

    anchor: str = "anchor"
    positive: str | None = "positive"
    corpus: str = "text"
    anchor_id: str | None = None
    positive_id: str | None = None
    corpus_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class MiningTexts:
    """Distinct anchors and corpus texts; ``excluded`` are the positives and whatever else may not be a negative."""

    anchors: list[str]
    corpus: list[str]
    positives: Lists
    excluded: Lists
    is_unlabelled: bool = False

    def positives_of(self, anchor: int) -> list[str]:
        """Texts of an anchor's positives; the anchor itself for unlabelled text."""
        if self.is_unlabelled:
            return [self.anchors[anchor]]
        return [self.corpus[row] for row in self.positives.part(anchor, anchor + 1).rows.tolist()]


def read_texts(
    records: Iterable[Mapping[str, Any]], further: Iterable[Mapping[str, Any]] = (), *, columns: Columns | None = None
) -> MiningTexts:
    """Anchors and corpus out of records; ``further`` texts may become negatives beside the positives of others.

    Raises:
        DataError: a record lacks a column or holds no text there, or there is nothing to mine from.
    """
    columns = columns or Columns()
    named = {"anchor": columns.anchor, "positive": columns.positive, "anchor_id": columns.anchor_id,
             "positive_id": columns.positive_id}
    pairs = list(_rows(records, named))
    texts = list(_rows(further, {"corpus": columns.corpus, "corpus_id": columns.corpus_id}))
    if columns.corpus_id is not None and not texts:
        raise DataError(f'corpus_id = "{columns.corpus_id}", but no further texts are given as a corpus')
    beside = "anchor" if columns.positive is None else "positive"
    corpus = {text: i for i, text in enumerate(dict.fromkeys(
        [*(row["corpus"] for row in texts), *(row[beside] for row in pairs)]))}
    anchors = {text: i for i, text in enumerate(dict.fromkeys(row["anchor"] for row in pairs))}
    if len(corpus) < 2:
        raise DataError("mining needs at least two different texts")
    carriers: dict[Any, set[int]] = {}  # id to the corpus rows that carry it
    for rows, text, id_column in ((pairs, beside, "positive_id"), (texts, "corpus", "corpus_id")):
        for row in rows:
            if id_column in row:
                carriers.setdefault(row[id_column], set()).add(corpus[row[text]])
    positives = [(anchors[row["anchor"]], corpus[row[beside]]) for row in pairs]
    own = [(number, corpus[text]) for text, number in anchors.items() if text in corpus]
    same_id = [
        (anchors[row["anchor"]], carrier)
        for row in pairs for id_column in ("anchor_id", "positive_id") if id_column in row
        for carrier in carriers.get(row[id_column], ())
    ]
    return MiningTexts(
        anchors=list(anchors), corpus=list(corpus), positives=Lists.of(positives, len(anchors)),
        excluded=Lists.of([*positives, *own, *same_id], len(anchors)), is_unlabelled=columns.positive is None,
    )


def _rows(records: Iterable[Mapping[str, Any]], columns: Mapping[str, str | None]) -> Iterator[dict[str, Any]]:
    """The named columns of every record, by what they are for; texts are stripped."""
    for number, record in enumerate(records, start=1):
        row: dict[str, Any] = {}
        for role, column in columns.items():
            if column is None:
                continue
            if column not in record:
                raise DataError(f'record {number}: no column "{column}"{did_you_mean(column, map(str, record))}')
            value = record[column]
            if not role.endswith("_id"):
                if not isinstance(value, str) or not value.strip():
                    raise DataError(f'record {number}: column "{column}" holds no text')
                value = value.strip()
            row[role] = value
        yield row


def records_of(data: Iterable[Any], roles: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Mappings as they are; a tuple's values, or one text, under the names of ``roles``."""
    for item in data:
        if isinstance(item, Mapping):
            yield item
        else:
            yield dict(zip(roles, (item,) if isinstance(item, str) else item, strict=False))
