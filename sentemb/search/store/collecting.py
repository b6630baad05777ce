"""The first half of a build: vectors and documents, from given vectors or by encoding texts; resumable."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import DataError, SearchError
from sentemb.files import write_json
from sentemb.progress import Progress
from sentemb.search.store.disk import Disk
from sentemb.search.store.documents import DocumentWriter
from sentemb.search.store.embedding import VectorRule, model_of, prompts_of
from sentemb.search.store.encoding import EncodedStream, ids_of
from sentemb.search.store.manifest import Document, Model
from sentemb.search.store.options import BuildOptions
from sentemb.search.store.reading import as_document
from sentemb.search.store.spool import BLOCK, ArraySource, Spool, VectorSource, names_of, pairs_in
from sentemb.search.vectors.faiss_files import check_factory
from sentemb.types import Embedder

Vectors = NDArray[np.float32]
NOTE = "build.json"  # what an unfinished build was told; written before its first block


@dataclass
class Collected:
    """Vectors and documents, one pair a future segment."""

    sources: list[VectorSource]
    documents: list[DocumentWriter]
    dimension: int
    next_id: int
    model: Model | None

    @classmethod
    def from_vectors(
        cls, staging: Path, disk: Disk, records: Iterable[Any] | None, vectors: Vectors, options: BuildOptions
    ) -> Collected:
        """Given vectors need no spool; only their documents are written."""
        if len(vectors) == 0:
            raise SearchError("there are no vectors to index")
        rule = VectorRule(options.metric, options.dim)
        check_factory(options.kind, rule.apply(vectors[:1], "vectors").shape[1], options.metric)
        step = options.segment_rows or len(vectors)
        sources: list[VectorSource] = []
        writers: list[DocumentWriter] = []
        staging.mkdir(exist_ok=True)
        stream = iter(records) if records is not None else None
        for start in range(0, len(vectors), step):
            part = ArraySource(vectors[start : start + step], rule)
            writer = DocumentWriter(names_of(staging, len(writers))[0], disk, is_durable=False)
            for first in range(0, part.rows, BLOCK):
                count = min(BLOCK, part.rows - first)
                some = [Document(None, None)] * count
                if stream is not None:
                    some = [as_document(record) for record in islice(stream, count)]
                if len(some) < count:
                    raise SearchError(f"{len(vectors)} vectors, but only {start + first + len(some)} documents")
                writer.append(some, ids_of(some, start + first))
            sources.append(part)
            writers.append(writer)
        if stream is not None and next(stream, None) is not None:
            raise SearchError(f"{len(vectors)} vectors, but more documents")
        return cls(sources, writers, sources[0].dimension, len(vectors), None)

    @classmethod
    def from_texts(
        cls, staging: Path, disk: Disk, records: Iterable[Any], encoder: Embedder, options: BuildOptions,
        source_name: str,
    ) -> Collected:
        """Encode block by block into a spool that an interrupted build continues from."""
        prompts = prompts_of(encoder, options.query_prompt, options.document_prompt)
        model = model_of(encoder, 1, query_prompt=prompts[0], document_prompt=prompts[1])
        spool = Spool(staging, disk, part_rows=options.segment_rows, is_durable=True)
        width = _take_up(spool, staging, model, options, source_name)
        if spool.dimension is not None:
            check_factory(options.kind, spool.dimension, options.metric)
        stream = iter(records)
        _skip(stream, spool, source_name)
        encoded = EncodedStream(encoder, VectorRule(options.metric, options.dim), prompts[1], spool)

        def refuse_repeated(documents: list[Document]) -> None:
            repeated = spool.row_of_repeated(ids_of(documents, spool.rows))
            if repeated is not None:
                name, earlier, later = repeated
                raise DataError(f"id {name!r} occurs twice (documents {earlier + 1} and {later + 1}); ids are unique")

        with Progress("encoding", total=None, unit="texts", done=spool.rows) as bar:
            for documents, vectors in encoded.blocks(stream, refuse_repeated, bar):
                if width is None and encoded.width is not None:
                    width = encoded.width
                    check_factory(options.kind, vectors.shape[1], options.metric)
                    _note(staging, model, options, source_name, vectors.shape[1], width)
                spool.append(documents, ids_of(documents, spool.rows), vectors)
        if spool.rows == 0 or spool.dimension is None or width is None:
            raise SearchError(f"{source_name}: there are no documents to index")
        return cls(
            [spool.source(part) for part in spool.parts], [part.documents for part in spool.parts],
            spool.dimension, spool.rows, replace(model, width=width),
        )


def _skip(stream: Iterator[Any], spool: Spool, source: str) -> None:
    """Pass over the records that were encoded before an interruption, if they still are what was encoded."""
    skipped = 0
    for skipped, record in enumerate(islice(stream, spool.rows), start=1):
        document = as_document(record)
        if not spool.is_row(skipped - 1, document, ids_of([document], skipped - 1)[0]):
            raise SearchError(
                f"{source}: document {skipped} is not what was encoded before the interruption; resume with the data "
                "as it was, or start over with overwrite"
            )
    if skipped < spool.rows:
        raise SearchError(
            f"{source}: {skipped} records, but {spool.rows} were encoded before the interruption; it is not "
            "the same input: start over with overwrite"
        )


def kept_rows(staging: Path) -> int:
    """Documents that a build encoded and that ``resume`` can go on from; 0 where there are none."""
    try:
        dimension = int(json.loads((staging / NOTE).read_bytes())["dimension"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return sum(vectors.stat().st_size // (4 * dimension) for _, vectors in pairs_in(staging))


def _facts(model: Model, options: BuildOptions, source_name: str) -> dict[str, Any]:
    return {
        "source": source_name, "model": model.source, "digest": model.digest, "prompt": model.document_prompt,
        "metric": options.metric, "dim": options.dim, "segment_rows": options.segment_rows,
    }


def _note(staging: Path, model: Model, options: BuildOptions, source: str, dimension: int, width: int) -> None:
    write_json(staging / NOTE, {**_facts(model, options, source), "dimension": dimension, "width": width})


def _take_up(spool: Spool, staging: Path, model: Model, options: BuildOptions, source: str) -> int | None:
    """Continue an interrupted build; gives the model's width if there is one to continue."""
    note = staging / NOTE
    if not note.exists():
        return None
    try:
        kept = json.loads(note.read_bytes())
        dimension, width = int(kept.pop("dimension")), int(kept.pop("width"))
    except (ValueError, KeyError, TypeError):
        raise SearchError(f"{note}: damaged; start over with overwrite") from None
    for name, value in _facts(model, options, source).items():
        if kept.get(name) != value:
            raise SearchError(
                f"{staging.parent}: the interrupted build had {name} = {kept.get(name)!r}, now it is {value!r}; resume "
                "with the same settings, or start over with overwrite"
            )
    spool.open_again(dimension)
    return width
