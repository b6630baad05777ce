"""Building an index: collect, choose and train the kind, make segments, tune, commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import DataError, NumericError, SearchError
from sentemb.maths.neighbours import without_own
from sentemb.search.store.collecting import NOTE, Collected, kept_rows
from sentemb.search.store.disk import Disk
from sentemb.search.store.documents import Documents, DocumentWriter
from sentemb.search.store.known_ids import KnownIds
from sentemb.search.store.manifest import Manifest, SegmentEntry, StoredFile
from sentemb.search.store.options import BuildOptions
from sentemb.search.store.segment import Segment
from sentemb.search.store.spool import BLOCK, VectorSource, names_of
from sentemb.search.store.writing import (
    STAGING,
    Recipe,
    commit,
    on_disk,
    remove_folder,
    segment_file,
    sweep,
    write_lock,
)
from sentemb.search.vectors.faiss_vectors import VectorIndex
from sentemb.search.vectors.kinds import Choice, choose, training_rows
from sentemb.search.vectors.tune import K, exact_top, sample_rows, tune
from sentemb.types import Embedder

Vectors = NDArray[np.float32]
MakeSegments = Callable[[Recipe, Sequence[VectorSource], Sequence[DocumentWriter]], list[SegmentEntry]]


def make_segments(
    recipe: Recipe, sources: Sequence[VectorSource], documents: Sequence[DocumentWriter]
) -> list[SegmentEntry]:
    """One segment a source, one after the other."""
    return [
        recipe.segment(number, source, writer, is_tail=False)
        for number, (source, writer) in enumerate(zip(sources, documents, strict=True))
    ]


def build(
    folder: Path, records: Iterable[Any] | None, options: BuildOptions, *, encoder: Embedder | None,
    vectors: Vectors | None, source_name: str, resume: bool, overwrite: bool, disk: Disk,
    segments: MakeSegments = make_segments, parts: Path | None = None,
) -> None:
    """Build the index in ``folder``; see ``SearchIndex.build``.

    Args:
        segments: who makes them, and how.
        parts: where a cluster's finished parts lie, from which a build goes on, so that none are kept in ``folder``.
    """
    options.check()
    with write_lock(folder):
        old = on_disk(folder)
        if old is not None and not overwrite:
            raise SearchError(f"{folder}: holds an index already; add to it, or build over it with overwrite")
        _take_back(folder, old, disk)
        sweep(folder, old, disk)
        staging = folder / STAGING
        is_unfinished = (staging / NOTE).exists()
        if is_unfinished and not resume and not overwrite:
            raise SearchError(
                f"{folder}: an unfinished build lies here; continue it with resume, or start over with overwrite"
            )
        if not (is_unfinished and resume) or vectors is not None:
            remove_folder(staging, disk)
        try:
            spooled = _collected(staging, disk, records, options, encoder, vectors, source_name)
            _finish(folder, disk, spooled, options, old, segments)
        except BaseException as error:
            with suppress(OSError, SearchError):  # a full disk may refuse even this; the next writer sweeps again
                _tidy(folder, old, disk, error, parts)
            raise
        remove_folder(staging, disk)


def _collected(
    staging: Path, disk: Disk, records: Iterable[Any] | None, options: BuildOptions, encoder: Embedder | None,
    vectors: Vectors | None, source_name: str,
) -> Collected:
    if vectors is not None:
        return Collected.from_vectors(staging, disk, records, np.asarray(vectors), options)
    if encoder is None or records is None:
        raise SearchError("build needs documents and an encoder, or vectors")
    return Collected.from_texts(staging, disk, records, encoder, options, source_name)


def _take_back(folder: Path, old: Manifest | None, disk: Disk) -> None:
    """Move documents of an unfinished build from the segments that nothing names to the vectors they belong to."""
    for number in range(len(list((folder / STAGING).glob("vectors-*.f32")))):
        documents, _ = names_of(folder / STAGING, number)
        moved = folder / segment_file(_next(old), number, "documents")
        if moved.exists() and not documents.exists():
            disk.rename(moved, documents)


def _next(old: Manifest | None) -> int:
    return (old.generation if old else 0) + 1


def _tidy(folder: Path, old: Manifest | None, disk: Disk, error: BaseException, parts: Path | None) -> None:
    """Leave the index, or what the next build can go on from, and say so; nothing else."""
    now = on_disk(folder)
    _take_back(folder, now, disk)
    sweep(folder, now, disk)
    is_open = now == old  # else it was stopped after the commit
    kept = kept_rows(folder / STAGING) if is_open and parts is None else 0
    if kept == 0:
        remove_folder(folder / STAGING, disk)
    if kept:
        left, how = f"{kept:,} encoded documents are kept", "goes on with --resume"
    elif is_open and parts is not None:
        left, how = f"finished parts stay in {parts}", "goes on from them"
    else:
        return
    if isinstance(error, (SearchError, DataError, NumericError)):
        error.args = (f"{error}; {left}: the corrected command {how}",)
    elif isinstance(error, OSError):
        error.strerror = f"{error.strerror}; {left}: when that is mended, the same command {how}"


def _finish(
    folder: Path, disk: Disk, spooled: Collected, options: BuildOptions, old: Manifest | None, segments: MakeSegments
) -> None:
    rows = sum(source.rows for source in spooled.sources)
    choice = choose(options.kind, rows=rows, dimension=spooled.dimension, memory_bytes=options.memory_bytes,
                    target_recall=options.target_recall, rescore=options.rescore)
    made = Manifest(
        generation=_next(old), dimension=spooled.dimension, metric=options.metric,
        kind=choice.kind, factory=choice.factory, reason=choice.reason, seed=options.seed, next_id=spooled.next_id,
        model=spooled.model, rescored=choice.rescored, indexed_fields=options.indexed_fields,
    )
    _check_ids(spooled.documents, options.indexed_fields)
    made = replace(made, template=_train(Recipe(folder, disk, made), spooled.sources, choice, options.seed))
    entries = segments(Recipe(folder, disk, made), spooled.sources, spooled.documents)
    made = replace(made, segments=tuple(entries))
    made = _tuned(folder, made, entries, spooled.sources, options)
    commit(folder, disk, made, old)


def _check_ids(writers: Sequence[DocumentWriter], indexed: Sequence[str]) -> None:
    """Make look-ups, and refuse ids that occur twice.

    Raises:
        DataError: names the first repeated id.
    """
    seen: list[Documents] = []
    known = KnownIds()
    for writer in writers:
        writer.make_lookup(indexed)
        repeated = writer.rows_of_repeated_ids()
        if repeated:
            name, rows = repeated[0]
            places = f"documents {rows[0] + 1} and {rows[1] + 1}"
            raise DataError(f"id {name!r} occurs {len(rows)} times ({places}); ids are unique")
        if len(writers) > 1:
            for start in range(0, writer.rows, BLOCK):
                ids = writer.ids(start, start + BLOCK)
                suspects = known.suspects(ids)
                for other in seen:
                    clash = other.rows_of(suspects)
                    if clash:
                        raise DataError(f"id {next(iter(clash))!r} occurs twice; ids are unique")
                known.add(ids)
            seen.append(Documents(writer.path, writer.rows))
    for other in seen:
        other.close()


def _train(recipe: Recipe, sources: Sequence[VectorSource], choice: Choice, seed: int) -> StoredFile | None:
    """Train an empty index on a seeded sample and store it, where the kind needs training."""
    index = VectorIndex.create(choice.factory, sources[0].dimension, recipe.manifest.metric)
    if index.is_trained:
        return None
    total = sum(source.rows for source in sources)
    count = training_rows(choice.factory, total, sources[0].dimension)
    rows = np.sort(np.random.default_rng(seed).choice(total, size=count, replace=False))
    blocks, first = [], 0
    for source in sources:
        inside = rows[(rows >= first) & (rows < first + source.rows)] - first
        if len(inside):
            blocks.append(source.take(inside))
        first += source.rows
    index.prepare_training(seed, count)
    index.train(np.concatenate(blocks))
    return recipe.disk.store(recipe.folder / recipe.name(0, "trained"), lambda file: index.write(file.write))


def _tuned(
    folder: Path, made: Manifest, entries: Sequence[SegmentEntry], sources: Sequence[VectorSource],
    options: BuildOptions,
) -> Manifest:
    """Tune the search effort against exact search; an exact kind needs none."""
    if made.factory == "Flat":
        return made
    total = sum(source.rows for source in sources)
    own = sample_rows(total, options.seed)
    queries = np.concatenate([
        source.take(own[(own >= first) & (own < first + source.rows)] - first)
        for source, first in zip(sources, np.cumsum([0, *(s.rows for s in sources[:-1])]), strict=True)
    ])
    truth = without_own(exact_top(sources, queries, K + 1, made.metric), own).ids
    segments = [Segment(folder, entry, made, is_mapped=True, verify=False) for entry in entries]
    try:
        found = tune(segments, queries, truth, own, metric=made.metric, target=options.target_recall)
        return replace(made, tuned=found)
    finally:
        for segment in segments:
            segment.close()
