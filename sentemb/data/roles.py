"""What the columns of a data set are: texts, labels and numbers, by name or by order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from sentemb.errors import DataError, did_you_mean

ROLES = (
    "anchor", "anchor_2", "anchor_n", "positive", "positive_2", "positive_n", "negative", "negative_1", "negative_n",
    "label", "label_2", "label_n", "score", "score_1", "score_n", "margin", "weight", "grade_0", "grade_1", "grade_n",
)  # fmt: skip
Kind = Literal["text", "label", "score", "margin", "weight", "grade"]
_NUMBERED = r"_(?:[2-9]|[1-9]\d+)"  # _2, _3, …
_ROLE = re.compile(
    rf"(?P<text>(?:anchor|positive)(?:{_NUMBERED})?|negative(?:_[1-9]\d*)?)|(?P<label>label(?:{_NUMBERED})?)|"
    r"(?P<score>score(?:_[1-9]\d*)?)|(?P<margin>margin)|(?P<weight>weight)|(?P<grade>grade_(?:0|[1-9]\d*))"
)
_PLURAL = {"labels": "label", "scores": "score", "margins": "margin", "weights": "weight"}
# columns of well-known data sets that come with others (genre, split, year), which are no negatives
_CONVENTIONS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("sent0", "sent1", "hard_neg"), ("sent0", "sent1"),
)  # fmt: skip


def is_role(name: str) -> bool:
    """Whether ``name`` is one of ``ROLES``, with any number for n."""
    return bool(_ROLE.fullmatch(name))


def kind_of(role: str) -> Kind:
    """What a column of this role holds."""
    match = _ROLE.fullmatch(role)
    assert match is not None, role
    return match.lastgroup  # type: ignore[return-value]


def text_of(role: str) -> str:
    """The text column that a score or grade is of: the positive, or ``negative_k`` for ``score_k`` and ``grade_k``."""
    number = _number(role)
    return f"negative_{number}" if number else "positive"


def roles_of(names: Sequence[str], mapping: Mapping[str, str], where: str) -> dict[str, str]:
    """Role -> column name: anchor, positive, positive_2, …, negative_1, …, label, label_2, …, and the numbers.

    With a mapping, exactly what it says. Otherwise by name if there is a column ``anchor`` or one of the conventions
    of well-known data sets holds; otherwise by order: the columns are anchor, positive, negative_1, … Labels and
    numbers go by name.

    Raises: DataError where a mapped column is absent, nothing can be the anchor, or a column lacks the one that it
        belongs to.
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
        others = {name: role for name in names if is_role(role := _PLURAL.get(name, name)) and kind_of(role) != "text"}
        texts = convention or [name for name in names if name not in others]
        by_order = ["anchor", "positive", *(f"negative_{i}" for i in range(1, len(texts)))]
        column_of = dict(zip(by_order, texts, strict=False)) | {role: name for name, role in others.items()}
    if "anchor" not in column_of:
        raise DataError(f'{where}: no anchor; name it with columns = {{ anchor = … }}; found: {", ".join(names)}')
    return _in_order(column_of, where)


def _number(role: str) -> int | None:
    return int(number) if (number := role.rpartition("_")[2]).isdigit() else None


def _in_order(column_of: Mapping[str, str], where: str) -> dict[str, str]:
    """Positives, negatives and labels are renumbered without gaps, scores and grades with their negatives."""

    def numbered(word: str, first: int) -> dict[int, str]:
        roles = {_number(role) or first: role for role in column_of if role.partition("_")[0] == word}
        return dict(sorted(roles.items()))

    anchors, positives, negatives, labels = (numbered(word, 1) for word in ("anchor", "positive", "negative", "label"))
    if {"negative", "negative_1"} <= column_of.keys():
        raise DataError(f"{where}: both a column negative and a column negative_1; rename one")
    if negatives and not positives:
        raise DataError(f"{where}: negatives without a positive column; found: {', '.join(column_of.values())}")
    for word, columns in (("positive", positives), ("label", labels)):
        if columns and word not in column_of:
            raise DataError(f"{where}: a column {next(iter(columns.values()))} without a column {word}")
    ordered: dict[str, str] = {}
    for word, columns in (("anchor", anchors), ("positive", positives), ("negative", negatives), ("label", labels)):
        for k, role in enumerate(columns.values(), 1):
            ordered[f"{word}_{k}" if k > 1 or word == "negative" else word] = column_of[role]
    return ordered | {role: column_of[role] for role in ("margin", "weight") if role in column_of} | _lists(
        column_of, [0] * bool(positives) + list(negatives), where
    )


def _lists(column_of: Mapping[str, str], numbers: Sequence[int], where: str) -> dict[str, str]:
    """Scores and grades of an anchor's list: its positive (0) and its negatives, which are renumbered."""
    lists: dict[str, str] = {}
    for word, first in (("score", "score"), ("grade", "grade_0")):
        roles = {_number(role) or 0: role for role in column_of if kind_of(role) == word}
        if list(roles.values()) == ["score"]:  # of the pair alone
            lists["score"] = column_of["score"]
        elif roles and set(roles) != set(numbers):
            wanted = ", ".join(f"{word}_{k}" if k else first for k in numbers) or "none"
            raise DataError(
                f"{where}: {word}s go with the positive ({first}) and with every negative; found "
                f"{', '.join(sorted(roles.values()))}, expected {wanted}"
            )
        elif roles:
            lists |= {f"{word}_{k}" if k else first: column_of[roles[number]] for k, number in enumerate(numbers)}
    return lists
