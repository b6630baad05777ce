"""Changes to an index: add, upsert, delete, compact, merge. Each is one new manifest, or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import DataError, SearchError
from sentemb.progress import Progress
from sentemb.search.store.documents import DocumentWriter, Id
from sentemb.search.store.embedding import VectorRule
from sentemb.search.store.encoding import EncodedStream, ids_of
from sentemb.search.store.generation import Generation, check_ids
from sentemb.search.store.manifest import Document, Manifest, SegmentEntry
from sentemb.search.store.reading import as_document
from sentemb.search.store.rewriting import rewrite, to_merge
from sentemb.search.store.segment import Segment
from sentemb.search.store.spool import BLOCK, Part, Spool
from sentemb.search.store.writing import CHANGES, Recipe, commit, on_disk, remove_folder, sweep, write_lock
from sentemb.search.vectors.faiss_vectors import Mask

if TYPE_CHECKING:
    from sentemb.search.index import SearchIndex

Vectors = NDArray[np.float32]
TAIL_ROWS = 10_000  # an addition up to this size stays exact until it is merged


@dataclass
class Change:
    """The next generation while it is being made."""

    index: SearchIndex
    recipe: Recipe
    segments: list[Segment]
    live: dict[int, Mask] = field(default_factory=dict)  # position in segments -> rows still live
    number: int = 0

    def next_number(self) -> int:
        """A number for the next files."""
        self.number += 1
        return self.number

    def delete(self, place: int, rows: Sequence[int]) -> int:
        """Mark rows of a segment as deleted; gives how many were live."""
        segment = self.segments[place]
        if place not in self.live:
            self.live[place] = np.ones(segment.rows, dtype=bool) if segment.live is None else segment.live.copy()
        mask = self.live[place]
        before = int(mask.sum())
        mask[list(rows)] = False
        return before - int(mask.sum())

    def live_rows_of(self, ids: Sequence[Id]) -> dict[Id, tuple[int, int]]:
        """Segment and row of every live document among the ids."""
        found: dict[Id, tuple[int, int]] = {}
        for place, segment in enumerate(self.segments):
            mask = self.live.get(place, segment.live)
            for name, rows in segment.documents.rows_of(ids).items():
                for row in rows:
                    if mask is None or mask[row]:
                        found[name] = (place, row)
        return found

    def open_entry(self, entry: SegmentEntry) -> Segment:
        """A segment that was just written."""
        return Segment(
            self.index.folder, entry, self.recipe.manifest, is_mapped=self.index.is_mapped, verify=False,
            device=self.index.device,
        )

    def finish(self, manifest: Manifest) -> None:
        """Write deletions, drop empty segments, commit, and show the index the new generation."""
        kept: list[Segment] = []
        for place, segment in enumerate(self.segments):
            mask = self.live.get(place)
            if mask is None:
                kept.append(segment)
            elif mask.any():
                entry = self.recipe.deletions(self.next_number(), segment.entry, mask)
                kept.append(segment.with_entry(entry, self.index.folder))
        new = replace(manifest, segments=tuple(segment.entry for segment in kept))
        commit(self.index.folder, self.index.disk, new, self.index.manifest)
        self.index.generation = Generation(folder=self.index.folder, manifest=new, segments=tuple(kept))


@contextmanager
def changing(index: SearchIndex) -> Iterator[Change]:
    """Lock, catch up with other writers, clean up after killed ones, and give a change to fill."""
    with write_lock(index.folder):
        index.refresh()
        sweep(index.folder, index.manifest, index.disk)
        made = replace(index.manifest, generation=index.manifest.generation + 1)
        try:
            yield Change(index, Recipe(index.folder, index.disk, made, "adding"), list(index.segments))
        except BaseException:
            with suppress(OSError, SearchError):  # a full disk may refuse even this; the next writer sweeps again
                sweep(index.folder, on_disk(index.folder), index.disk)  # the commit may have happened
            raise


def put(index: SearchIndex, records: Iterable[Any], vectors: Vectors | None, *, replace_existing: bool) -> int:
    """Add documents (``replace_existing``: also over old ones of the same id); gives how many.

    Raises:
        DataError: an id exists (or occurs twice) and replacing was not asked for.
    """
    with changing(index) as change:
        spool = Spool(index.folder / CHANGES, index.disk, part_rows=None, is_durable=False)
        try:
            next_id = _collect(index, spool, records, vectors)
            if spool.rows == 0:
                return 0
            part = spool.parts[0]
            part.documents.make_lookup(change.recipe.manifest.indexed_fields)
            live = _settle_ids(change, part, replace_existing=replace_existing)
            is_tail = part.rows <= TAIL_ROWS and change.recipe.manifest.factory != "Flat"
            entry = change.recipe.segment(change.next_number(), spool.source(part), part.documents, is_tail=is_tail)
            change.segments.append(change.open_entry(entry))
            if not live.all():
                change.live[len(change.segments) - 1] = live
            _merge_small(change)
            change.finish(replace(change.recipe.manifest, next_id=next_id))
            return int(live.sum())
        finally:
            spool.close()
            _remove_quietly(index.folder / CHANGES, index)


def _collect(index: SearchIndex, spool: Spool, records: Iterable[Any], vectors: Vectors | None) -> int:
    """Fill the spool; gives the next free running number."""
    manifest = index.manifest
    next_id = manifest.next_id
    rule = index.rule
    stream = iter(records)
    with Progress("adding", total=None, unit="documents") as bar:
        if vectors is None:
            prompt = manifest.model.document_prompt if manifest.model else ""
            blocks = EncodedStream(index.encoder, rule, prompt, spool).blocks(stream, bar=bar)
        else:
            blocks = _given(stream, vectors, rule)
        for documents, block in blocks:
            spool.append(documents, ids_of(documents, next_id), block)
            next_id += len(documents)
            bar.advance(0 if vectors is None else len(documents))
    return next_id


def _given(stream: Iterator[Any], vectors: Vectors, rule: VectorRule) -> Iterator[tuple[list[Document], Vectors]]:
    for start in range(0, len(vectors), BLOCK):
        block = rule.apply(vectors[start : start + BLOCK], "vectors")
        documents = [as_document(record) for record in islice(stream, len(block))]
        if len(documents) < len(block):
            raise SearchError(f"{len(vectors)} vectors, but only {start + len(documents)} documents")
        yield documents, block
    if next(stream, None) is not None:
        raise SearchError(f"{len(vectors)} vectors, but more documents")


def _settle_ids(change: Change, part: Part, *, replace_existing: bool) -> Mask:
    """Rows of the addition that stay; older documents of the same ids are deleted, or refused."""
    live = np.ones(part.rows, dtype=bool)
    for name, rows in part.documents.rows_of_repeated_ids():
        if not replace_existing:
            raise DataError(f"id {name!r} occurs {len(rows)} times here; ids are unique; upsert keeps the last")
        live[rows[:-1]] = False
    for start in range(0, part.rows, BLOCK):
        names = part.documents.ids(start, start + BLOCK)
        clash = change.live_rows_of(names)
        if clash and not replace_existing:
            raise DataError(f"id {next(iter(clash))!r} is in the index already; replace it with upsert")
        by_place: dict[int, list[int]] = {}
        for place, row in clash.values():
            by_place.setdefault(place, []).append(row)
        for place, found in by_place.items():
            change.delete(place, found)
    return live


def delete(index: SearchIndex, ids: Sequence[Id]) -> int:
    """Delete documents; gives how many there were."""
    check_ids(ids)
    with changing(index) as change:
        by_place: dict[int, list[int]] = {}
        for place, row in change.live_rows_of(list(ids)).values():
            by_place.setdefault(place, []).append(row)
        count = sum(change.delete(place, rows) for place, rows in by_place.items())
        if count:
            change.finish(change.recipe.manifest)
        return count


def compact(index: SearchIndex) -> None:
    """Make one segment of all live rows, without the deleted ones."""
    with changing(index) as change:
        if len(change.segments) <= 1 and all(
            segment.live is None and not segment.entry.is_tail for segment in change.segments
        ):
            return
        change.segments = _rewritten(change, change.segments, {}, is_tail=False)
        change.finish(change.recipe.manifest)


def merge_into(index: SearchIndex, others: Sequence[SearchIndex]) -> int:
    """Append the live documents of other indexes built with the same model; gives how many.

    Raises:
        SearchError: model, dimension or metric differ.
        DataError: an id is in more than one of them.
    """
    for other in others:
        _check_mergeable(index, other)
    with changing(index) as change:
        count = 0
        for other in others:
            moved = [segment for segment in other.segments if segment.live_rows]
            if not moved:
                continue
            made = _rewritten(change, moved, {}, is_tail=False, other=other)
            for start in range(0, made[0].rows, BLOCK):
                names = [document.id for _, document in made[0].documents.scan(start, min(start + BLOCK, made[0].rows))]
                clash = change.live_rows_of([name for name in names if name is not None])
                if clash:
                    raise DataError(
                        f"{other.folder}: id {next(iter(clash))!r} is in {index.folder} already; ids are unique"
                    )
            change.segments += made
            count += made[0].rows
        if count:
            next_id = max([index.manifest.next_id, *(other.manifest.next_id for other in others)])
            change.finish(replace(change.recipe.manifest, next_id=next_id))
        return count


def _check_mergeable(index: SearchIndex, other: SearchIndex) -> None:
    mine, its = index.manifest, other.manifest
    pairs = [
        ("model", mine.model.digest if mine.model else None, its.model.digest if its.model else None),
        ("dimension", mine.dimension, its.dimension), ("metric", mine.metric, its.metric),
    ]
    for name, here, there in pairs:
        if here != there:
            raise SearchError(f"{other.folder}: its {name} is {there!r}, that of {index.folder} is {here!r}; "
                              "only indexes of one model, dimension and metric can be merged")
    if index.folder.resolve() == other.folder.resolve():
        raise SearchError(f"{index.folder}: an index cannot be merged into itself")


def _merge_small(change: Change) -> None:
    """Keep the number of segments small: merge the smallest ones where there are too many."""
    chosen = to_merge([segment.rows for segment in change.segments], [s.entry.is_tail for s in change.segments])
    if not chosen:
        return
    merged = [change.segments[place] for place in chosen]
    masks = {i: change.live[place] for i, place in enumerate(chosen) if place in change.live}
    rows = sum(segment.live_rows for segment in merged)
    is_tail = rows <= TAIL_ROWS and all(segment.entry.is_tail for segment in merged)
    made = _rewritten(change, merged, masks, is_tail=is_tail)
    kept = [place for place in range(len(change.segments)) if place not in chosen]
    change.live = {new: change.live[place] for new, place in enumerate(kept) if place in change.live}
    change.segments = [change.segments[place] for place in kept] + made


def _rewritten(
    change: Change, segments: Sequence[Segment], masks: dict[int, Mask], *, is_tail: bool,
    other: SearchIndex | None = None,
) -> list[Segment]:
    """One new segment with the live rows of several (none, where no row is live)."""
    chosen = [masks.get(i, segment.live) for i, segment in enumerate(segments)]
    rows = [
        np.arange(segment.rows) if mask is None else np.flatnonzero(mask)
        for segment, mask in zip(segments, chosen, strict=True)
    ]
    if not sum(map(len, rows)):
        return []
    staging = change.index.folder / CHANGES
    staging.mkdir(exist_ok=True)
    number = change.next_number()
    writer = DocumentWriter(staging / f"merged-{number:04d}.sqlite", change.index.disk, is_durable=False)
    try:
        is_same = other is None or other.manifest.template == change.recipe.manifest.template
        entry = rewrite(change.recipe, number, segments, rows, writer, is_tail=is_tail, can_copy_codes=is_same)
    finally:
        writer.close()
        if not any(p for p in staging.iterdir() if not p.name.startswith("merged")):
            _remove_quietly(staging, change.index)
    return [change.open_entry(entry)]


def _remove_quietly(folder: Path, index: SearchIndex) -> None:
    with suppress(OSError):  # the next writer sweeps again
        remove_folder(folder, index.disk)
