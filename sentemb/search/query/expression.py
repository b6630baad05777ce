"""Metadata filters: a small expression language, parsed here and run by SQLite with bound values.

    year >= 2020 and lang in ("en", "de") and not (title contains "draft" or score = null)

Comparisons: ``= == != < <= > >=``, ``in (…)``, ``= null``; ``contains`` (a text has a part, a list has a member),
``"cat" in tags`` (a list has a member) and ``startswith``. Names are metadata fields (quote odd ones with backticks);
``author.name`` is also the field ``name`` of the field ``author``; ``id`` and ``text`` mean the document's own, and in
backticks metadata fields of these names. Texts stand in quotes, with the escapes of JSON.

A comparison with a field that a document lacks is not satisfied, and its ``not`` is: ``not year = 2020`` finds
documents without a year. Nothing of a filter is put into SQL as text except field names inside a JSON path, from which
double quotes are barred. Comparisons stand bare in the SQL, so that an index of the field serves them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np

from sentemb.errors import SearchError
from sentemb.search.store.documents import Condition, extract, spellings

OWN = ("id", "text")  # names that mean the document's own
Where = str | Mapping[str, Any] | None
Scalar = str | int | float | bool | None
MAX_DEPTH = 50
MAX_MARKS = 1_000  # values bound one by one; SQLite takes 32,766 or more, as it was compiled
_TOKEN = re.compile(
    r"""(?P<number>-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"""|(?P<quoted>`[^`]+`)|(?P<name>[^\W\d][\w.-]*)|(?P<sign><=|>=|==|!=|<|>|=|\(|\)|,)|(?P<unknown>\S)""",
)
_CONSTANTS: Mapping[str, Scalar] = {"null": None, "true": True, "false": False}
_WORDS = frozenset({"and", "or", "not", "in", "contains", "startswith", *_CONSTANTS})


def condition(where: Where) -> Condition | None:
    """Compile a filter: an expression, or a mapping of field to value, list of values, or (low, high) tuple.

    Raises:
        SearchError: the expression cannot be read; says where.
    """
    if isinstance(where, str):
        return _Parser(where).parse()
    if where is not None and not isinstance(where, Mapping):
        raise SearchError(f"a filter is an expression or a mapping of fields; found {where!r}")
    return _joined([_from_pair(name, value) for name, value in where.items()], "AND") if where else None


def comparisons_of(where: Where) -> list[tuple[str, Any]]:
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
        bounds = [_compare(name, sign, v) for sign, v in zip((">=", "<="), value, strict=True) if v is not None]
        return _joined(bounds, "AND") if bounds else Condition("1", ())
    if isinstance(value, (list, set, frozenset)):
        return _one_of(name, list(value))
    return _compare(name, "=", value)


