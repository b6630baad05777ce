"""Which documents of a source are new, differ or are gone: what a sync of an index writes and deletes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from reprlib import repr as short
from typing import Any

from sentemb.errors import DataError
from sentemb.search.store.documents import Document, Id, json_of
from sentemb.search.store.generation import Generation
from sentemb.search.store.segment import BLOCK


@dataclass(frozen=True, kw_only=True)
class Synced:
    """How many documents a sync added, changed, left as they were, and deleted."""

    added: int
    changed: int
    unchanged: int
    deleted: int


class Wanted:
    """The documents that an index is to hold, beside those of one of its generations."""

    def __init__(self, known: Generation, documents: Iterator[Document]) -> None:
        self._known, self._documents = known, documents
        self._seen: set[str] = set()
        self._counts: Counter[str] = Counter()

    def differing(self) -> Iterator[Document]:
        """Those that the generation does not hold, or holds with another text or other metadata.

        Raises: DataError: one has no id.
        """
        while block := list(islice(self._documents, BLOCK)):
            names = [document.id for document in block if document.id is not None]
            if len(names) < len(block):
                text = next(document.text for document in block if document.id is None)
                raise DataError(f"a document to sync has no id: {short(text)}")
            known = self._known.get(names)
            for name, document in zip(names, block, strict=True):
                self._seen.add(str(name))
                old = known.get(name)
                is_same = old is not None and (old.text, old.metadata) == (document.text, _as_kept(document))
                self._counts["unchanged" if is_same else "added" if old is None else "changed"] += 1
                if not is_same:
                    yield document

    def vanished(self, names: Iterable[Id]) -> list[Id]:
        """Those of the names that ``differing`` did not meet."""
        return [name for name in names if str(name) not in self._seen]

    def done(self, *, deleted: int) -> Synced:
        """What was found."""
        counts = self._counts
        return Synced(
            added=counts["added"], changed=counts["changed"], unchanged=counts["unchanged"], deleted=deleted
        )


def _as_kept(document: Document) -> dict[str, Any]:
    """Metadata as they come back from the index, which keeps them as JSON."""
    metadata: dict[str, Any] = json.loads(json_of(document.metadata, document.id or "") or "{}")
    return metadata
