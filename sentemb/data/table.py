"""Texts, labels and scores of a data set, checked row by row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.data.faults import Faults
from sentemb.data.formats import MISSING, RecordBlock
from sentemb.data.roles import roles_of
from sentemb.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Table:
    """Text columns that share their rows, under their roles."""

    columns: Mapping[str, list[str]]  # "anchor", "positive", "negative_1", … in this order
    label: NDArray[np.int64] | None = None  # (rows,) class of the anchor
    score: NDArray[np.float32] | None = None  # (rows,) graded similarity of anchor and positive
    prefixes: Mapping[str, str] = field(default_factory=dict)  # role -> what is put in front of its texts
    source: str = ""  # for messages
    skipped: int = 0  # faulty rows that were left out, where that was asked for

    def __len__(self) -> int:
        return len(self.columns["anchor"])


def read_table(
    blocks: Callable[[Faults], Iterable[RecordBlock]],
    source: str,
    *,
    columns: Mapping[str, str] | None = None,
    max_rows: int | None = None,
    skip_faulty: bool = False,
) -> Table:
    """Read a data set whole. Texts lose white space at both ends.

    Args:
        blocks: gives the rows; those that it cannot read go to its argument.
        source: what messages call the data.
        columns: role -> column name; see ``roles_of`` for what holds without it.
        max_rows: only the first rows.
        skip_faulty: leave faulty rows out and count them, instead of refusing the data.

    Raises: DataError that names the first ten faulty rows by file and line: bytes that are not UTF-8, broken JSON or
        csv, a column that a row lacks, empty text, a label or score that is no number.
    """
    faults = Faults()
    gathered = _Gathered(faults)
    roles: dict[str, str] = {}
    for block in blocks(faults):
        if not block.names:
            continue
        roles = roles or roles_of(block.names, columns, source)
        gathered.add(block, roles)
        if max_rows is not None and gathered.rows >= max_rows:
            break
    if not skip_faulty:
        faults.raise_if_any("correct these rows, or leave faulty ones out with skip_faulty = true")
    if not gathered.rows:
        raise DataError(f"{source}: no rows" + (f" left ({faults.count:,} are faulty)" if faults.count else ""))
    return gathered.table(source, max_rows)


class _Gathered:
    """Checked rows of the blocks so far."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._texts: dict[str, list[str]] = {}
        self._labels: list[int | str] = []
        self._scores: list[float] = []
        self.rows = 0

    def add(self, block: RecordBlock, roles: Mapping[str, str]) -> None:
        by_name = dict(zip(block.names, block.columns, strict=True))
        values = {role: by_name.get(name, [MISSING] * len(block)) for role, name in roles.items()}
        faulty: dict[int, str] = {}  # row of the block -> its first fault
        checked: dict[str, list[Any]] = {}
        for role, column in values.items():
            name = roles[role]
            if role == "score":
                checked[role] = _checked(column, _score, name, faulty)
            elif role == "label":
                checked[role] = self._checked_labels(column, name, faulty)
            else:
                checked[role] = _checked_texts(column, name, faulty)
        for row in sorted(faulty):
            self._faults.add(block.file, block.lines[row], faulty[row], has_lines=block.has_lines)
        if faulty:
            checked = {role: [v for i, v in enumerate(column) if i not in faulty] for role, column in checked.items()}
        self.rows += len(block) - len(faulty)
        self._labels += checked.pop("label", [])
        self._scores += checked.pop("score", [])
        for role, column in checked.items():
            self._texts.setdefault(role, []).extend(column)

    def _checked_labels(self, column: list[Any], name: str, faulty: dict[int, str]) -> list[Any]:
        """Whole numbers, or names of classes: what the first label of the data is decides."""
        labels: list[Any] = []
        for i, value in enumerate(column):
            try:
                label = _label(value)
                first = self._labels[0] if self._labels else next((v for v in labels if v is not None), label)
                if isinstance(first, str):
                    if not isinstance(value, str):
                        raise ValueError(f"is {value!r}, but the first label is a name ({first!r})")
                    label = value.strip()
                elif isinstance(label, str):
                    raise ValueError(f"is {label!r}, no whole number as the first label is ({first})")
                labels.append(label)
            except ValueError as error:
                labels.append(None)
                faulty.setdefault(i, f'column "{name}" {error}')
        return labels

    def table(self, source: str, max_rows: int | None) -> Table:
        labels = self._labels[:max_rows]
        if labels and isinstance(labels[0], str):
            number = {name: i for i, name in enumerate(sorted(set(labels), key=str))}
            labels = [number[name] for name in labels]
        label = np.array(labels, dtype=np.int64) if labels else None
        score = np.array(self._scores[:max_rows], dtype=np.float32) if self._scores else None
        texts = {role: column[:max_rows] for role, column in self._texts.items()}
        return Table(columns=texts, label=label, score=score, source=source, skipped=self._faults.count)


# ------------------------------------------------------------------------------------------- values
def _checked_texts(column: list[Any], name: str, faulty: dict[int, str]) -> list[Any]:
    try:
        stripped = [value.strip() for value in column]
        if all(stripped) and all(isinstance(value, str) for value in stripped):
            return stripped
    except AttributeError:
        pass
    return _checked(column, _text, name, faulty)


def _checked(column: list[Any], check: Any, name: str, faulty: dict[int, str]) -> list[Any]:
    checked: list[Any] = []
    for i, value in enumerate(column):
        try:
            checked.append(check(value))
        except ValueError as error:
            checked.append(None)
            faulty.setdefault(i, f'column "{name}" {error}')
    return checked


def _text(value: Any) -> str:
    if value is MISSING:
        raise ValueError("is missing")
    if value is None:
        raise ValueError("is empty (null); every row needs a text")
    if not isinstance(value, str):
        raise ValueError(f"is {_short(value)}, no text")
    if not value.strip():
        raise ValueError("is empty; every row needs a text")
    return value.strip()


def _score(value: Any) -> float:
    if value is MISSING:
        raise ValueError("is missing")
    try:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"is {_short(value)}, no number") from None
    if not math.isfinite(number):
        raise ValueError(f"is {_short(value)}; a score must be finite")
    return number


def _label(value: Any) -> int | str:
    if value is MISSING:
        raise ValueError("is missing")
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError("is empty; every row needs a label")
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"is {_short(value)}, neither a whole number nor a name")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return str(value).strip()
    if isinstance(value, str) and not math.isfinite(number):
        return value.strip()  # a class called "nan" or "infinity"
    if not number.is_integer() or abs(number) >= 2**53:
        raise ValueError(f"is {_short(value)}, no whole number; graded similarities belong in score")
    return int(number)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…"
