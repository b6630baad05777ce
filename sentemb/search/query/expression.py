"""Metadata filters: a small expression language, parsed here and run by SQLite with bound values.

    year >= 2020 and lang in ("en", "de") and not (title contains "draft" or score = null)

Comparisons: ``= == != < <= > >=``, ``in (…)``, ``= null``; ``contains`` (a text has a part, a list has a member),
``"cat" in tags`` (a list has a member) and ``startswith``. Names are metadata fields (quote odd ones with backticks);
``author.name`` is also the field ``name`` of the field ``author``; ``id`` and ``text`` mean the document's own. Texts
stand in quotes, with the escapes of JSON.

A comparison with a field that a document lacks is not satisfied, and its ``not`` is: ``not year = 2020`` finds
documents without a year.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sentemb.errors import SearchError
from sentemb.search.query.conditions import (
    OWN,
    Scalar,
    check_depth,
    compare,
    joined,
    member,
    negated,
    one_of,
    text_test,
)
from sentemb.search.store.documents import Condition

MAX_DEPTH = 50
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"""|(?P<quoted>`[^`]+`)|(?P<name>[^\W\d][\w.-]*)|(?P<sign><=|>=|==|!=|<|>|=|\(|\)|,))""",
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "/": "/", "\\": "\\", '"': '"', "'": "'"}
_WORDS = frozenset({"and", "or", "not", "in", "contains", "startswith", "null", "true", "false"})


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
    return joined(parts, "AND")


def comparisons_of(where: str | Mapping[str, Any] | None) -> list[tuple[str, Any]]:
    """Every name in a filter with one value that it is compared with."""
    if isinstance(where, str):
        parser = _Parser(where)
        parser.parse()
        return parser.comparisons
    return [
        (name, next((part for part in value if part is not None), None) if isinstance(value, (tuple, list)) else value)
        for name, value in (where or {}).items()
    ]


def _from_pair(name: Any, value: Any) -> Condition:
    if not isinstance(name, str):
        raise SearchError(f"a filter's fields are texts; found {name!r}")
    if isinstance(value, tuple):
        if len(value) != 2:
            raise SearchError(f"where[{name!r}]: a tuple is a range (low, high), either may be None; found {value!r}")
        low, high = value
        bounds = [compare(name, sign, v) for sign, v in ((">=", low), ("<=", high)) if v is not None]
        if not bounds:
            return Condition("1", ())
        return joined(bounds, "AND")
    if isinstance(value, (list, set, frozenset)):
        return one_of(name, list(value))
    return compare(name, "=", value)


class _Parser:
    """Recursive descent: or < and < not < comparison."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tokens: list[tuple[str, str, int]] = []
        position = 0
        while position < len(source.rstrip()):
            match = _TOKEN.match(source, position)
            if match is None:
                raise self._fault(position, "cannot be read")
            kind = str(match.lastgroup)
            self.tokens.append((kind, match.group(kind), match.start(kind)))
            position = match.end()
        self.next = 0
        self.depth = 0
        self.comparisons: list[tuple[str, Any]] = []

    def parse(self) -> Condition:
        if not self.tokens:
            raise SearchError('filter is empty; example: year >= 2020 and lang = "en"')
        parsed = self._any()
        if self.next < len(self.tokens):
            raise self._fault(self.tokens[self.next][2], "is left over; expected and, or, or the end")
        return check_depth(parsed)

    def _any(self) -> Condition:
        return self._chain("or", self._all)

    def _all(self) -> Condition:
        return self._chain("and", self._not)

    def _chain(self, word: str, part: Any) -> Condition:
        parts = [part()]
        while self._take_word(word):
            parts.append(part())
        return joined(parts, word.upper())

    def _not(self) -> Condition:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise SearchError(f"filter is nested deeper than {MAX_DEPTH}")
        try:
            if self._take_word("not"):
                if self._take_word("not"):
                    return self._not()
                return negated(self._not())
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
            self.comparisons.append((name, values[0]))
            return one_of(name, values)
        for word in ("contains", "startswith"):
            if self._take_word(word):
                return self._text_test(name, word)
        kind, text, position = self._peek("a comparison")
        if kind != "sign" or text not in ("=", "==", "!=", "<", "<=", ">", ">="):
            raise self._fault(position, "is not a comparison; allowed: = != < <= > >= in contains startswith")
        self.next += 1
        value = self._value()
        self.comparisons.append((name, value))
        return compare(name, "=" if text == "==" else text, value)

    def _text_test(self, name: str, word: str) -> Condition:
        position = self._peek("a quoted text")[2]
        value = self._value()
        if not isinstance(value, str):
            raise self._fault(position, f"is not a text; {word} compares texts")
        self.comparisons.append((name, value))
        return text_test(name, word, value)

    def _membership(self) -> Condition:
        value = self._value()
        if not self._take_word("in"):
            position = self._peek("in, and the name of a list")[2]
            raise self._fault(position, 'is not in, and a filter that begins with a value says: "cat" in tags')
        name = self._name()
        if name in OWN:
            raise SearchError(f"filter: {name} is no list; write: {name} contains …")
        self.comparisons.append((name, value))
        return member(name, value, Condition("0", ()))

    def _name(self) -> str:
        kind, text, position = self._peek("a field name")
        if kind == "quoted":
            self.next += 1
            return text[1:-1]
        if kind != "name" or text.lower() in _WORDS:
            raise self._fault(position, "is not a field name")
        self.next += 1
        return text

    def _value(self) -> Scalar:
        kind, text, position = self._peek("a value")
        self.next += 1
        if kind == "number":
            return float(text) if any(c in text for c in ".eE") else int(text)
        if kind == "text":
            return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", lambda escape: self._unescaped(escape, position), text[1:-1])
        constants: dict[str, Scalar] = {"null": None, "true": True, "false": False}
        if kind == "name" and text.lower() in constants:
            return constants[text.lower()]
        raise self._fault(position, 'is not a value; write text in quotes: lang = "en"')

    def _unescaped(self, escape: re.Match[str], position: int) -> str:
        sign = escape.group(1)
        if len(sign) == 5:
            return chr(int(sign[1:], 16))
        if sign not in _ESCAPES:
            raise self._fault(position, f"has the unknown escape \\{sign}; a backslash itself is written \\\\")
        return _ESCAPES[sign]

    def _peek(self, wanted: str) -> tuple[str, str, int]:
        if self.next >= len(self.tokens):
            raise SearchError(f"filter {self.source!r} ends where {wanted} is expected")
        return self.tokens[self.next]

    def _take_word(self, word: str) -> bool:
        kind, text, _ = self.tokens[self.next] if self.next < len(self.tokens) else ("", "", 0)
        if kind == "name" and text.lower() == word:
            self.next += 1
            return True
        return False

    def _take_sign(self, sign: str) -> bool:
        if self.next < len(self.tokens) and self.tokens[self.next][:2] == ("sign", sign):
            self.next += 1
            return True
        return False

    def _expect(self, sign: str) -> None:
        if not self._take_sign(sign):
            raise self._fault(self._peek(f'"{sign}"')[2], f'stands where "{sign}" is expected')

    def _fault(self, position: int, what: str) -> SearchError:
        shown = self.source[position : position + 20]
        return SearchError(f"filter {self.source!r}, position {position + 1}: {shown!r} {what}")
