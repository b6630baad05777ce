"""Texts, labels, scores and margins of a data set under their roles, checked row by row."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.data.faults import Faults
from sentemb.data.formats import MISSING, RecordBlock
from sentemb.errors import DataError, did_you_mean

ROLES = ("anchor", "positive", "negative", "negative_1", "negative_n", "label", "score", "margin")
_ROLE = re.compile(r"anchor|positive|negative(_[1-9]\d*)?|label|score|margin")
_NUMBERS = {
    "label": "label", "labels": "label", "score": "score", "scores": "score", "margin": "margin", "margins": "margin",
}  # fmt: skip
# columns of well-known data sets that come with others (genre, split, year), which are no negatives
_CONVENTIONS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("sent0", "sent1", "hard_neg"), ("sent0", "sent1"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Table:
    """Text columns that share their rows, under their roles."""

    columns: Mapping[str, list[str]]  # "anchor", "positive", "negative_1", … in this order
    label: NDArray[np.int64] | None = None  # (rows,) class of the anchor
    score: NDArray[np.float32] | None = None  # (rows,) graded similarity of anchor and positive
    margin: NDArray[np.float32] | None = None  # (rows,) by how much the positive is to be preferred
    prefixes: Mapping[str, str] = field(default_factory=dict)  # role -> what is put in front of its texts
    source: str = ""  # for messages
    skipped: int = 0  # faulty rows that were left out, where that was asked for

    def __len__(self) -> int:
        return len(self.columns["anchor"])


def read_table(
    blocks: Callable[[Faults], Iterable[RecordBlock]], source: str, *, columns: Mapping[str, str],
    max_rows: int | None, skip_faulty: bool,
) -> Table:  # fmt: skip
    """Read a data set whole; ``source`` is its name in messages. Texts lose white space at both ends.

    Raises: DataError that names the first ten faulty rows by file and line: bytes that are not UTF-8, broken JSON or
        csv, a column that a row lacks, empty text, a label, score or margin that is no number.
    """
    faults = Faults()
    checked = _Checked(faults)
    roles: dict[str, str] = {}
    for block in blocks(faults):
        if not block.names:
            continue
        roles = roles or roles_of(block.names, columns, source)
        checked.add(block, roles)
        if max_rows is not None and len(checked.values["anchor"]) >= max_rows:
            break
    if not skip_faulty:
        faults.raise_if_any("correct these rows, or leave faulty ones out with skip_faulty = true")
    values = {role: column[:max_rows] for role, column in checked.values.items()}
    if not values.get("anchor"):
        raise DataError(f"{source}: no rows" + (f" left ({faults.count:,} are faulty)" if faults.count else ""))
    labels, scores, margins = (values.pop(role, None) for role in ("label", "score", "margin"))
    if labels and isinstance(labels[0], str):
        labels = np.unique(labels, return_inverse=True)[1].tolist()
    return Table(
        columns=values, source=source, skipped=faults.count,
        label=None if labels is None else np.array(labels, dtype=np.int64),
        score=None if scores is None else np.array(scores, dtype=np.float32),
        margin=None if margins is None else np.array(margins, dtype=np.float32),
    )  # fmt: skip


# -------------------------------------------------------------------------------------------- roles
def is_role(name: str) -> bool:
    """Whether ``name`` is one of anchor, positive, negative, negative_1 … negative_n, label, score, margin."""
    return bool(_ROLE.fullmatch(name))


def roles_of(names: Sequence[str], mapping: Mapping[str, str], where: str) -> dict[str, str]:
    """Role -> column name, in the order anchor, positive, negative_1, …, label, score, margin.

    With a mapping, exactly what it says. Otherwise by name if there is a column ``anchor`` or one of the conventions
    of well-known data sets holds; otherwise by order: the columns are anchor, positive, negative_1, … ``label``,
    ``score`` and ``margin`` go by name.

    Raises: DataError where a mapped column is absent or nothing can be the anchor.
    """
    if len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise DataError(f"{where}: column names must be distinct and not empty; found: {', '.join(names)}")
    if mapping:
        for role, name in mapping.items():
            if name not in names:
                raise DataError(f'{where}: columns: {role} = "{name}" is not in the file{did_you_mean(name, names)}')
        column_of = dict(mapping)
    elif "anchor" in names:
        column_of = {name: name for name in names if is_role(name)}
    else:
        convention = next((known for known in _CONVENTIONS if set(known) <= set(names)), None)
        texts = convention or [name for name in names if name not in _NUMBERS]
        by_order = ["anchor", "positive", *(f"negative_{i}" for i in range(1, len(texts)))]
        column_of = dict(zip(by_order, texts, strict=False))
        column_of |= {_NUMBERS[name]: name for name in names if name in _NUMBERS}
    if "anchor" not in column_of:
        raise DataError(f'{where}: no anchor; name it with columns = {{ anchor = … }}; found: {", ".join(names)}')
    return _in_order(column_of, where)


def _in_order(column_of: Mapping[str, str], where: str) -> dict[str, str]:
    """Negatives are renumbered from 1 without gaps."""
    negatives = [role for role in column_of if role.startswith("negative")]
    negatives.sort(key=lambda role: int(role.partition("_")[2] or 1))
    if {"negative", "negative_1"} <= set(negatives):
        raise DataError(f"{where}: both a column negative and a column negative_1; rename one")
    if negatives and "positive" not in column_of:
        raise DataError(f"{where}: negatives without a positive column; found: {', '.join(column_of.values())}")
    ordered = {role: column_of[role] for role in ("anchor", "positive") if role in column_of}
    ordered |= {f"negative_{i}": column_of[role] for i, role in enumerate(negatives, 1)}
    return ordered | {role: column_of[role] for role in ("label", "score", "margin") if role in column_of}


# -------------------------------------------------------------------------------------------- values
class _Checked:
    """Checked rows of the blocks so far."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._first_label: int | str | None = None
        self.values: dict[str, list[Any]] = {"anchor": []}  # by role

    def add(self, block: RecordBlock, roles: Mapping[str, str]) -> None:
        by_name = dict(zip(block.names, block.columns, strict=True))
        faulty: dict[int, str] = {}  # row of the block -> its first fault
        checked = {
            role: self._column(role, name, by_name.get(name, [MISSING] * len(block)), faulty)
            for role, name in roles.items()
        }
        for row in sorted(faulty):
            self._faults.add(block.file, block.lines[row], faulty[row], has_lines=block.has_lines)
        for role, column in checked.items():
            good = column if not faulty else [value for i, value in enumerate(column) if i not in faulty]
            self.values.setdefault(role, []).extend(good)

    def _column(self, role: str, name: str, column: list[Any], faulty: dict[int, str]) -> list[Any]:
        check = {"label": self._label, "score": _number, "margin": _number}.get(role, _text)
        if check is _text and set(map(type, column)) <= {str} and all(stripped := list(map(str.strip, column))):
            return stripped
        checked: list[Any] = []
        for i, value in enumerate(column):
            try:
                if value is MISSING:
                    raise ValueError("is missing")
                checked.append(check(value))
            except ValueError as error:
                checked.append(None)
                faulty.setdefault(i, f'column "{name}" {error}')
        return checked

    def _label(self, value: Any) -> int | str:
        """A whole number, or the name of a class: what the first label of the data is decides."""
        label, first = _label(value), self._first_label
        if first is None:
            self._first_label = label
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


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"is {short(value)}; it must be a finite number")
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
