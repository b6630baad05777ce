"""An index behind the two calls of mteb's ``SearchProtocol`` (a structural protocol: mteb is not imported here)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sentemb.errors import SearchError
from sentemb.search.index import SearchIndex
from sentemb.search.options import BuildOptions
from sentemb.types import Embedder


class IndexRetriever:
    """Indexes a corpus into a folder and searches it; ``mteb.evaluate`` can use it as a search model.

    Args:
        encoder: fills the index and encodes the queries.
        options: kind of index and the rest; flat gives exact scores.
        folder: where the index lies; a temporary folder, removed by ``close``, where None.
    """

    def __init__(
        self, encoder: Embedder, options: BuildOptions | None = None, *, folder: Path | None = None
    ) -> None:
        self._encoder = encoder
        self._options = options or BuildOptions(kind="flat")
        self._is_temporary = folder is None
        self._folder = folder or Path(tempfile.mkdtemp(prefix="sentemb-retriever-"))
        self._index: SearchIndex | None = None

    def index(self, corpus: Iterable[Mapping[str, Any]], **_: Any) -> None:
        """Index rows with ``id``, ``text`` and perhaps ``title`` (mteb's further arguments do not matter here)."""
        records = ({"id": row["id"], "text": row["text"], "title": row.get("title") or ""} for row in corpus)
        self._index = SearchIndex.build(
            self._folder, records, encoder=self._encoder, options=self._options, overwrite=True
        )

    def search(
        self, queries: Iterable[Mapping[str, Any]], *, top_k: int, top_ranked: Mapping[str, list[str]] | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """Document ids and scores of every query id; ``top_ranked`` limits a query to the documents it names.

        Raises:
            SearchError: nothing was indexed yet.
        """
        if self._index is None:
            raise SearchError("search before index: there is no corpus yet")
        rows = list(queries)
        vectors = self._index.vectors_of_texts([row["text"] for row in rows])
        if top_ranked is None:
            found = self._index.search_vectors(vectors, top_k)
            names = self._index.ids_of(found.ids[found.ids >= 0].ravel().tolist())
            return {
                row["id"]: {str(names[p]): s for p, s in zip(places, scores, strict=True) if p >= 0}
                for row, places, scores in zip(rows, found.ids.tolist(), found.scores.tolist(), strict=True)
            }
        return {
            row["id"]: {str(hit.id): hit.score for hit in self._index.search(
                vectors[i : i + 1], top_k, where={"id": list(top_ranked[row["id"]])})[0]}
            for i, row in enumerate(rows)
        }

    def close(self) -> None:
        """Close the index, and remove it where it was temporary."""
        if self._index is not None:
            self._index.close()
        if self._is_temporary:
            shutil.rmtree(self._folder, ignore_errors=True)
