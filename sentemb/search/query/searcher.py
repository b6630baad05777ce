"""All the questions that an opened index answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from sentemb.errors import SearchError, did_you_mean
from sentemb.maths.neighbours import merged, nothing, ordered, without_own
from sentemb.search.query.best import Reranker, best_documents, covering, first_of_each, in_order_of, pairs_of
from sentemb.search.query.diversity import marginal
from sentemb.search.query.expansion import Feedback
from sentemb.search.query.expression import Where, condition
from sentemb.search.query.words import Bm25, fuse
from sentemb.search.store.documents import Condition, Id
from sentemb.search.store.embedding import check_model, encode, load_encoder
from sentemb.search.store.generation import Generation, Hit
from sentemb.search.store.searching import check_k, effort_of, search
from sentemb.search.vectors.kind import Vectors
from sentemb.types import Embedder, Hits

Queries = str | Sequence[str] | Vectors
Expand = Feedback | None  # None: the query as it is


class Searcher:
    """Answers questions about a generation, which each question takes once and keeps to its end.

    ``where`` is a metadata filter, see ``sentemb.search.query.expression``; queries are texts or raw vectors
    (queries, d).
    """

    def __init__(self, generation: Generation, encoder: Embedder | None = None, precision: str | None = None) -> None:
        self.generation = generation  # replaced as a whole
        self._encoder, self._precision = encoder, precision
        self._words: tuple[Generation, Bm25] | None = None

    @property
    def encoder(self) -> Embedder:
        """The embedder of queries; loaded from the manifest's model where none was given.

        Raises:
            SearchError: the index was built from vectors, by an object that cannot be loaded by name, or by a model
                that has changed since.
        """
        folder, model = self.generation.folder, self.generation.manifest.model
        if self._encoder is None:
            if model is None or not model.digest:
                source = "from vectors" if model is None else f"by {model.source}"
                raise SearchError(
                    f"{folder}: was built {source}; give an encoder when opening it, or search by vectors"
                )
            encoder = load_encoder(model.source, self._precision or model.precision)
            check_model(encoder, model, folder)
            self._encoder = encoder
        return self._encoder

    def use(self, encoder: Embedder) -> None:
        """Embed queries with this embedder; raises SearchError where it is not the model that filled the index."""
        check_model(encoder, self.generation.manifest.model, self.generation.folder)
        self._encoder = encoder

    @overload
    def search(
        self, queries: str, k: int = 10, *, where: Where = None, effort: int | None = None, expand: Expand = None
    ) -> list[Hit]: ...
    @overload
    def search(
        self, queries: list[str] | tuple[str, ...] | Vectors, k: int = 10, *, where: Where = None,
        effort: int | None = None, expand: Expand = None,
    ) -> list[list[Hit]]: ...
    def search(
        self, queries: Queries, k: int = 10, *, where: Where = None, effort: int | None = None, expand: Expand = None
    ) -> Any:
        """The k best documents of every query, best first (fewer where there are fewer); one text gives one list.

        Args:
            effort: how hard to look (nprobe, efSearch); by default what the index was tuned to.
            expand: move the queries towards their first results, and search again.
        """
        generation, filter_ = self.generation, condition(where)
        vectors = self._expanded(generation, self._vectors(queries), filter_, expand)
        hits = best_documents(generation, lambda n: search(generation, vectors, n, condition=filter_, effort=effort), k)
        return hits[0] if isinstance(queries, str) else hits

    def search_positions(
        self, vectors: Vectors, k: int = 10, *, where: Where = None, effort: int | None = None
    ) -> Hits:
        """``search`` without documents: positions (queries, k) in ``generation``, whose ``hits`` fetches them."""
        return search(self.generation, vectors, k, condition=condition(where), effort=effort)

    def by_words(
        self, queries: Sequence[str], k: int = 10, *, where: Where = None, expand: Expand = None
    ) -> list[list[Hit]]:
        """The k best documents of every query by the words that they share with it (BM25).

        Args:
            expand: add words of the first results, and search again.
        """
        generation = self.generation
        return best_documents(generation, lambda n: self._by_words(generation, queries, n, condition(where), expand), k)

    def hybrid(
        self, queries: Sequence[str], k: int = 10, *, where: Where = None, pool: int = 100, expand: Expand = None,
        vectors: Vectors | None = None,
    ) -> list[list[Hit]]:
        """Search by meaning and by words, fused by reciprocal ranks, whose scores the hits carry.

        Args:
            pool: results of either that are fused.
            expand: widen either search by its own first results.
            vectors: of the queries, raw; None: their texts are encoded.
        """
        check_k(k)
        generation, filter_ = self.generation, condition(where)
        vectors = self._expanded(generation, self._vectors(queries if vectors is None else vectors), filter_, expand)

        def fused(n: int) -> Hits:
            meaning = search(generation, vectors, max(pool, n), condition=filter_)
            words = self._by_words(generation, queries, max(pool, n), filter_, expand)
            return fuse([meaning.ids, words.ids], min(n, generation.manifest.rows))

        return best_documents(generation, fused, k)

    def diverse(
        self, queries: Queries, k: int = 10, *, weight: float = 0.5, pool: int | None = None, where: Where = None
    ) -> list[list[Hit]]:
        """Results that are near the query and far from one another (maximal marginal relevance).

        Picks, one after the other, the candidate with the largest
        ``weight · sim(query, d) - (1 - weight) · max over picked p of sim(d, p)``; the scores are sim(query, d).

        Args:
            weight: 1 is plain search, 0 cares for diversity only.
            pool: candidates to choose from; 5·k where None.

        Source: Carbonell & Goldstein 1998, SIGIR, equation 1. Deviations: none.
        """
        check_k(k)
        generation = self.generation
        if not 0 <= weight <= 1:
            raise SearchError(f"diversity weight {weight}; allowed: 0 to 1")
        self._check_similarity("diverse results")
        vectors = self._vectors(queries)

        def picked(n: int) -> Hits:
            candidates = search(generation, vectors, max(pool or 5 * n, n), condition=condition(where))
            hits = nothing(len(vectors), min(n, candidates.ids.shape[1]), "dot")
            for query, ids in enumerate(candidates.ids):
                ids = ids[ids >= 0]
                relevance = candidates.scores[query][: len(ids)]
                chosen = marginal(relevance, generation.vectors_at(ids), hits.ids.shape[1], weight)
                hits.ids[query, : len(chosen)], hits.scores[query, : len(chosen)] = ids[chosen], relevance[chosen]
            return hits

        return best_documents(generation, picked, k)

    def demonstrations(
        self, queries: Sequence[str], k: int = 8, *, cover: str, weight: float = 1, pool: int = 100, where: Where = None
    ) -> list[list[Hit]]:
        """Labelled examples for prompts: the nearest of every label before a second of any, never the query's own text.

        Args:
            cover: the metadata field that is to be covered, e.g. "label".
            weight: as in ``diverse``; 1 cares for nearness only.
            pool: nearest documents to choose from.
        Source: the idea of retrieved demonstrations. Deviations: covering labels is ours.
        """
        check_k(k)
        generation = self.generation
        self._check_similarity("demonstrations")
        if cover not in (fields := {name for part in generation.segments for name in part.documents.fields()}):
            raise SearchError(f'no document has the field "{cover}"{did_you_mean(cover, fields)}')
        candidates = search(generation, self._vectors(queries), max(pool, k) + 1, condition=condition(where))
        return covering(generation, queries, candidates, k, cover=cover, weight=weight)

    def within(
        self, queries: Queries, threshold: float, *, where: Where = None, most: int = 10_000
    ) -> list[list[Hit]]:
        """Everything at least as similar as ``threshold`` (l2: at most as far), best first, for every query.

        Raises:
            SearchError: more than ``most`` results of a query, or a kind that has no such search.
        """
        generation, filter_ = self.generation, condition(where)
        vectors, metric = generation.rule.apply(self._vectors(queries), "queries"), generation.manifest.metric
        effort = effort_of(generation).effort
        parts: list[list[Hits]] = [[nothing(1, 0, metric)] for _ in vectors]
        for segment, first in zip(generation.segments, generation.starts, strict=True):
            allowed = segment.allowed(filter_)
            offsets, scores, rows = segment.vectors.within(vectors, threshold, effort=effort, allowed=allowed)
            for query, hits in enumerate(parts):
                part = slice(int(offsets[query]), int(offsets[query + 1]))
                hits.append(Hits(ids=rows[part][None] + first, scores=scores[part][None]))
        counts = [sum(part.ids.shape[1] for part in hits) for hits in parts]
        if max(counts, default=0) > most:
            raise SearchError(f"{max(counts):,} documents are within {threshold}, more than {most:,}: raise the bar")
        lists = [generation.hits(merged(hits, count, metric))[0] for hits, count in zip(parts, counts, strict=True)]
        return [first_of_each(hits) for hits in lists] if generation.manifest.passages else lists

    def combined(
        self, like: Queries, unlike: Queries | None = None, k: int = 10, *, where: Where = None, pool: int = 1000
    ) -> list[Hit]:
        """Documents like all of ``like`` and unlike all of ``unlike``: a series of set operations.

        ``score(d) = min over a in like of sim(a, d) - max(0, max over c in unlike of sim(c, d))``: the intersection is
        a fuzzy "and" (minimum), the difference subtracts what is like the unwanted. Candidates are the ``pool`` nearest
        to each wanted query and to their mean, so every document that is near all of them is among them.

        Source: after Liu, Liu & Fung 2024 (SetCSE), where x belongs to a set of sentences by its similarity to them,
        and ∩ and \\ are series of such memberships.
        Deviations: SetCSE ranks by sums and differences of similarities to fine-tuned set embeddings; the minimum here
        keeps one strong match from standing in for another, and no fine-tuning is done.
        """
        check_k(k)
        generation = self.generation
        if len(like) == 0:
            raise SearchError("a combined query needs at least one text that results should be like")
        self._check_similarity("combined queries")
        wanted = generation.rule.apply(self._vectors(like), "like")
        mean = wanted.mean(axis=0, keepdims=True)
        probes = np.concatenate([wanted, mean]) if np.linalg.norm(mean) > 1e-6 else wanted
        ids = np.unique(search(generation, probes, pool, condition=condition(where)).ids)
        ids = ids[ids >= 0]
        if not len(ids):
            return []
        vectors = generation.vectors_at(ids)
        scores = (vectors @ wanted.T).min(axis=1)
        if unlike is not None and len(unlike):
            away = generation.rule.apply(self._vectors(unlike), "unlike")
            scores = scores - np.maximum((vectors @ away.T).max(axis=1), 0)
        return best_documents(generation, lambda n: ordered(ids[None], scores[None], n, "dot"), k)[0]

    def similar_to(self, ids: Sequence[Id], k: int = 10, *, where: Where = None) -> list[list[Hit]]:
        """The k nearest documents of every given one (of several passages: of its first), itself left out.

        Raises:
            SearchError: no such document.
        """
        check_k(k)
        generation = self.generation
        positions = generation.positions_of(ids)
        absent = [name for name in ids if name not in positions]
        if absent:
            raise SearchError(f"{generation.folder}: no document with id {absent[0]!r}")
        own = np.array([positions[name] for name in ids], dtype=np.int64)
        vectors = generation.vectors_at(own)
        if generation.manifest.passages is None:
            return generation.hits(without_own(search(generation, vectors, k + 1, condition=condition(where)), own))
        lists = best_documents(generation, lambda n: search(generation, vectors, n, condition=condition(where)), k + 1)
        others = ([hit for hit in hits if str(hit.id) != str(name)] for name, hits in zip(ids, lists, strict=True))
        return [hits[:k] for hits in others]

    def rerank(self, query: str, hits: Sequence[Hit], score: Reranker, k: int | None = None) -> list[Hit]:
        """The hits in the order of another model's scores (a cross-encoder's ``predict``), which they then carry."""
        return in_order_of(score(pairs_of(query, hits)), hits, k) if hits else []

    def vectors_of_texts(self, texts: Sequence[str]) -> Vectors:
        """Query vectors of texts, (texts, dimension)."""
        return self.generation.rule.apply(self._vectors(texts), "queries")

    def _vectors(self, queries: Queries) -> Vectors:
        if isinstance(queries, np.ndarray):
            return queries
        model = self.generation.manifest.model
        texts = [queries] if isinstance(queries, str) else queries
        return encode(self.encoder, texts, model.query_prompt if model else "")

    def _check_similarity(self, what: str) -> None:
        if self.generation.manifest.metric == "l2":
            raise SearchError(f"{what} need a similarity (cosine or dot); this index measures l2")

    def _expanded(
        self, generation: Generation, vectors: Vectors, filter_: Condition | None, expand: Expand
    ) -> Vectors:
        if expand is None or not expand.documents:
            return vectors
        queries = generation.rule.apply(vectors, "queries")
        first = search(generation, queries, expand.documents, condition=filter_)
        return expand.vectors(generation.vectors_at, queries, first)

    def _by_words(
        self, generation: Generation, queries: Sequence[str], k: int, filter_: Condition | None,
        expand: Expand = None,
    ) -> Hits:
        check_k(k)
        words = self._words
        if words is None or words[0] is not generation:
            if len(generation) and not any(segment.documents.has_texts for segment in generation.segments):
                raise SearchError(f"{generation.folder}: searching for words needs texts, and this index keeps none")
            words = self._words = generation, Bm25([segment.documents.words for segment in generation.segments])
        bm25, allowed = words[1], [segment.allowed(filter_) for segment in generation.segments]
        if expand is None or not (expand.documents and expand.terms):
            return bm25.top(queries, k, allowed)
        first = generation.hits(bm25.top(queries, expand.documents, allowed))
        widened = [expand.words(bm25, query, hits) for query, hits in zip(queries, first, strict=True)]
        return bm25.top(widened, k, allowed)