class _Parser:
    """Recursive descent: or < and < not < comparison."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.comparisons: list[tuple[str, Scalar]] = []
        self.tokens: list[tuple[str, str, int]] = []  # kind, text, position
        for match in _TOKEN.finditer(source):
            kind, text = str(match.lastgroup), match[0]
            if kind == "name" and text.lower() in _WORDS:
                kind, text = "word", text.lower()
            self.tokens.append((kind, text, match.start()))
        self.tokens.append(("end", "", len(source)))
        self.next = self.depth = 0

    def parse(self) -> Condition:
        parsed = self._chain("or", "and")
        if self.tokens[self.next][0] != "end":
            raise self._fault("and, or, or the end")
        return parsed

    def _chain(self, *words: str) -> Condition:
        """Parts between which the first word stands; the other words bind more closely."""
        if not words:
            return self._part()
        parts = [self._chain(*words[1:])]
        while self._take(words[0]):
            parts.append(self._chain(*words[1:]))
        return _joined(parts, words[0].upper())

    def _part(self) -> Condition:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise SearchError(f"filter is nested deeper than {MAX_DEPTH}")
        if self._take("not"):
            negated = self._part()
            parsed = Condition(f"({negated.sql}) IS NOT TRUE", negated.values)  # unknown is not true
        elif self._take("("):
            parsed = self._chain("or", "and")
            self._expect(")")
        else:
            parsed = self._comparison()
        self.depth -= 1
        return parsed

    def _comparison(self) -> Condition:
        if self.tokens[self.next][0] in ("text", "number"):
            value = self._value()
            self._expect("in")
            name = self._name()
            if name in OWN:
                raise SearchError(f"filter: {name} is no list; write: {name} contains …")
            self.comparisons.append((name.strip("`"), value))
            return _member(name, value, Condition("0", ()))
        name = self._name()
        sign = self._take("=", "==", "!=", "<", "<=", ">", ">=", "in", "contains", "startswith")
        if not sign:
            raise self._fault("a comparison (= != < <= > >= in contains startswith)")
        if sign == "in":
            self._expect("(")
        values = [self._value()]
        self.comparisons.append((name.strip("`"), values[0]))
        if sign == "in":
            while self._take(","):
                values.append(self._value())
            self._expect(")")
            return _one_of(name, values)
        if sign in ("contains", "startswith"):
            return _text_test(name, sign, values[0])
        return _compare(name, "=" if sign == "==" else sign, values[0])

    def _name(self) -> str:
        kind, text, _ = self.tokens[self.next]
        if kind not in ("name", "quoted"):
            raise self._fault("a field name")
        self.next += 1
        bare = text.strip("`")
        return text if kind == "quoted" and bare in OWN else bare

    def _value(self) -> Scalar:
        kind, text, _ = self.tokens[self.next]
        if kind not in ("number", "text") and text not in _CONSTANTS:
            raise self._fault('a value (text in quotes: lang = "en")')
        self.next += 1
        if kind == "number":
            return float(text) if any(c in text for c in ".eE") else int(text)
        if kind == "word":
            return _CONSTANTS[text]
        # as JSON writes it: in double quotes, and single ones bare
        inner = re.sub(r'\\.|"', lambda sign: {"\\'": "'", '"': '\\"'}.get(sign[0], sign[0]), text[1:-1])
        try:
            return str(json.loads(f'"{inner}"', strict=False))
        except ValueError:
            raise SearchError(f"filter: {text} has an unknown escape; a backslash itself is written \\\\") from None

    def _take(self, *texts: str) -> str:
        """The next word or sign, if it is one of these; else an empty text."""
        kind, text, _ = self.tokens[self.next]
        if kind not in ("word", "sign") or text not in texts:
            return ""
        self.next += 1
        return text

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise self._fault(f'"{text}"')

    def _fault(self, wanted: str) -> SearchError:
        position = self.tokens[self.next][2]
        shown = self.source[position : position + 20]
        where = f", position {position + 1}: {shown!r} stands" if shown else " ends"
        return SearchError(f"filter {self.source!r}{where} where {wanted} is expected")


def _joined(parts: list[Condition], word: str) -> Condition:
    """Conditions under one word, as a balanced tree: SQLite refuses expressions deeper than 1000."""
    if len(parts) == 1:
        return parts[0]
    left, right = (_joined(half, word) for half in (parts[: len(parts) // 2], parts[len(parts) // 2 :]))
    return Condition(f"({left.sql}) {word} ({right.sql})", left.values + right.values)


def _field(name: str) -> str:
    return name if name in OWN else extract(_metadata(name))


def _type(name: str) -> str:
    """SQL expression of a field's type, in the words of JSON."""
    return f"typeof({name})" if name in OWN else extract(_metadata(name), "json_type")


def _metadata(name: str) -> str:
    """The metadata field of a name, which stands in backticks where the document has something of that name itself."""
    return name[1:-1] if name[1:-1] in OWN and name == f"`{name[1:-1]}`" else name


def _bound(name: str, value: Any) -> Scalar:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str) and re.search("[\x00\ud800-\udfff]", value):
        raise SearchError(f"filter on {name}: {value!r} holds a NUL or is not valid Unicode")
    if value is None or isinstance(value, (str, float)) or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return value
    raise SearchError(f"filter on {name}: {value!r} is not a text, number, true, false or null")


def _compare(name: str, sign: str, value: Any) -> Condition:
    field, bound = _field(name), _bound(name, value)
    if name == "id" and sign == "=" and bound is not None:
        return _one_of(name, [bound])
    if sign in ("=", "!="):
        if bound is None:
            return Condition(f"{field} IS {'NOT ' if sign == '!=' else ''}NULL", ())
        # "!=" is "has the field, and another value"
        return Condition(f"{field} {sign} ?", (bound,))
    if bound is None or isinstance(bound, bool):
        raise SearchError(f"filter on {name}: {json.dumps(bound)} can only be compared with = or !=")
    # numbers with numbers and text with text only; SQLite would order them after one another
    kinds = "('text')" if isinstance(bound, str) else "('integer','real')"
    return Condition(f"{field} {sign} ? AND typeof({field}) IN {kinds}", (bound,))


def _one_of(name: str, values: list[Any]) -> Condition:
    bound = tuple(_bound(name, value) for value in values)
    if name == "id":  # 3 and "3" are one id
        bound = tuple(s for v in bound for s in (spellings(v) if type(v) in (int, str) else (v,)))  # type: ignore[arg-type]
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
    sql = f"CASE {_type(name)} WHEN 'array' THEN {among} ELSE {otherwise.sql} END"
    return Condition(sql, (_bound(name, value), *otherwise.values))


def _text_test(name: str, word: str, value: Scalar) -> Condition:
    """``contains`` or ``startswith``; a list contains its members."""
    if not isinstance(value, str):
        raise SearchError(f"filter on {name}: {word} compares texts; {json.dumps(value)} is not a text")
    position = "> 0" if word == "contains" else "= 1"
    test = Condition(f"{_type(name)} = 'text' AND instr({_field(name)}, ?) {position}", (_bound(name, value),))
    return _member(name, value, test) if word == "contains" else test
