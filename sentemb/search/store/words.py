"""The words of one segment's texts, as lists of rows in the segment's SQLite file, for BM25.

Why not SQLite's own FTS5: its ranking knows one table only (scores of several segments could not be compared), visits
every row of a frequent word one by one, and stems nothing but English. Here a word's rows are one array a hundred
thousand documents, which numpy adds up; a query reads the lists of its own words and nothing else.
"""

from __future__ import annotations

import re
import sqlite3
import unicodedata
import zlib
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import count, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError, did_you_mean, needs_extra

PART_ROWS = 100_000  # documents whose words are in memory while writing
SMALL = 512  # bytes up to which a list is not worth compressing
_TABLES = (
    "CREATE TABLE words (word TEXT, part INTEGER, count INTEGER, rows BLOB, PRIMARY KEY (word, part)) WITHOUT ROWID",
    "CREATE TABLE word_lengths (part INTEGER PRIMARY KEY, lengths BLOB)",  # words of every row, uint32
    "CREATE TABLE word_rule (language TEXT, stem INTEGER)",
)
_ENGLISH = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not", "of",
    "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was", "will", "with",
})
Query = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]


@dataclass(frozen=True, kw_only=True)
class WordRule:
    """What counts as a word: two or more letters or digits of any script, in lower case.

    Args:
        language: ``english`` leaves out its 33 commonest words, as Lucene does; no other language has such a list here.
            ``trigram`` takes every three letters of a word instead, for languages without spaces.
        stem: cut words to their stems with the Snowball algorithm of the language ("running" is "run").
    """

    language: str = "english"
    stem: bool = False

    def words(self, text: str) -> list[str]:
        """The words of a text, in order."""
        if text.isascii():
            words = re.findall(r"\w\w+", text.lower())
        else:
            words = _any_script().findall(unicodedata.normalize("NFKC", text).lower())
        if self.language == "english":
            words = [word for word in words if word not in _ENGLISH]
        if self.language == "trigram":
            words = [word[i : i + 3] for word in words for i in range(max(len(word) - 2, 1))]
        if self.stem:
            words = _stemmer(self.language).stemWords(words)
        return words


def rule_of(name: str) -> WordRule | None:
    """The rule that ``unicode``, ``english``, ``trigram`` or ``stem-LANGUAGE`` names; None for ``none``.

    Raises:
        SearchError: it is none of these.
        MissingExtra: the stemmers are not installed.
    """
    if name == "none":
        return None
    language = name.removeprefix("stem-")
    if language != name:
        _stemmer(language)
    elif name not in ("unicode", "english", "trigram"):
        known = ("none", "unicode", "english", "trigram", "stem-english")
        raise SearchError(f'words = "{name}"{did_you_mean(name, known)}; or stem- and another language')
    return WordRule(language=language, stem=language != name)


@cache
def _any_script() -> re.Pattern[str]:
    r"""``\w\w+`` that also takes the marks within words of Indic, Arabic, Thai … writing, which ``\w`` does not."""
    marks = "".join(chr(code) for code in range(0x300, 0x3100) if unicodedata.category(chr(code)).startswith("M"))
    return re.compile(rf"\w[\w{marks}]+")


@cache
def _stemmer(language: str) -> Any:
    needs_extra("Stemmer", "stem")
    import Stemmer

    if language not in Stemmer.algorithms():
        raise SearchError(f'no stemmer for the language "{language}"; there are {", ".join(Stemmer.algorithms())}')
    return Stemmer.Stemmer(language)


def write_words(database: sqlite3.Connection, texts: Iterable[str | None], rule: WordRule) -> None:
    """Index texts, one a row from row 0 on, into tables of their own."""
    for statement in _TABLES:
        database.execute(statement)
    database.execute("BEGIN")
    database.execute("INSERT INTO word_rule VALUES (?, ?)", (rule.language, rule.stem))
    part, rows = 0, iter(texts)
    while _write_part(database, rows, part, rule):
        part += 1
    database.execute("COMMIT")


