"""Metadata filters: a small expression language, parsed here and run by SQLite with bound values.

    year >= 2020 and lang in ("en", "de") and not (title contains "draft" or score = null)

Comparisons: ``= == != < <= > >=``, ``in (…)``, ``= null``; ``contains`` (a text has a part, a list has a member),
``"cat" in tags`` (a list has a member) and ``startswith``. Names are metadata fields (quote odd ones with backticks);
``author.name`` is also the field ``name`` of the field ``author``; ``id`` and ``text`` mean the document's own. Texts
stand in quotes, with the escapes of JSON.

Nothing of the expression is put into SQL as text except field names inside a JSON path, from which double quotes are
barred. As in SQL, a comparison with a field that a document lacks is not satisfied, and its ``not`` is: ``not year =
2020`` finds documents without a year. Comparisons stand bare in the SQL, so that an index of the field serves them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import accumulate
from math import isfinite
from typing import Any

import numpy as np

from sentemb.errors import SearchError, did_you_mean
from sentemb.search.store.documents import Condition, extract
from sentemb.search.store.generation import Generation

MAX_DEPTH = 50
MAX_MARKS = 1_000  # values bound one by one; SQLite takes 32,766 or more, as it was compiled
MAX_PARENTHESES = 28  # of the SQL; SQLite's parser has room for 100 symbols, up to three a parenthesis
OWN = ("id", "text")  # names that mean the document's own
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"""|(?P<quoted>`[^`]+`)|(?P<name>[^\W\d][\w.-]*)|(?P<sign><=|>=|==|!=|<|>|=|\(|\)|,))""",
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "/": "/", "\\": "\\", '"': '"', "'": "'"}
_WORDS = frozenset({"and", "or", "not", "in", "contains", "startswith", "null", "true", "false"})
Scalar = str | int | float | bool | None


def condition(where: str | Mapping[str, Any] | None) -> Condition | None:
    """Compile a filter: an expression, or a mapping of field to value, list of values, or (low, high) tuple.

    Raises:
        SearchError: the expression cannot be read; says where.
    """
    if where is None:
        return None
    if isinstance(where, str):
        return _Parser(where).parse()
    if not isinstance(where, Mapping):
        raise SearchError(f"a filter is an expression or a mapping of fields; found {where!r}")
    parts = [_from_pair(name, value) for name, value in where.items()]
    if not parts:
        return None
    return _joined(parts, "AND")


def fields_of(where: str | Mapping[str, Any] | None) -> list[str]:
    """Metadata fields that a filter names, each once, in order.

    Raises:
        SearchError: the expression cannot be read.
    """
    if isinstance(where, str):
        parser = _Parser(where)
        parser.parse()
        names = parser.names
    else:
        names = list(where or ())
    return [name for name in dict.fromkeys(names) if name not in OWN]


def absent_fields(generation: Generation, where: str | Mapping[str, Any] | None) -> str | None:
    """What a filter names that no document has, beside what there is; None where all names are known.

    A look through every document, so for filters that found nothing.
    """
    documents = [segment.documents for segment in generation.segments]
    absent = [name for name in fields_of(where) if not any(part.has_field(name) for part in documents)]
    if not absent:
        return None
    known = {name for part in documents for name in part.fields()}
    return f'no document has the field "{absent[0]}"{did_you_mean(absent[0], {*known, *OWN})}'


def _joined(parts: list[Condition], word: str) -> Condition:
    """Conditions under one word, as a balanced tree: SQLite refuses expressions deeper than 1000."""
    while len(parts) > 1:
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [
            Condition(f"({pair[0].sql}) {word} ({pair[1].sql})", pair[0].values + pair[1].values)
            if len(pair) == 2 else pair[0] for pair in pairs
        ]
    return parts[0]


def _from_pair(name: Any, value: Any) -> Condition:
    if not isinstance(name, str):
        raise SearchError(f"a filter's fields are texts; found {name!r}")
    if isinstance(value, tuple):
        if len(value) != 2:
            raise SearchError(f"where[{name!r}]: a tuple is a range (low, high), either may be None; found {value!r}")
        low, high = value
        bounds = [_compare(name, sign, v) for sign, v in ((">=", low), ("<=", high)) if v is not None]
        if not bounds:
            return Condition("1", ())
        return _joined(bounds, "AND")
    if isinstance(value, (list, set, frozenset)):
        return _one_of(name, list(value))
    return _compare(name, "=", value)


def _field(name: str) -> str:
    return name if name in OWN else extract(name)


def _kind(name: str) -> str:
    """SQL expression of a field's type, in the words of JSON."""
    return f"typeof({name})" if name in OWN else extract(name, "json_type")


def _bind(name: str, value: Any) -> Scalar:
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


def _compare(name: str, sign: str, value: Any) -> Condition:
    field, bound = _field(name), _bind(name, value)
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


def _one_of(name: str, values: list[Any]) -> Condition:
    bound = tuple(_bind(name, value) for value in values)
    if None in bound:
        raise SearchError(f"filter on {name}: null cannot be in a list; write: {name} = null or {name} in (…)")
    if len(bound) > MAX_MARKS:
        finite = [value for value in bound if not isinstance(value, float) or isfinite(value)]  # no field holds others
        every = "SELECT value FROM json_each(?)"
        return Condition(f"{_field(name)} IN ({every})", (json.dumps(finite),))
    return Condition(f"{_field(name)} IN ({','.join('?' * len(bound))})", bound)


def _member(name: str, value: Scalar, otherwise: Condition) -> Condition:
    """A list has the member; ``otherwise`` is for a field that is no list."""
    among = f"EXISTS (SELECT 1 FROM json_each({_field(name)}) WHERE value = ?)"  # noqa: S608 - values are bound
    sql = f"CASE {_kind(name)} WHEN 'array' THEN {among} ELSE {otherwise.sql} END"
    return Condition(sql, (_bind(name, value), *otherwise.values))


def _parentheses(sql: str) -> int:
    """Depth of nesting (names stand in quotes, values are bound)."""
    steps = [1 if sign == "(" else -1 for sign in re.findall(r"[()]", re.sub(r"'[^']*'", "", sql))]
    return max(accumulate(steps), default=0)


class _Parser:
    """Recursive descent: or < and < not < comparison."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tokens: list[tuple[str, str, int]] = []
        place = 0
        while place < len(source.rstrip()):
            match = _TOKEN.match(source, place)
            if match is None:
                raise self._fault(place, "cannot be read")
            kind = str(match.lastgroup)
            self.tokens.append((kind, match.group(kind), match.start(kind)))
            place = match.end()
        self.at = 0
        self.depth = 0
        self.names: list[str] = []

    def parse(self) -> Condition:
        if not self.tokens:
            raise SearchError('filter is empty; example: year >= 2020 and lang = "en"')
        found = self._any()
        if self.at < len(self.tokens):
            raise self._fault(self.tokens[self.at][2], "is left over; expected and, or, or the end")
        if _parentheses(found.sql) > MAX_PARENTHESES:
            raise SearchError("filter is nested deeper than SQLite reads; take brackets and nots away")
        return found

    def _any(self) -> Condition:
        return self._chain("or", self._all)

    def _all(self) -> Condition:
        return self._chain("and", self._not)

    def _chain(self, word: str, part: Any) -> Condition:
        parts = [part()]
        while self._take_word(word):
            parts.append(part())
        return _joined(parts, word.upper())

    def _not(self) -> Condition:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise SearchError(f"filter is nested deeper than {MAX_DEPTH}")
        try:
            if self._take_word("not"):
                if self._take_word("not"):
                    return self._not()
                inner = self._not()
                return Condition(f"({inner.sql}) IS NOT TRUE", inner.values)  # unknown is not true
            if self._take_sign("("):
                inner = self._any()
                self._expect(")")
                return inner
            return self._comparison()
        finally:
            self.depth -= 1

    def _comparison(self) -> Condition:
        if self._peek("a field name")[0] in ("text", "number"):
            return self._membership()
        name = self._name()
        if self._take_word("in"):
            self._expect("(")
            values = [self._value()]
            while self._take_sign(","):
                values.append(self._value())
            self._expect(")")
            return _one_of(name, values)
        for word in ("contains", "startswith"):
            if self._take_word(word):
                return self._text_test(name, word)
        kind, text, place = self._peek("a comparison")
        if kind != "sign" or text not in ("=", "==", "!=", "<", "<=", ">", ">="):
            raise self._fault(place, "is not a comparison; allowed: = != < <= > >= in contains startswith")
        self.at += 1
        return _compare(name, "=" if text == "==" else text, self._value())

    def _text_test(self, name: str, word: str) -> Condition:
        place = self._peek("a quoted text")[2]
        value = self._value()
        if not isinstance(value, str):
            raise self._fault(place, f"is not a text; {word} compares texts")
        position = "> 0" if word == "contains" else "= 1"
        test = Condition(f"{_kind(name)} = 'text' AND instr({_field(name)}, ?) {position}", (_bind(name, value),))
        return _member(name, value, test) if word == "contains" else test

    def _membership(self) -> Condition:
        value = self._value()
        if not self._take_word("in"):
            place = self._peek("in, and the name of a list")[2]
            raise self._fault(place, 'is not in, and a filter that begins with a value says: "cat" in tags')
        name = self._name()
        if name in OWN:
            raise SearchError(f"filter: {name} is no list; write: {name} contains …")
        return _member(name, value, Condition("0", ()))

    def _name(self) -> str:
        kind, text, place = self._peek("a field name")
        if kind == "quoted":
            self.at += 1
            self.names.append(text[1:-1])
            return text[1:-1]
        if kind != "name" or text.lower() in _WORDS:
            raise self._fault(place, "is not a field name")
        self.at += 1
        self.names.append(text)
        return text

    def _value(self) -> Scalar:
        kind, text, place = self._peek("a value")
        self.at += 1
        if kind == "number":
            return float(text) if any(c in text for c in ".eE") else int(text)
        if kind == "text":
            return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", lambda escape: self._unescaped(escape, place), text[1:-1])
        constants: dict[str, Scalar] = {"null": None, "true": True, "false": False}
        if kind == "name" and text.lower() in constants:
            return constants[text.lower()]
        raise self._fault(place, 'is not a value; write text in quotes: lang = "en"')

    def _unescaped(self, escape: re.Match[str], place: int) -> str:
        sign = escape.group(1)
        if len(sign) == 5:
            return chr(int(sign[1:], 16))
        if sign not in _ESCAPES:
            raise self._fault(place, f"has the unknown escape \\{sign}; a backslash itself is written \\\\")
        return _ESCAPES[sign]

    def _peek(self, wanted: str) -> tuple[str, str, int]:
        if self.at >= len(self.tokens):
            raise SearchError(f"filter {self.source!r} ends where {wanted} is expected")
        return self.tokens[self.at]

    def _take_word(self, word: str) -> bool:
        if self.at < len(self.tokens) and self.tokens[self.at][0] == "name" and self.tokens[self.at][1].lower() == word:
            self.at += 1
            return True
        return False

    def _take_sign(self, sign: str) -> bool:
        if self.at < len(self.tokens) and self.tokens[self.at][:2] == ("sign", sign):
            self.at += 1
            return True
        return False

    def _expect(self, sign: str) -> None:
        if not self._take_sign(sign):
            raise self._fault(self._peek(f'"{sign}"')[2], f'stands where "{sign}" is expected')

    def _fault(self, place: int, what: str) -> SearchError:
        shown = self.source[place : place + 20]
        return SearchError(f"filter {self.source!r}, position {place + 1}: {shown!r} {what}")
