"""What is mined. Equal texts are one row of the corpus, so a negative is never the anchor's text or a positive's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import DataError, did_you_mean
from sentemb.maths.neighbours import Ids


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
    def owners(self) -> Ids:
        """The anchor of every row."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def part(self, anchors: slice) -> Lists:
        """The lists of some anchors."""
        offsets = self.offsets[anchors.start : anchors.stop + 1]
        return Lists(offsets=offsets - offsets[0], rows=self.rows[offsets[0] : offsets[-1]])

    def where(self, is_kept: NDArray[np.bool_]) -> Lists:
        """The lists with some of their rows."""
        owners = self.owners[is_kept]
        return Lists(offsets=np.searchsorted(owners, np.arange(len(self.offsets))), rows=self.rows[is_kept])

    def of_anchors(self, anchors: Ids) -> Lists:
        """The lists of the anchors with these ascending numbers, which are counted from 0 again."""
        lists = self.where(np.isin(self.owners, anchors))
        return Lists(offsets=np.append(lists.offsets[anchors], len(lists.rows)), rows=lists.rows)

    def are_in(self, ids: Ids) -> NDArray[np.bool_]:
        """Whether every row of the lists is among the candidates ``ids[a]`` of its anchor a."""
        own, candidates = self._numbered(ids)
        return np.isin(own, candidates[ids >= 0])

    def contain(self, ids: Ids) -> NDArray[np.bool_]:
        """Whether candidate ``ids[a, c]`` is in the list of anchor a; False where it is -1."""
        own, candidates = self._numbered(ids)
        return np.isin(candidates, own) & (ids >= 0)

    def _numbered(self, ids: Ids) -> tuple[Ids, Ids]:
        """A number for every (anchor, row) of the lists, and of the candidates ``ids`` by the same count."""
        total = 1 + max(int(ids.max(initial=0)), int(self.rows.max(initial=0)))
        return self.owners * total + self.rows, np.arange(len(ids))[:, None] * total + ids


@dataclass(frozen=True, kw_only=True)
class MiningColumns:
    """Names of the columns that mining reads; texts of one id are never an anchor and its negative."""

    anchor: str = "anchor"
    positive: str | None = "positive"  # None: the anchors are texts alone, each its own positive
    corpus: str = "text"  # in the file of further texts
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
        return [self.corpus[row] for row in self.positives.part(slice(anchor, anchor + 1)).rows.tolist()]


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
    names = columns or MiningColumns()
    texts = (names.anchor, names.positive or names.anchor)
    pairs = list(_rows(data, split, texts=texts, ids=(names.anchor_id, names.positive_id)))
    others = list(_rows(corpus, None, texts=(names.corpus,), ids=(names.corpus_id,)))
    if names.corpus_id is not None and not others:
        raise DataError(f'corpus_id = "{names.corpus_id}", but no further texts are given as a corpus')
    carriers = [*others, *((positive, name) for _, positive, _, name in pairs)]
    rows_of = {text: row for row, text in enumerate(dict.fromkeys(text for text, _ in carriers))}
    anchors = {text: number for number, text in enumerate(dict.fromkeys(anchor for anchor, *_ in pairs))}
    if len(rows_of) < 2:
        raise DataError("mining needs at least two different texts")
    rows_with: defaultdict[Any, set[int]] = defaultdict(set)
    for text, name in carriers:
        if name is not None:
            rows_with[name].add(rows_of[text])
    positives = [(anchors[anchor], rows_of[positive]) for anchor, positive, _, _ in pairs]
    own = [(number, rows_of[text]) for text, number in anchors.items() if text in rows_of]
    same_id = [
        (anchors[anchor], row) for anchor, _, *ids in pairs for name in ids for row in rows_with.get(name, ())
    ]
    return MiningTexts(
        anchors=list(anchors), corpus=list(rows_of), positives=Lists.of(positives, len(anchors)),
        excluded=Lists.of([*positives, *own, *same_id], len(anchors)),
    )


def _rows(
    data: str | Path | Iterable[Any], split: str | None, *, texts: Sequence[str], ids: Sequence[str | None]
) -> Iterator[tuple[Any, ...]]:
    """The named columns of every record: the texts, stripped, then the ids (None where no column is named)."""
    if isinstance(data, (str, Path)):
        from sentemb.data import iter_records

        data = (record.fields for record in iter_records(data, split=split))
    named = list(dict.fromkeys(name for name in (*texts, *ids) if name is not None))
    for number, record in enumerate(data, start=1):
        if not isinstance(record, Mapping):
            record = dict(zip(named, (record,) if isinstance(record, str) else record, strict=False))
        for column in named:
            if column not in record:
                raise DataError(f'record {number}: no column "{column}"{did_you_mean(column, map(str, record))}')
            if column in texts and not (isinstance(record[column], str) and record[column].strip()):
                raise DataError(f'record {number}: column "{column}" holds no text')
        yield (*(record[name].strip() for name in texts), *(name and record[name] for name in ids))
