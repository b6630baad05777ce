"""Long documents: cut into passages that overlap, each of which is a row; hits and ids are those of the documents.

A row's id is that of its document with ``#`` and a number. Its metadata have a field ``passage`` beside the document's
own: ``of`` (the document's id), ``number`` (from 0), ``start`` and ``end`` (letters of the text). The spans of a
document cover its text, so it can be put together again.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any

from sentemb.data.templates import Template
from sentemb.errors import DataError, SearchError
from sentemb.search.store.documents import PASSAGE, Document, Row, json_of
from sentemb.search.store.manifest import Passages
from sentemb.types import Embedder

# where a text may be cut, the best places first: at a Markdown heading, between paragraphs, behind a sentence
_PLACES = (
    re.compile(r"^(?=#{1,6}\s)", re.MULTILINE), re.compile(r"\n[ \t]*\n\s*"), re.compile(r"""[.!?…]["'”’)\]]*\s+""")
)  # fmt: skip
_LEAST = 8  # tokens of a passage


class Splitter:
    """Cuts texts into passages of at most ``rule.tokens`` tokens.

    A cut is made at the best place in the second half of what fits, and else between two tokens. The next passage
    begins at the first place at most ``rule.overlap`` tokens before the cut.

    Args:
        backend: a tokenizer of the `tokenizers` library as JSON.
    """

    def __init__(self, rule: Passages, backend: str) -> None:
        from tokenizers import Tokenizer

        self.rule = rule
        self._tokenizer = Tokenizer.from_str(backend)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of every passage, in letters; together they cover the text."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        starts = [start for start, end in encoding.offsets if end > start]
        size = len(starts)
        if size <= self.rule.tokens:
            return [(0, len(text))]
        # tokens before which a text may be cut, by how good a place it is
        places = [
            sorted({bisect_left(starts, match.end()) for match in pattern.finditer(text)} - {0, size})
            for pattern in _PLACES
        ]
        spans: list[tuple[int, int]] = []
        begin = 0
        while True:
            end = begin + self.rule.tokens
            if end >= size:
                return [*spans, (self._letter(starts, begin), len(text))]
            cut = self._last(places, begin + self.rule.tokens // 2 + 1, end)
            spans.append((self._letter(starts, begin), starts[cut]))
            begin = self._first(places, cut - self.rule.overlap, cut)

    @staticmethod
    def _letter(starts: Sequence[int], token: int) -> int:
        return starts[token] if token else 0  # white space in front of the first token is its passage's

    @staticmethod
    def _last(places: Sequence[Sequence[int]], least: int, most: int) -> int:
        """The last of the best places in least … most; ``most`` where there is none."""
        for cuts in places:
            number = bisect_left(cuts, most + 1) - 1
            if number >= 0 and cuts[number] >= least:
                return cuts[number]
        return most

    @staticmethod
    def _first(places: Sequence[Sequence[int]], least: int, most: int) -> int:
        """The first place of any kind in least … most - 1; ``least`` where there is none."""
        first = [cuts[number] for cuts in places if (number := bisect_left(cuts, least)) < len(cuts)]
        return min((cut for cut in first if cut < most), default=least)

    def rows(self, documents: Iterable[Row]) -> Iterator[Row]:
        """The passages of documents as rows."""
        for name, text, metadata in documents:
            assert text is not None  # vectors that are given have no passages
            fields: dict[str, Any] = json.loads(metadata) if metadata else {}
            if PASSAGE in fields:
                raise DataError(f'document {name!r}: its field "{PASSAGE}" is needed for its passages; rename it')
            for number, (start, end) in enumerate(self.spans(text)):
                fields[PASSAGE] = {"of": name, "number": number, "start": start, "end": end}
                yield f"{name}#{number}", text[start:end], json_of(fields, name)


def splitter(rule: Passages, encoder: Embedder, prompt: str) -> Splitter:
    """The splitter with an encoder's tokenizer.

    Raises: SearchError: another embedder than ``Encoder``, or a passage that its model would cut.
    """
    tokeniser = getattr(encoder, "tokeniser", None)
    backend = getattr(tokeniser, "backend_json", None)
    if tokeniser is None or backend is None:
        raise SearchError("passages are cut by tokens, and this embedder has no tokenizer of the tokenizers library; "
                          "cut the documents yourself")
    room = tokeniser.max_tokens - len(tokeniser([""], Template.read(prompt) if prompt else None).flat)
    if not _LEAST <= rule.tokens <= room:
        raise SearchError(f"passages of {rule.tokens} tokens; this model reads {_LEAST} to {room} beside its special "
                          "tokens and its prompt")
    return Splitter(rule, backend)


def split(rows: Iterator[Row], rule: Passages, encoder: Callable[[], Embedder], prompt: str) -> Iterator[Row]:
    """Rows of passages; the model that they are cut for is asked for when there is a document."""
    for first in rows:
        yield from splitter(rule, encoder(), prompt).rows(chain([first], rows))


def document_of(row: Document) -> Document:
    """A row's document with the passage as its text; its metadata keep where the passage is."""
    return replace(row, id=row.metadata[PASSAGE]["of"])


def put_together(rows: Sequence[Document]) -> Document:
    """The whole document of all its passages."""
    rows = sorted(rows, key=lambda row: int(row.metadata[PASSAGE]["number"]))
    text = "".join(
        (row.text or "")[: following.metadata[PASSAGE]["start"] - row.metadata[PASSAGE]["start"]]
        for row, following in pairwise(rows)
    ) + (rows[-1].text or "")  # fmt: skip
    metadata = {name: value for name, value in rows[0].metadata.items() if name != PASSAGE}
    return Document(rows[0].metadata[PASSAGE]["of"], text, metadata)
