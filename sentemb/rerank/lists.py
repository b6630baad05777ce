"""Lists of candidates: a query, the text that answers it, texts that do not."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.data import Record, iter_records
from sentemb.errors import DataError

NEGATIVE = "negative"  # and negative_1, negative_2, …
Score = Callable[[list[tuple[str, str]]], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class CandidateList:
    """One list; the first candidate is the positive."""

    query: str
    candidates: tuple[str, ...]
    scores: tuple[float, ...] | None = None  # of the candidates, by a teacher

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What a cross-encoder reads."""
        return [(self.query, text) for text in self.candidates]


def read_lists(data: str | Path | Iterable[Mapping[str, Any]], *, with_scores: bool = False) -> list[CandidateList]:
    """Lists from rows ``anchor``, ``positive``, ``negative_1``, …, as ``sentemb mine`` writes them.

    A row may have fewer negatives than others (a column that is absent, null or empty), but needs one.

    Args:
        data: a file, folder or hub id, or mappings.
        with_scores: also read a teacher's scores: ``positive_score``, and the list ``negative_scores``.

    Raises: DataError: a row without a query, a positive or a negative; a score that is missing or no finite number.
    """
    records = iter_records(data) if isinstance(data, (str, Path)) else _in_memory(data)
    lists = [_list_of(record, with_scores) for record in records]
    if not lists:
        raise DataError(f"{data if isinstance(data, (str, Path)) else 'the given lists'}: no rows")
    return lists


def _in_memory(rows: Iterable[Mapping[str, Any]]) -> Iterator[Record]:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise DataError(f"list {number}: a {type(row).__name__}; needed: anchor, positive, negative_1")
        yield Record(where=f"list {number}", fields=dict(row))


def _list_of(record: Record, with_scores: bool) -> CandidateList:
    query, positive = (_text(record, name) for name in ("anchor", "positive"))
    for name, text in (("anchor", query), ("positive", positive)):
        if not text:
            raise DataError(f'{record.where}: column "{name}" holds no text; a list has an anchor, a positive and '
                            "negatives (columns anchor, positive, negative_1, …)")
    names = sorted((name for name in record.fields if _is_negative(name)), key=lambda name: (len(name), name))
    negatives = [text for name in names if (text := _text(record, name))]
    if not negatives:
        raise DataError(f"{record.where}: no negative; a list needs at least one in the columns negative_1, "
                        "negative_2, … (sentemb mine finds them)")
    scores = _scores(record, len(negatives)) if with_scores else None
    return CandidateList(query=query, candidates=(positive, *negatives), scores=scores)


def _is_negative(name: str) -> bool:
    return name == NEGATIVE or (name.startswith(f"{NEGATIVE}_") and name.removeprefix(f"{NEGATIVE}_").isdigit())


def _text(record: Record, name: str) -> str:
    value = record.fields.get(name)
    if value is not None and not isinstance(value, str):
        raise DataError(f'{record.where}: column "{name}" holds {value!r}; text is needed')
    return (value or "").strip()


def _scores(record: Record, negatives: int) -> tuple[float, ...]:
    values = [record.fields.get("positive_score"), *(record.fields.get("negative_scores") or ())]
    are_numbers = all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
    if len(values) != 1 + negatives or not are_numbers:
        raise DataError(f"{record.where}: the margin loss needs a teacher's scores: positive_score, a finite number, "
                        f"and negative_scores, a list of {negatives}, one a negative; or give --teacher CROSS_ENCODER")
    return tuple(map(float, values))


def scored_by(teacher: Score, lists: Sequence[CandidateList]) -> list[CandidateList]:
    """The lists with a cross-encoder's scores."""
    scores = iter(teacher([pair for one in lists for pair in one.pairs]).tolist())
    return [replace(one, scores=tuple(next(scores) for _ in one.candidates)) for one in lists]


def hash_of_lists(lists: Sequence[CandidateList]) -> str:
    """Hex SHA-256 of the lists."""
    digest = hashlib.sha256()
    for one in lists:
        digest.update(json.dumps([one.query, one.candidates, one.scores]).encode())
    return digest.hexdigest()


def chosen_candidates(
    sizes: NDArray[np.int64], group: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Which candidates of every list a pass takes, (lists, at most group): the positive, and negatives drawn without
    repetition where there are more than fit; -1 where a list has fewer."""
    width = min(group, int(sizes.max()))
    drawn = generator.random((len(sizes), int(sizes.max()) - 1))
    drawn[np.arange(1, int(sizes.max()))[None, :] >= sizes[:, None]] = np.inf  # candidates that are not there come last
    negatives = 1 + np.argsort(drawn, axis=1, kind="stable")[:, : width - 1]
    negatives[np.arange(1, width)[None, :] >= sizes[:, None]] = -1
    return np.concatenate([np.zeros((len(sizes), 1), dtype=np.int64), negatives], axis=1)
