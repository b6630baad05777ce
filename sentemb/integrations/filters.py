"""Filter expressions of ``sentemb.search.query.expression``, written by programs: names and values are quoted here.

Every library has filters of its own; its file in this folder turns them into calls of these functions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import date, time
from typing import Any

from sentemb.errors import SearchError


class Own(str):
    """A name that means the document's own, not a metadata field."""


OWN_ID, OWN_TEXT = Own("id"), Own("text")
NOTHING = "id = null"  # every document has an id
EVERYTHING = "id != null"
ORDERS = ("<", "<=", ">", ">=")


def compared(name: str, sign: str, value: Any) -> str:
    """``name sign value``; equal to null is: has no such field.

    Args:
        sign: = < <= > >= contains startswith.
    """
    return f"{_name(name)} {sign} {_value(name, value)}"


def among(name: str, values: Iterable[Any]) -> str:
    """The field is one of the values, of which null is: has no such field."""
    values = list(values)
    given = [_value(name, value) for value in values if value is not None]
    parts = [f"{_name(name)} in ({', '.join(given)})"] if given else []
    return any_of([*parts, *([compared(name, "=", None)] if None in values else [])])


def has_member(name: str, value: Any) -> str:
    """The field is a list with this member."""
    return f"{_value(name, value)} in {_name(name)}"


def all_of(parts: Iterable[str]) -> str:
    """Every part holds; of none, everything."""
    return _joined(list(parts), "and") or EVERYTHING


def any_of(parts: Iterable[str]) -> str:
    """A part holds; of none, nothing."""
    return _joined(list(parts), "or") or NOTHING


def negated(part: str) -> str:
    """The part does not hold, for instance because the document lacks the field."""
    return f"not ({part})"


def of_operators(where: Mapping[str, Any] | str | None) -> str | None:
    """The expression of a filter with MongoDB's operators, which LangChain's stores share; an expression is left alone.

    ``{"year": {"$gte": 2020}, "lang": {"$in": ["en", "de"]}, "$or": [{"draft": False}, {"draft": None}]}``

    ``$eq $ne $gt $gte $lt $lte $in $nin`` of fields, a plain value for ``$eq``, and ``$and $or $not`` of filters.
    As in MongoDB, ``$ne`` and ``$nin`` also find documents without the field.

    Raises:
        SearchError: an operator that there is not, or a value that it does not take.
    """
    if where is None or isinstance(where, str):
        return where
    if not isinstance(where, Mapping):
        raise SearchError(f"a filter is a mapping of fields, or an expression such as 'year >= 2020'; found {where!r}")
    return all_of(_of_entry(name, value) for name, value in where.items())


def _of_entry(name: Any, value: Any) -> str:
    if name in ("$and", "$or"):
        if not isinstance(value, (list, tuple)):
            raise SearchError(f"filter: {name} takes a list of filters; found {value!r}")
        parts = [of_operators(_mapping(name, part)) or EVERYTHING for part in value]
        return all_of(parts) if name == "$and" else any_of(parts)
    if name == "$not":
        return negated(of_operators(_mapping(name, value)) or EVERYTHING)
    if not isinstance(name, str) or name.startswith("$"):
        raise SearchError(f"filter: {name!r} is no field; between filters stand $and, $or, $not")
    if not isinstance(value, Mapping):
        return compared(name, "=", value)
    return all_of(_of_operator(name, operator, operand) for operator, operand in value.items())


def _of_operator(name: str, operator: str, value: Any) -> str:
    orders = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
    if operator in orders:
        return compared(name, orders[operator], value)
    if operator in ("$in", "$nin") and not isinstance(value, (list, tuple, set, frozenset)):
        raise SearchError(f"filter on {name}: {operator} takes a list; found {value!r}")
    if operator in ("$in", "$nin"):
        return among(name, value) if operator == "$in" else negated(among(name, value))
    if operator in ("$eq", "$ne"):
        return compared(name, "=", value) if operator == "$eq" else negated(compared(name, "=", value))
    if operator == "$not":
        return negated(_of_entry(name, _mapping(operator, value)))
    raise SearchError(f"filter on {name}: no operator {operator!r}; known: $eq $ne $gt $gte $lt $lte $in $nin $not")


def _mapping(operator: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SearchError(f"filter: {operator} takes a mapping; found {value!r}")
    return value


def _joined(parts: list[str], word: str) -> str:
    return parts[0] if len(parts) == 1 else f" {word} ".join(f"({part})" for part in parts)


def _name(name: str) -> str:
    if isinstance(name, Own):
        return name
    if not isinstance(name, str) or not name or "`" in name:
        raise SearchError(f"filter: a field's name is a text without backticks; found {name!r}")
    return f"`{name}`"


def _value(name: str, value: Any) -> str:
    """A value as expressions write it; dates as documents keep them."""
    value = value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value
    if isinstance(value, (date, time)):
        value = value.isoformat()
    if value is not None and not isinstance(value, (str, bool, int, float)):
        raise SearchError(f"filter on {name}: {value!r} is not a text, number, date, true, false or null")
    if isinstance(value, float) and not math.isfinite(value):
        raise SearchError(f"filter on {name}: {value} is no number that a document can have")
    return json.dumps(value, ensure_ascii=False)
