"""Sentences with an equivalent and a contradiction, by laws of logic and rules of English."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from sentemb.data.makers.lexicon import antonyms_of
from sentemb.data.makers.maker import Maker, Row
from sentemb.data.makers.negation import denied
from sentemb.data.sources import iter_texts

_IF = re.compile(r"If (?P<a>[^,]+), (?:then )?(?P<b>[^,]+)")
_ALL = re.compile(r"All (?P<a>[^,]+?) are (?P<b>[^,]+)")
_AND = re.compile(r"(?P<a>[^,]+?),? and (?P<b>[^,]+)")
_IS = re.compile(r"(?P<a>.+ (?:is|are|was|were)) (?P<b>\S+)")
_COUNTED = frozenset({
    "of", "the", "these", "those", "his", "her", "its", "their", "my", "our", "your", "one", "two", "three", "four",
    "five", "six", "seven", "ten"
})
# words that open a clause and have no capital within a sentence
_OPENING = frozenset({
    "the", "a", "an", "it", "he", "she", "they", "we", "you", "this", "that", "these", "those", "there", "his", "her",
    "its", "their", "my", "our", "your", "two", "three", "four", "people", "men", "women", "children", "in", "on",
    "at", "from", "after", "before", "during", "since", "for", "by", "with", "as", "to", "under", "despite", "of",
    "off", "near"
})
_ALL_NOT = re.compile(r"All that are not (?P<b>[^,]+) are not (?P<a>[^,]+)")


@dataclass(frozen=True, kw_only=True)
class Logic(Maker):
    """A sentence, another with the same meaning, and one that contradicts it.

        contraposition   If A, then B.  ≡  If not B, then not A.      ⊥  If A, then not B.
        implication      If A, then B.  ≡  Either not A, or B.        ⊥  If A, then not B.
        commutativity    A and B.       ≡  B and A.                   ⊥  A and not B.
        all              All A are B.   ≡  All that are not B are not A.   ⊥  Some A are not B.
        double negation  A.             ≡  It is not true that not A. ⊥  Not A.
        antonym          A is B.        ≡  It is not true that A is not B.   ⊥  A is C, the antonym of B.

    Columns of the rows: anchor, positive, negative_1, law. A clause is negated by its auxiliary or, with "do", by a
    verb of a closed list. A sentence is left out that no law fits, or that has words over which a negation's scope is
    not clear (every, some, only, never, who, because …).

    Args:
        path: sentences: a .txt file, or a file with the column text, sentence or anchor.
        wordnet: the folder with WordNet's data files, as ``lexicon`` takes it: its antonyms of adjectives, where every
            meaning of the adjective has the same one, as they are (that of "hungry" is "thirsty"). Without it there is
            no law of antonyms.

    Source: Bao et al. 2024, Findings of ACL (AMR-LE), released code: the four laws, equivalents as positives, a
        polarity that is turned round as negative.
    Deviations: rules on English words in place of graphs of meaning (AMR) and a generator, so only plain sentences;
        the laws of "all" and of antonyms are ours. A conditional's contradiction is its contrary, "If A, then not B";
        "a man" is read as a certain man, so that "A man runs" and "A man does not run" contradict each other.
    """

    wordnet: str | None = None

    def rows(self, generator: np.random.Generator, left_out: Counter[str]) -> Iterator[Row]:
        antonyms = {} if self.wordnet is None else antonyms_of(Path(self.wordnet))
        for text in iter_texts(self.path):
            rewritings = laws_of(text, antonyms)
            if not rewritings:
                left_out["sentences that no law fits"] += 1
            for law, equivalent, contradiction in rewritings:
                yield {"anchor": text, "positive": equivalent, "negative_1": contradiction, "law": law}


def laws_of(text: str, antonyms: Mapping[str, str] = MappingProxyType({})) -> list[tuple[str, str, str]]:
    """Every law that fits a sentence: its name, an equivalent, a contradiction."""
    sentence = text.strip().rstrip(".").strip()
    if not sentence or text.strip().endswith(" .") or any(mark in sentence for mark in ".?!;:()\"“”—"):
        return []
    sentence = sentence[:1].upper() + sentence[1:]
    if match := _IF.fullmatch(sentence):
        return _conditional(match["a"], match["b"])
    if match := _ALL_NOT.fullmatch(sentence):
        return [("all", f"All {match['a']} are {match['b']}.", f"Some {match['a']} are not {match['b']}.")]
    if match := _ALL.fullmatch(sentence):
        a, b = match["a"], match["b"]
        is_unclear = b.startswith("not ") or a.split()[0] in _COUNTED
        return [] if is_unclear else [("all", f"All that are not {b} are not {a}.", f"Some {a} are not {b}.")]
    if (match := _AND.fullmatch(sentence)) and (both := _conjunction(match["a"], match["b"])):
        return both
    if (clause := denied(sentence)) is not None:
        equivalent, opposite = f"It is not true that {_inside(clause)}.", _opposite(sentence, antonyms)
        contradictions = {"double negation": f"{clause}.", "antonym": opposite and f"{opposite}."}
        return [(law, equivalent, contradiction) for law, contradiction in contradictions.items() if contradiction]
    return []


def _opposite(clause: str, antonyms: Mapping[str, str]) -> str | None:
    """The clause with the antonym of the adjective that it ends in, right behind a form of "be"."""
    match = _IS.fullmatch(clause)
    return f"{match['a']} {antonyms[match['b']]}" if match and match["b"] in antonyms else None


def _conditional(a: str, b: str) -> list[tuple[str, str, str]]:
    not_a, not_b = denied(a), denied(b)
    if not_a is None or not_b is None:
        return []
    contradiction = f"If {_inside(a)}, then {_inside(not_b)}."
    return [
        ("contraposition", f"If {_inside(not_b)}, then {_inside(not_a)}.", contradiction),
        ("implication", f"Either {_inside(not_a)}, or {_inside(b)}.", contradiction),
    ]


def _conjunction(a: str, b: str) -> list[tuple[str, str, str]]:
    """Two clauses; none where "and" joins words within one: then one side has no verb, or no subject of its own."""
    not_b, first = denied(b), b.split(" ", 1)[0]
    has_subject = first in _OPENING or first[:1].isupper()
    if denied(a) is None or not_b is None or not has_subject:
        return []
    return [("commutativity", f"{_outside(b)} and {_inside(a)}.", f"{a} and {_inside(not_b)}.")]


def _inside(clause: str) -> str:
    """A clause behind other words: an article or a pronoun loses its capital, a name keeps it."""
    first = clause.split(" ", 1)[0].lower()
    return clause[:1].lower() + clause[1:] if first in _OPENING else clause


def _outside(clause: str) -> str:
    return clause[:1].upper() + clause[1:]
