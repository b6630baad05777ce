"""SQL of single comparisons of metadata filters, with bound values.

Nothing of a filter is put into SQL as text except field names inside a JSON path, from which double quotes are barred.
Comparisons stand bare in the SQL, so that an index of the field serves them. As in SQL, a comparison with a field that
a document lacks is not satisfied.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from math import isfinite
from typing import Any

import numpy as np

from sentemb.errors import SearchError
from sentemb.search.store.documents import Condition, extract, spellings

MAX_MARKS = 1_000  # values bound one by one; SQLite takes 32,766 or more, as it was compiled
MAX_PARENTHESES = 28  # of the SQL; SQLite's parser has room for 100 symbols, up to three a parenthesis
OWN = ("id", "text")  # names that mean the document's own
Scalar = str | int | float | bool | None


def joined(parts: list[Condition], word: str) -> Condition:
    """Conditions under one word, as a balanced tree: SQLite refuses expressions deeper than 1000."""
    while len(parts) > 1:
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [
            Condition(f"({pair[0].sql}) {word} ({pair[1].sql})", pair[0].values + pair[1].values)
            if len(pair) == 2 else pair[0] for pair in pairs
        ]
    return parts[0]


def field_of(name: str) -> str:
    return name if name in OWN else extract(name)


def kind_of(name: str) -> str:
    """SQL expression of a field's type, in the words of JSON."""
    return f"typeof({name})" if name in OWN else extract(name, "json_type")


def bound_of(name: str, value: Any) -> Scalar:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str) and "\x00" in value:
        raise SearchError(f"filter on {name}: {value!r} holds a NUL, at which SQLite would cut it")
    if isinstance(value, str) and not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value):
        raise SearchError(f"filter on {name}: {value!r} is not valid Unicode")
    if isinstance(value, bool) or value is None or isinstance(value, (str, float)):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    raise SearchError(f"filter on {name}: {value!r} is not a text, number, true, false or null")


def compare(name: str, sign: str, value: Any) -> Condition:
    field, bound = field_of(name), bound_of(name, value)
    if name == "id" and sign == "=" and bound is not None:
        return one_of(name, [bound])
    if sign in ("=", "!="):
        if bound is None:
            return Condition(f"{field} IS {'NOT ' if sign == '!=' else ''}NULL", ())
        # "!=" is "has the field, and another value"
        return Condition(f"{field} {sign} ?", (bound,))
    if bound is None or isinstance(bound, bool):
        word = "null" if bound is None else str(bound).lower()
        raise SearchError(f"filter on {name}: {word} can only be compared with = or !=")
    # numbers with numbers and text with text only; SQLite would order them after one another
    kinds = "('text')" if isinstance(bound, str) else "('integer','real')"
    return Condition(f"{field} {sign} ? AND typeof({field}) IN {kinds}", (bound,))


def one_of(name: str, values: list[Any]) -> Condition:
    bound = tuple(bound_of(name, value) for value in values)
    if name == "id":  # 3 and "3" are one id
        bound = tuple(s for v in bound for s in (spellings(v) if type(v) in (int, str) else (v,)))  # type: ignore[arg-type]
    if None in bound:
        raise SearchError(f"filter on {name}: null cannot be in a list; write: {name} = null or {name} in (…)")
    if len(bound) > MAX_MARKS:
        finite = [value for value in bound if not isinstance(value, float) or isfinite(value)]  # no field holds others
        every = "SELECT value FROM json_each(?)"
        return Condition(f"{field_of(name)} IN ({every})", (json.dumps(finite),))
    return Condition(f"{field_of(name)} IN ({','.join('?' * len(bound))})", bound)


def member(name: str, value: Scalar, otherwise: Condition) -> Condition:
    """A list has the member; ``otherwise`` is for a field that is no list."""
    among = f"EXISTS (SELECT 1 FROM json_each({field_of(name)}) WHERE value = ?)"  # noqa: S608 - values are bound
    sql = f"CASE {kind_of(name)} WHEN 'array' THEN {among} ELSE {otherwise.sql} END"
    return Condition(sql, (bound_of(name, value), *otherwise.values))


def text_test(name: str, word: str, value: str) -> Condition:
    """``contains`` or ``startswith``; a list contains its members."""
    position = "> 0" if word == "contains" else "= 1"
    test = Condition(f"{kind_of(name)} = 'text' AND instr({field_of(name)}, ?) {position}", (bound_of(name, value),))
    return member(name, value, test) if word == "contains" else test


def negated(condition: Condition) -> Condition:
    """What does not satisfy the condition; unknown does not."""
    return Condition(f"({condition.sql}) IS NOT TRUE", condition.values)


def check_depth(condition: Condition) -> Condition:
    """The condition, unless SQLite could not read it (names stand in quotes, values are bound).

    Raises:
        SearchError: brackets are nested too deeply.
    """
    steps = [1 if sign == "(" else -1 for sign in re.findall(r"[()]", re.sub(r"'[^']*'", "", condition.sql))]
    if max(accumulate(steps), default=0) > MAX_PARENTHESES:
        raise SearchError("filter is nested deeper than SQLite reads; take brackets and nots away")
    return condition
