"""What is mined: anchors, the corpus, and which corpus texts may never be an anchor's negatives.

Equal texts are one row of the corpus, so a negative is never the text of the anchor or of any of its positives,
however often either occurs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from sentemb.errors import DataError, did_you_mean
from sentemb.maths.neighbours import Ids
from sentemb.mining.rules import Mask


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

    def __iter__(self) -> Iterator[Ids]:
        return iter(np.split(self.rows, self.offsets[1:-1]))

    def part(self, start: int, stop: int) -> Lists:
        """The lists of anchors start … stop - 1, as far as there are so many."""
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
class MiningColumns:
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

    def positives_of(self, anchor: int) -> list[str]:
        """Texts of an anchor's positives; the anchor itself for unlabelled text."""
        return [self.corpus[row] for row in self.positives.part(anchor, anchor + 1).rows.tolist()]


def read_texts(
    data: str | Path | Iterable[Any], corpus: str | Path | Iterable[Any] = (), *, columns: MiningColumns | None = None,
    split: str | None = None,
) -> MiningTexts:
    """Anchors and corpus; further texts of ``corpus`` may become negatives, beside the positives of other anchors.

    Args:
        data, corpus: a file, folder or hub id, or an iterable of mappings, tuples or texts.
        split: split to read of a data set's folder or hub id.

    Raises:
        DataError: a record lacks a column or holds no text there, or there is nothing to mine from.
    """
    columns = columns or MiningColumns()
    pairs = list(_rows(data, split, {"anchor": columns.anchor, "positive": columns.positive,
                                     "anchor_id": columns.anchor_id, "positive_id": columns.positive_id}))
    texts = list(_rows(corpus, None, {"corpus": columns.corpus, "corpus_id": columns.corpus_id}))
    if columns.corpus_id is not None and not texts:
        raise DataError(f'corpus_id = "{columns.corpus_id}", but no further texts are given as a corpus')
    beside = "anchor" if columns.positive is None else "positive"
    distinct = dict.fromkeys([*(row["corpus"] for row in texts), *(row[beside] for row in pairs)])
    rows_of = {text: i for i, text in enumerate(distinct)}
    anchors = {text: i for i, text in enumerate(dict.fromkeys(row["anchor"] for row in pairs))}
    if len(rows_of) < 2:
        raise DataError("mining needs at least two different texts")
    carriers: dict[Any, set[int]] = {}  # id to the corpus rows that carry it
    for rows, text, id_column in ((pairs, beside, "positive_id"), (texts, "corpus", "corpus_id")):
        for row in rows:
            if id_column in row:
                carriers.setdefault(row[id_column], set()).add(rows_of[row[text]])
    positives = [(anchors[row["anchor"]], rows_of[row[beside]]) for row in pairs]
    own = [(number, rows_of[text]) for text, number in anchors.items() if text in rows_of]
    same_id = [
        (anchors[row["anchor"]], carrier)
        for row in pairs for id_column in ("anchor_id", "positive_id") if id_column in row
        for carrier in carriers.get(row[id_column], ())
    ]
    return MiningTexts(
        anchors=list(anchors), corpus=list(rows_of), positives=Lists.of(positives, len(anchors)),
        excluded=Lists.of([*positives, *own, *same_id], len(anchors)),
    )


def _rows(
    data: str | Path | Iterable[Any], split: str | None, columns: Mapping[str, str | None]
) -> Iterator[dict[str, Any]]:
    """The named columns of every record, by what they are for; texts are stripped."""
    if isinstance(data, (str, Path)):
        from sentemb.data import iter_records

        data = (record.fields for record in iter_records(data, split=split))
    named = {role: column for role, column in columns.items() if column is not None}
    for number, record in enumerate(data, start=1):
        if not isinstance(record, Mapping):
            record = dict(zip(named.values(), (record,) if isinstance(record, str) else record, strict=False))
        for column in named.values():
            if column not in record:
                raise DataError(f'record {number}: no column "{column}"{did_you_mean(column, map(str, record))}')
        row = {role: record[column] for role, column in named.items()}
        for role in row.keys() - {"anchor_id", "positive_id", "corpus_id"}:
            if not isinstance(row[role], str) or not row[role].strip():
                raise DataError(f'record {number}: column "{named[role]}" holds no text')
            row[role] = row[role].strip()
        yield row
