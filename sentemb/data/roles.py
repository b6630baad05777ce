"""Which column of a file is the anchor, the positive, a negative, the label, the score."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from sentemb.errors import DataError, did_you_mean

NUMBERS = {"label": "label", "labels": "label", "score": "score", "scores": "score"}
# columns of well-known data sets that come with others (genre, split, year), which are no negatives
CONVENTIONS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("sent0", "sent1", "hard_neg"), ("sent0", "sent1"),
)  # fmt: skip
_NEGATIVE = re.compile(r"negative_[1-9]\d*")
ROLES = ("anchor", "positive", "negative", "negative_1", "negative_n", "label", "score")


def is_role(name: str) -> bool:
    """Whether ``name`` is one of anchor, positive, negative, negative_1 … negative_n, label, score."""
    return (name != "negative_n" and name in ROLES) or bool(_NEGATIVE.fullmatch(name))


def roles_of(names: Sequence[str], mapping: Mapping[str, str] | None, where: str) -> dict[str, str]:
    """Role -> column name, in the order anchor, positive, negative_1, …, label, score.

    With a mapping, exactly what it says. Otherwise by name if there is a column ``anchor`` or one of ``CONVENTIONS``
    holds; otherwise by order: the columns are anchor, positive, negative_1, … ``label`` and ``score`` go by name.

    Raises: DataError where a mapped column is absent or nothing can be the anchor.
    """
    if not names:
        raise DataError(f"{where}: no rows")
    if len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise DataError(f"{where}: column names must be distinct and not empty; found: {', '.join(names)}")
    if mapping:
        column_of = _mapped(names, mapping, where)
    elif "anchor" in names:
        column_of = {name: name for name in names if is_role(name)}
    else:
        convention = next((known for known in CONVENTIONS if set(known) <= set(names)), None)
        texts = list(convention or [name for name in names if name not in NUMBERS])
        if not texts:
            raise DataError(f"{where}: no text column; found: {', '.join(names)}")
        by_order = ["anchor", "positive", *(f"negative_{i}" for i in range(1, len(texts)))]
        column_of = dict(zip(by_order, texts, strict=False))
        column_of |= {NUMBERS[name]: name for name in names if name in NUMBERS}
    return _in_order(column_of, where)


def _mapped(names: Collection[str], mapping: Mapping[str, str], where: str) -> dict[str, str]:
    for role, name in mapping.items():
        if name not in names:
            raise DataError(f'{where}: columns: {role} = "{name}" is not in the file{did_you_mean(name, names)}')
    if "anchor" not in mapping:
        raise DataError(f'{where}: columns must name the anchor, e.g. columns = {{ anchor = "{next(iter(names))}" }}')
    return dict(mapping)


def _in_order(column_of: dict[str, str], where: str) -> dict[str, str]:
    """Negatives are renumbered from 1 without gaps."""
    negatives = sorted((role for role in column_of if role.startswith("negative")), key=_number)
    if "negative" in negatives and "negative_1" in negatives:
        raise DataError(f"{where}: both a column negative and a column negative_1; rename one")
    if negatives and "positive" not in column_of:
        raise DataError(f"{where}: negatives without a positive column; found: {', '.join(column_of.values())}")
    ordered: dict[str, str] = {role: column_of[role] for role in ("anchor", "positive") if role in column_of}
    ordered |= {f"negative_{i}": column_of[role] for i, role in enumerate(negatives, 1)}
    return ordered | {role: column_of[role] for role in ("label", "score") if role in column_of}


def _number(role: str) -> int:
    return int(role.rpartition("_")[2]) if "_" in role else 1
