"""Texts, labels and numbers of a data set under their roles, checked row by row."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.data.faults import Faults
from sentemb.data.formats import MISSING, RecordBlock
from sentemb.data.roles import kind_of, roles_of, text_of
from sentemb.data.texts import Texts
from sentemb.errors import DataError
from sentemb.types import UNKNOWN, RowFacts


@dataclass(frozen=True, kw_only=True)
class Table(RowFacts):
    """Text columns that share their rows, under their roles."""

    columns: Mapping[str, Sequence[str]]  # "anchor", "positive", "positive_2", "negative_1", … in this order
    prefixes: Mapping[str, str] = field(default_factory=dict)  # role -> the prompt or template of its texts
    source: str = ""  # for messages
    skipped: int = 0  # faulty rows that were left out, where that was asked for

    def __len__(self) -> int:
        return len(self.columns["anchor"])


def read_table(
    blocks: Callable[[Faults], Iterable[RecordBlock]], source: str, *, columns: Mapping[str, str],
    max_rows: int | None, skip_faulty: bool, together: Sequence[frozenset[str]] = (),
) -> Table:  # fmt: skip
    """Read a data set whole; ``source`` is its name in messages. Texts lose white space at both ends. Of the text
    columns of each group of ``together`` a row may lack all but one.

    Raises: DataError that names the first ten faulty rows by file and line: bytes that are not UTF-8, broken JSON or
        csv, a column that a row lacks, empty text, a number that is none or outside its range, labels whose levels
        are no hierarchy.
    """
    faults = Faults()
    checked = _Checked(faults, together)
    roles: dict[str, str] = {}
    for block in blocks(faults):
        if not block.names:
            continue
        roles = roles or roles_of(block.names, columns, source)
        checked.add(block, roles)
        if max_rows is not None and len(checked.texts["anchor"]) >= max_rows:
            break
    if not skip_faulty:
        faults.raise_if_any("correct these rows, or leave faulty ones out with skip_faulty = true")
    texts, values = checked.texts, {role: column[:max_rows] for role, column in checked.values.items()}
    for column in texts.values():
        column.truncate(len(column) if max_rows is None else max_rows)
    if not texts["anchor"]:
        raise DataError(f"{source}: no rows" + (f" left ({faults.count:,} are faulty)" if faults.count else ""))
    names = sorted(set(values["label"])) if "label" in roles and isinstance(values["label"][0], str) else ()
    labels = [_coded(values[role]) for role in roles if kind_of(role) == "label"]
    numbers = {
        role: np.array(values[role], dtype=np.float32) for role in roles if kind_of(role) not in ("text", "label")
    }
    return Table(
        columns={role: texts[role].plain() for role in roles if kind_of(role) == "text"},
        label=labels[0] if labels else None, label_names=tuple(names),
        levels=np.stack(labels[1:], axis=1) if len(labels) > 1 else None,
        grades={text_of(role): grade for role, grade in numbers.items() if kind_of(role) == "grade"},
        negative_scores={text_of(role): score for role, score in numbers.items() if role.startswith("score_")},
        score=numbers.get("score"), margin=numbers.get("margin"), weight=numbers.get("weight"),
        source=source, skipped=faults.count,
    )


def _coded(labels: Sequence[Any]) -> NDArray[np.int64]:
    """Whole numbers as they are, names by their place in the alphabet."""
    if isinstance(labels[0], str):
        return np.unique(labels, return_inverse=True)[1].astype(np.int64)
    return np.array(labels, dtype=np.int64)


# -------------------------------------------------------------------------------------------- values
class _Checked:
    """Checked rows of the blocks so far."""

    def __init__(self, faults: Faults, together: Sequence[frozenset[str]]) -> None:
        self._faults, self._together = faults, together
        self._first_label: dict[str, int | str] = {}  # by role
        self._coarser: dict[tuple[str, int | str], tuple[int | str, str]] = {}  # label -> the one above it, and where
        self.texts = {"anchor": Texts()}  # by role
        self.values: dict[str, list[Any] | array[float]] = {}  # labels and numbers by role

    def add(self, block: RecordBlock, roles: Mapping[str, str]) -> None:
        by_name = dict(zip(block.names, block.columns, strict=True))
        faulty: dict[int, str] = {}  # row of the block -> its first fault
        checked = {
            role: self._column(role, name, by_name.get(name, [MISSING] * len(block)), faulty)
            for role, name in roles.items()
        }
        self._check_levels(block, [role for role in roles if kind_of(role) == "label"], roles, checked, faulty)
        for group in self._together:
            texts = [checked[role] for role in roles if role in group]
            names = '", "'.join(roles[role] for role in roles if role in group)
            for i in (i for i, values in enumerate(zip(*texts, strict=True)) if not any(values)):
                faulty.setdefault(i, f'has no text in any of "{names}"')
        grades = [checked[role] for role in roles if kind_of(role) == "grade"]
        for i, graded in enumerate(zip(*grades, strict=True)):
            if i not in faulty and not any(graded):
                faulty[i] = "has no grade above 0; something in its list must be relevant"
        for row in sorted(faulty):
            self._faults.add(block.file, block.lines[row], faulty[row], has_lines=block.has_lines)
        for role, column in checked.items():
            good = column if not faulty else [value for i, value in enumerate(column) if i not in faulty]
            if kind_of(role) == "text":
                self.texts.setdefault(role, Texts()).extend(good)
            else:
                self.values.setdefault(role, [] if kind_of(role) == "label" else array("d")).extend(good)

    def _check_levels(
        self, block: RecordBlock, levels: list[str], names: Mapping[str, str], checked: Mapping[str, list[Any]],
        faulty: dict[int, str],
    ) -> None:
        """Rows of one label must agree in every coarser one."""
        for fine, coarse in pairwise(levels):
            for i, (label, above) in enumerate(zip(checked[fine], checked[coarse], strict=True)):
                if i in faulty or UNKNOWN in (label, above):
                    continue
                first, where = self._coarser.setdefault((fine, label), (above, block.where(i)))
                if above != first:
                    faulty[i] = (
                        f'column "{names[fine]}" is {label!r} below "{names[coarse]}" {above!r}, but {where} has it '
                        f"below {first!r}; a label lies below one coarser label, and the finest column comes first"
                    )

    def _column(self, role: str, name: str, column: list[Any], faulty: dict[int, str]) -> list[Any]:
        kind = kind_of(role)
        checks: dict[str, Callable[[Any], Any]] = {
            "text": _text_or_none if any(role in group for group in self._together) else _text,
            "label": partial(self._label, role), "weight": _at_least_0, "grade": _at_least_0,
        }
        check = checks.get(kind, _number)
        if check in (_text, _text_or_none) and set(map(type, column)) <= {str}:
            stripped = list(map(str.strip, column))
            if check is _text_or_none or all(stripped):
                return stripped
        checked: list[Any] = []
        for i, value in enumerate(column):
            try:
                if value is MISSING and check is not _text_or_none:
                    raise ValueError("is missing")
                checked.append(check(value))
            except ValueError as error:
                checked.append(None)
                faulty.setdefault(i, f'column "{name}" {error}')
        return checked

    def _label(self, role: str, value: Any) -> int | str:
        """A whole number, or the name of a class: what the first label of the column is decides."""
        label, first = _label(value), self._first_label.get(role)
        if first is None:
            self._first_label[role] = label
        elif isinstance(first, str) and isinstance(value, str):
            return value.strip()
        elif type(label) is not type(first):
            kind = "the name of a class" if isinstance(first, str) else "a whole number"
            raise ValueError(f"is {short(value)}, but the first label is {kind} ({first!r})")
        return label


def _text(value: Any) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError("is empty; every row needs a text")
    if not isinstance(value, str):
        raise ValueError(f"is {short(value)}, no text")
    return value.strip()


def _text_or_none(value: Any) -> str:
    is_absent = value is MISSING or value is None or (isinstance(value, str) and not value.strip())
    return "" if is_absent else _text(value)


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"is {short(value)}; it must be a finite number")
    return number


def _at_least_0(value: Any) -> float:
    number = _number(value)
    if number < 0:
        raise ValueError(f"is {short(value)}; it must be at least 0")
    return number


def _label(value: Any) -> int | str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError("is empty; every row needs a label")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, str) and not math.isfinite(number):
        return value.strip()  # also a class called "nan" or "infinity"
    if not number.is_integer() or abs(number) >= 2**53:
        raise ValueError(f"is {short(value)}, neither a whole number nor a name; graded similarities belong in score")
    return int(number)
