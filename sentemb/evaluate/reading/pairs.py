"""Files of sentence pairs with a graded similarity: csv, tsv, jsonl, parquet; the first three also .gz or .zst."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sentemb.data import Record
from sentemb.errors import DataError
from sentemb.evaluate.reading.tables import number_of, read_rows, stem_of, text_of


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """Sentence pairs with gold scores. ``subset`` names each pair's part where the set has parts."""

    name: str
    sentence1: Sequence[str]
    sentence2: Sequence[str]
    score: NDArray[np.float64]  # (pairs,)
    subset: Sequence[str] | None = None
    source: str = ""  # file it came from

    def __len__(self) -> int:
        return len(self.score)


def read_pairs(path: Path | str, *, name: str | None = None, score: str = "score") -> PairSet:
    """A file with the columns ``sentence1``, ``sentence2``, ``score`` (or what ``score`` names) and, if it likes,
    ``subset``.

    Raises: DataError: what ``read_rows`` raises, a missing column, a score that is no number, or no rows.
    """
    path = Path(path)
    return pairs_of(read_rows(path), name=name or stem_of(path), source=path, score=score)


def pairs_of(rows: Iterable[Record], *, name: str, source: Path, score: str = "score") -> PairSet:
    """Rows as pairs; ``source`` is the file or folder that messages name.

    Raises: DataError: what ``read_pairs`` raises.
    """
    first, second, values, subset = [], [], [], []
    for row in rows:
        first.append(text_of(row, "sentence1"))
        second.append(text_of(row, "sentence2"))
        values.append(number_of(row, score))
        if row.fields.get("subset") is not None:
            subset.append(str(row.fields["subset"]))
    if not values:
        raise DataError(f"{source}: no pairs in it; rows with the columns sentence1, sentence2 and {score} are needed")
    if subset and len(subset) != len(values):
        some = f'{len(subset):,} of {len(values):,} rows have a "subset"'
        raise DataError(f"{source}: {some}; give all rows one, or none")
    return PairSet(
        name=name, sentence1=first, sentence2=second, score=np.array(values), subset=subset or None, source=str(source)
    )
