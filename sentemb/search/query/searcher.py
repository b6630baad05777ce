"""All the questions that an opened index answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.search.query import examples, ranges, reasons
from sentemb.search.query.diversity import diverse
from sentemb.search.query.expression import condition
from sentemb.search.query.segments import check_k, search
from sentemb.search.query.words import Bm25, fuse
from sentemb.search.store.documents import Condition, Id
from sentemb.search.store.embedding import check_model, encode, load_encoder
from sentemb.search.store.generation import Generation, Hit
from sentemb.types import Embedder, Hits

Vectors = NDArray[np.float32]
Where = str | Mapping[str, Any] | None
Queries = str | Sequence[str] | Vectors
Reranker = Callable[[list[tuple[str, str]]], Any]  # (query, text) pairs to one score each


class Searcher:
    """Answers questions about a generation, which each question takes once and keeps to its end.

    In all of them ``where`` is a metadata filter, see ``sentemb.search.query.expression``, and queries are texts or raw
    vectors (queries, d).
    """

    def __init__(self, generation: Generation, encoder: Embedder | None = None, precision: str | None = None) -> None:
        self.generation = generation  # replaced as a whole
        self._encoder, self._precision = encoder, precision
        self._is_checked = False
        self._words: tuple[Generation, Bm25] | None = None

    @property
    def encoder(self) -> Embedder:
        """The embedder of queries; loaded from the manifest's model where none was given.

        Raises:
            SearchError: the index was built from vectors, or by an object that cannot be loaded by name, or by another
                model than the given one.
        """
        folder, model = self.generation.folder, self.generation.manifest.model
        if self._encoder is None:
            if model is None or not model.digest:
                source = "from vectors" if model is None else f"by {model.source}"
                raise SearchError(
                    f"{folder}: was built {source}; give an encoder when opening it, or search by vectors"
                )
            self._encoder = load_encoder(model.source, self._precision or model.precision)
        if not self._is_checked:
            check_model(self._encoder, model, folder)
            self._is_checked = True
        return self._encoder

    @overload
    def search(self, queries: str, k: int = 10, *, where: Where = None, effort: int | None = None) -> list[Hit]: ...
    @overload
    def search(
        self, queries: list[str] | tuple[str, ...] | Vectors, k: int = 10, *, where: Where = None,
        effort: int | None = None,
    ) -> list[list[Hit]]: ...
    def search(self, queries: Queries, k: int = 10, *, where: Where = None, effort: int | None = None) -> Any:
        """The k best documents of every query, best first (fewer where there are fewer); one text gives one list.

        Args:
            effort: how hard to look (nprobe, efSearch); by default what the index was tuned to.
        """
        generation = self.generation
        hits = search(generation, self._vectors(queries), k, condition=condition(where), effort=effort)
        lists = generation.hits(hits)
        return lists[0] if isinstance(queries, str) else lists

    def search_positions(
        self, vectors: Vectors, k: int = 10, *, where: Where = None, effort: int | None = None
    ) -> Hits:
        """``search`` without fetching documents: positions (queries, k) in ``generation``, and scores.

        Positions stay what they are until ``refresh`` or a change; ``generation.hits`` fetches the documents.
        """
        return search(self.generation, vectors, k, condition=condition(where), effort=effort)

    def by_words(self, queries: Sequence[str], k: int = 10, *, where: Where = None) -> list[list[Hit]]:
        """The k best documents of every query by the words that they share with it (BM25).

        Raises:
            SearchError: the index keeps no texts.
        """
        generation = self.generation
        return generation.hits(self._by_words(generation, queries, k, condition(where)))

    def hybrid(self, queries: Sequence[str], k: int = 10, *, where: Where = None, pool: int = 100) -> list[list[Hit]]:
        """Search by meaning and by words, fused by reciprocal ranks, whose scores the hits carry.

        Args:
            pool: results of either that are fused.

        Raises:
            SearchError: the index keeps no texts.
        """
        check_k(k)
        generation, filter_, pool = self.generation, condition(where), max(pool, k)
        meaning = search(generation, self._vectors(queries), pool, condition=filter_)
        words = self._by_words(generation, queries, pool, filter_)
        return generation.hits(fuse([meaning.ids, words.ids], min(k, generation.manifest.rows)))

    def diverse(
        self, queries: Queries, k: int = 10, *, weight: float = 0.5, pool: int | None = None, where: Where = None
    ) -> list[list[Hit]]:
        """Results that are near the query and far from one another (maximal marginal relevance).

        Args:
            weight: 1 is plain search, 0 cares for diversity only.
            pool: candidates to choose from; 5·k where None.
        """
        generation, vectors = self.generation, self._vectors(queries)
        return generation.hits(diverse(generation, vectors, k, weight=weight, pool=pool, condition=condition(where)))

    def within(
        self, queries: Queries, threshold: float, *, where: Where = None, most: int = 10_000
    ) -> list[list[Hit]]:
        """Everything at least as similar as ``threshold`` (l2: at most as far), best first, for every query.

        Raises:
            SearchError: more than ``most`` results of a query, or a kind that has no such search.
        """
        generation, vectors = self.generation, self._vectors(queries)
        results = ranges.within(generation, vectors, threshold, most=most, condition=condition(where))
        return [generation.hits(hits)[0] for hits in results]

    def combined(
        self, like: Queries, unlike: Queries | None = None, k: int = 10, *, where: Where = None, pool: int = 1000
    ) -> list[Hit]:
        """Documents like all of ``like`` and unlike all of ``unlike``.

        Args:
            pool: candidates: so many of the nearest to each of ``like``.
        """
        generation, away = self.generation, None if unlike is None else self._vectors(unlike)
        hits = examples.combined(generation, self._vectors(like), away, k, pool=pool, condition=condition(where))
        return generation.hits(hits)[0]

    def similar_to(self, ids: Sequence[Id], k: int = 10, *, where: Where = None) -> list[list[Hit]]:
        """The k nearest documents of every given one, itself left out.

        Raises:
            SearchError: no such document.
        """
        generation = self.generation
        return generation.hits(examples.like_documents(generation, ids, k, condition=condition(where)))

    def rerank(self, query: str, hits: Sequence[Hit], score: Reranker, k: int | None = None) -> list[Hit]:
        """The hits in the order of another model's scores (a cross-encoder's ``predict``), which they then carry."""
        texts = [hit.text or "" for hit in hits]
        if not texts:
            return []
        values = np.asarray(score([(query, text) for text in texts]), dtype=np.float32).reshape(-1)
        if len(values) != len(texts) or not np.isfinite(values).all():
            raise SearchError(f"the re-ranker gave {len(values)} scores for {len(texts)} documents, or not finite ones")
        order = np.argsort(-values, kind="stable")[:k]
        return [replace(hits[i], score=float(values[i])) for i in order.tolist()]

    def why_nothing(self, where: Where) -> str | None:
        """Why no document can satisfy a filter: an unknown field, or a value of another type; None: one could."""
        return reasons.why_nothing(self.generation, where)

    def vectors_of_texts(self, texts: Sequence[str]) -> Vectors:
        """Query vectors of texts, (texts, dimension)."""
        return self.generation.rule.apply(self._vectors(texts), "queries")

    def _vectors(self, queries: Queries) -> Vectors:
        if isinstance(queries, np.ndarray):
            return queries
        model = self.generation.manifest.model
        texts = [queries] if isinstance(queries, str) else queries
        return encode(self.encoder, texts, model.query_prompt if model else "")

    def _by_words(self, generation: Generation, queries: Sequence[str], k: int, filter_: Condition | None) -> Hits:
        check_k(k)
        words = self._words
        if words is None or words[0] is not generation:
            if len(generation) and not any(segment.documents.has_texts for segment in generation.segments):
                raise SearchError(f"{generation.folder}: searching for words needs texts, and this index keeps none")
            words = self._words = generation, Bm25([segment.documents.words for segment in generation.segments])
        return words[1].top(queries, k, [segment.allowed(filter_) for segment in generation.segments])