def _write_part(database: sqlite3.Connection, texts: Iterable[str | None], part: int, rule: WordRule) -> bool:
    """Index the next ``PART_ROWS`` texts; tells whether there were any."""
    numbers: defaultdict[str, int] = defaultdict(count().__next__)  # word to number, in order of first use
    occurrences, lengths = array("I"), array("I")
    for text in islice(texts, PART_ROWS):
        words = rule.words(text) if text else []
        occurrences.extend([numbers[word] for word in words])
        lengths.append(len(words))
    if not lengths:
        return False
    row_of = np.repeat(np.arange(len(lengths), dtype=np.int64), np.array(lengths))
    pairs, counts = np.unique(np.array(occurrences, np.int64) * PART_ROWS + row_of, return_counts=True)
    word_of, rows = np.divmod(pairs, PART_ROWS)
    starts = np.searchsorted(word_of, np.arange(len(numbers) + 1))
    steps = np.diff(rows, prepend=0)  # from row to row; small numbers, which compress well
    steps[starts[:-1]] = rows[starts[:-1]]
    row_bytes, count_bytes = steps.astype("<u4").tobytes(), np.minimum(counts, 65_535).astype("<u2").tobytes()
    bounds = starts.tolist()

    def entry(word: str, start: int, stop: int) -> tuple[str, int, int, bytes]:
        plain = row_bytes[4 * start : 4 * stop] + count_bytes[2 * start : 2 * stop]
        return word, part, stop - start, plain if len(plain) <= SMALL else zlib.compress(plain, 1)

    ordered = sorted(numbers.items())  # SQLite appends to its tree
    database.executemany(
        "INSERT INTO words VALUES (?, ?, ?, ?)", (entry(word, bounds[n], bounds[n + 1]) for word, n in ordered)
    )
    database.execute("INSERT INTO word_lengths VALUES (?, ?)", (part, np.frombuffer(lengths, "<u4").tobytes()))
    return True


class Words:
    """Reads the words of a segment of so many rows; ``query`` runs SQL on its file and gives all results."""

    def __init__(self, query: Query, rows: int) -> None:
        self._query, self.rows = query, rows

    @cached_property
    def rule(self) -> WordRule:
        """What counts as a word here."""
        ((language, stem),) = self._query("SELECT language, stem FROM word_rule", ())
        return WordRule(language=language, stem=bool(stem))

    @cached_property
    def lengths(self) -> NDArray[np.float32]:
        """Words of every row."""
        parts = self._query("SELECT lengths FROM word_lengths ORDER BY part", ())
        return np.frombuffer(b"".join(blob for (blob,) in parts), dtype="<u4").astype(np.float32)

    @cached_property
    def total(self) -> int:
        """Words of all rows."""
        return int(self.lengths.sum(dtype=np.float64))

    def rows_with(self, word: str) -> int:
        """Number of rows that hold a word."""
        return int(self._query("SELECT coalesce(sum(count), 0) FROM words WHERE word = ?", (word,))[0][0])

    def occurrences(self, word: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The rows that hold a word, ascending, and how often each does."""
        rows, counts = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        sql = "SELECT part, count, rows FROM words WHERE word = ? ORDER BY part"
        for part, length, blob in self._query(sql, (word,)):
            plain = blob if len(blob) == 6 * length else zlib.decompress(blob)
            rows.append(np.cumsum(np.frombuffer(plain, "<u4", length), dtype=np.int64) + part * PART_ROWS)
            counts.append(np.frombuffer(plain, "<u2", length, offset=4 * length).astype(np.float32))
        return np.concatenate(rows), np.concatenate(counts)


def words_of_texts(texts: Sequence[str | None], rule: WordRule | None = None) -> Words:
    """The words of texts in memory, where there is no segment."""
    database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    write_words(database, texts, rule or WordRule())
    return Words(lambda sql, values: database.execute(sql, values).fetchall(), len(texts))
