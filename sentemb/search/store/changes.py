"""Changes to an index: add, upsert, delete, compact, merge, upgrade. Each is one new manifest, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from sentemb.data.faults import Faults
from sentemb.errors import DataError, SearchError
from sentemb.progress import Progress
from sentemb.search.store.commit import commit, sweep
from sentemb.search.store.disk import Disk
from sentemb.search.store.documents import Id
from sentemb.search.store.embedding import TextBlocks
from sentemb.search.store.generation import Generation, check_ids, open_generation
from sentemb.search.store.lock import write_lock
from sentemb.search.store.manifest import Manifest, SegmentEntry
from sentemb.search.store.records import Numbering, as_rows
from sentemb.search.store.segment import Segment, empty_index, empty_tail
from sentemb.search.store.sources import GivenRows
from sentemb.search.store.words import rule_of
from sentemb.search.store.writing import BLOCK, Block, SegmentWriter, stored_blocks
from sentemb.search.vectors.kind import Mask, Vectors
from sentemb.types import Embedder

TAIL_ROWS = 10_000  # an addition up to this size stays exact until it is merged
MAX_SEGMENTS = 8


@dataclass(frozen=True, kw_only=True)
class Access:
    """How an index is opened and written."""

    folder: Path
    disk: Disk
    is_mapped: bool = False
    device: str | None = None
    wait_s: float = 0.0  # for another writer

    def open(self, known: Generation | None = None, *, verify: bool = True) -> Generation:
        """The newest generation; segments that ``known`` has open are not opened again."""
        segments = {segment.entry.index.name: segment for segment in known.segments} if known else {}
        return open_generation(
            self.folder, is_mapped=self.is_mapped, device=self.device, verify=verify, known=segments
        )


@dataclass(kw_only=True)
class Change:
    """The next generation while it is being made."""

    access: Access
    before: Generation
    writer: SegmentWriter
    segments: list[Segment]
    live: dict[int, Mask] = field(default_factory=dict)  # position in segments -> rows still live
    number: int = 0

    @property
    def manifest(self) -> Manifest:
        """The manifest of now, with the number of the next generation."""
        return replace(self.before.manifest, generation=self.writer.generation)

    def next_number(self) -> int:
        """A number for the next files."""
        self.number += 1
        return self.number

    def delete(self, ids: Sequence[Id]) -> int:
        """Mark documents as deleted; gives how many were live."""
        rows_in: dict[int, list[int]] = {}
        for position, row in self.live_rows_of(ids):
            rows_in.setdefault(position, []).append(row)
        for position, rows in rows_in.items():
            segment = self.segments[position]
            if position not in self.live:
                self.live[position] = np.ones(segment.rows, bool) if segment.live is None else segment.live.copy()
            self.live[position][rows] = False
        return sum(map(len, rows_in.values()))

    def live_rows_of(self, ids: Sequence[Id]) -> list[tuple[int, int]]:
        """Position of the segment and row of every live document among the ids."""
        places: list[tuple[int, int]] = []
        for position, segment in enumerate(self.segments):
            mask = self.live.get(position, segment.live)
            rows = {row for rows in segment.documents.rows_of(ids).values() for row in rows}
            places += [(position, row) for row in sorted(rows) if mask is None or mask[row]]
        return places

    def refuse_known(self, ids: Sequence[Id], advice: str) -> None:
        """Raises DataError where one of the ids is live."""
        for position, row in self.live_rows_of(ids):
            name = self.segments[position].documents.ids(row, row + 1)[0]
            raise DataError(f"id {name!r} is in the index already; {advice}")

    def next_id(self) -> int:
        """The first number for documents without an id, above every integer id there is."""
        made = self.before.manifest
        if made.has_next_id:
            return made.next_id
        return max([made.next_id, *(segment.documents.largest_integer() + 1 for segment in self.segments)])

    def open(self, entry: SegmentEntry) -> Segment:
        """A segment that was just written."""
        access = self.access
        return Segment(
            access.folder, entry, self.manifest, is_mapped=access.is_mapped, verify=False, device=access.device
        )

    def finish(self, manifest: Manifest) -> Generation:
        """Write deletions, drop empty segments, commit; gives the new generation."""
        kept: list[Segment] = []
        for position, segment in enumerate(self.segments):
            mask = self.live.get(position)
            if mask is None:
                kept.append(segment)
            elif mask.any():
                entry = self.writer.write_deletions(self.next_number(), segment.entry, mask)
                kept.append(segment.with_entry(entry, self.access.folder))
        new = replace(manifest, segments=tuple(segment.entry for segment in kept))
        commit(self.access.folder, self.access.disk, new, self.before.manifest)
        return Generation(folder=self.access.folder, manifest=new, segments=tuple(kept))


@contextmanager
def changing(access: Access, known: Generation) -> Iterator[Change]:
    """Lock, catch up with other writers, clean up after killed ones, and give a change to fill."""
    with write_lock(access.folder, access.wait_s):
        before = access.open(known)
        made = before.manifest
        sweep(access.folder, access.disk)
        writer = SegmentWriter(
            folder=access.folder, disk=access.disk, generation=made.generation + 1,
            indexed_fields=made.indexed_fields, words=rule_of(made.words),
        )
        try:
            yield Change(access=access, before=before, writer=writer, segments=list(before.segments))
        except BaseException:
            with suppress(OSError, SearchError):  # a full disk may refuse even this; the next writer sweeps again
                sweep(access.folder, access.disk)
            raise


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a change did."""

    generation: Generation
    count: int = 0  # documents added, deleted or taken over
    cut: int = 0  # of these, documents whose end the model did not read


def put(
    access: Access, known: Generation, records: Iterable[Any], *, vectors: Vectors | None,
    encoder: Callable[[], Embedder], replace_existing: bool, skipped: Faults | None = None,
) -> Outcome:
    """Add documents (``replace_existing``: also over old ones of the same id).

    Args:
        vectors: of the documents; None: their texts are encoded.

    Raises:
        DataError: an id exists (or occurs twice) and replacing was not asked for.
    """
    with changing(access, known) as change, Progress("adding", total=None, unit="documents") as bar:
        numbering = Numbering(change.next_id(), is_unique=not replace_existing)
        rule = change.before.rule
        if vectors is None:
            blocks = _encoded(change, records, encoder, numbering, bar, skipped)
        else:
            source = GivenRows(np.asarray(vectors), records, rule, skipped, numbering)
            blocks = _checked(change, source.blocks(0, source.rows), numbering, bar)
        first = list(_up_to(blocks, TAIL_ROWS))
        rows = sum(len(block.rows) for block in first)
        if not rows:
            return Outcome(generation=change.before)
        index = empty_index(access.folder, change.manifest, rows)
        is_tail = rows <= TAIL_ROWS and not index.is_exact
        if is_tail:
            index = empty_tail(change.manifest)
        entry = change.writer.write(
            change.next_number(), chain(first, blocks), index, is_tail=is_tail,
            is_rescored=change.manifest.rescored and not is_tail,
        )
        added = change.open(entry)
        live = np.ones(added.rows, dtype=bool)
        for _, repeated in added.documents.repeated() if replace_existing else ():
            live[repeated[:-1]] = False
        for start in range(0, added.rows, BLOCK) if replace_existing else ():
            change.delete(added.documents.ids(start, start + BLOCK))
        change.segments.append(added)
        if not live.all():
            change.live[len(change.segments) - 1] = live
        _merge_small(change)
        new = replace(change.manifest, next_id=numbering.next_id, has_next_id=True)
        return Outcome(generation=change.finish(new), count=int(live.sum()), cut=entry.cut)


def _encoded(
    change: Change, records: Iterable[Any], encoder: Callable[[], Embedder], numbering: Numbering, bar: Progress,
    skipped: Faults | None,
) -> Iterator[Block]:
    model = change.manifest.model
    texts: TextBlocks | None = None
    for rows in as_rows(iter(records), numbering, with_text=True, skipped=skipped):
        if numbering.is_unique:
            change.refuse_known([name for name, _, _ in rows], "replace it with upsert")
        texts = texts or TextBlocks(encoder(), change.before.rule, model.document_prompt if model else "")
        yield texts.encoded(rows, bar)


def _checked(change: Change, blocks: Iterator[Block], numbering: Numbering, bar: Progress) -> Iterator[Block]:
    for block in blocks:
        if numbering.is_unique:
            change.refuse_known([name for name, _, _ in block.rows], "replace it with upsert")
        yield block
        bar.advance(len(block.rows))


def _up_to(blocks: Iterator[Block], rows: int) -> Iterator[Block]:
    """Blocks until they hold more than ``rows``."""
    count = 0
    for block in blocks:
        yield block
        count += len(block.rows)
        if count > rows:
            return


def delete(access: Access, known: Generation, ids: Sequence[Id]) -> Outcome:
    """Delete documents."""
    check_ids(ids)
    with changing(access, known) as change:
        count = change.delete(ids)
        generation = change.finish(change.manifest) if count else change.before
        return Outcome(generation=generation, count=count)


def compact(access: Access, known: Generation) -> Outcome:
    """Make one segment of all live rows, without the deleted ones."""
    with changing(access, known) as change:
        is_whole = all(segment.live is None and not segment.entry.is_tail for segment in change.segments)
        if len(change.segments) <= 1 and is_whole:
            return Outcome(generation=change.before)
        change.segments = _rewritten(change, [(segment, segment.live) for segment in change.segments])
        return Outcome(generation=change.finish(change.manifest))


def merge(access: Access, known: Generation, others: Sequence[Generation], *, renumber: bool = False) -> Outcome:
    """Append the live documents of other indexes built with the same model.

    Args:
        renumber: give them new numbers as ids, as two indexes need whose documents were numbered.

    Raises:
        SearchError: model, dimension or metric differ.
        DataError: an id is in more than one of them.
    """
    for other in others:
        _check_mergeable(known, other)
    with changing(access, known) as change:
        count, next_id = 0, change.next_id()
        for other in others:
            sources = [(segment, segment.live) for segment in other.segments if segment.live_rows]
            is_same = other.manifest.template == change.before.manifest.template
            first_id = next_id if renumber else None
            taken = _rewritten(change, sources, can_copy=is_same, first_id=first_id)
            for segment in taken:
                for start in range(0, segment.rows, BLOCK):
                    names = segment.documents.ids(start, start + BLOCK)
                    change.refuse_known(names, f"{other.folder} has it too: ids are unique; renumber gives new ones")
                next_id = max(next_id, segment.documents.largest_integer() + 1)
                count += segment.rows
            change.segments += taken
        if not count:
            return Outcome(generation=change.before)
        new = replace(change.manifest, next_id=next_id, has_next_id=True)
        return Outcome(generation=change.finish(new), count=count)


def _check_mergeable(mine: Generation, other: Generation) -> None:
    def digest(generation: Generation) -> str | None:
        return generation.manifest.model.digest if generation.manifest.model else None

    for name, here, there in (
        ("model", digest(mine), digest(other)), ("dimension", mine.manifest.dimension, other.manifest.dimension),
        ("metric", mine.manifest.metric, other.manifest.metric),
    ):
        if here != there:
            raise SearchError(f"{other.folder}: its {name} is {there!r}, that of {mine.folder} is {here!r}; "
                              "only indexes of one model, dimension and metric can be merged")
    if mine.folder.resolve() == other.folder.resolve():
        raise SearchError(f"{mine.folder}: an index cannot be merged into itself")


def upgrade(access: Access, known: Generation, words: str) -> Outcome:
    """Write the index in the newest format, with a word index."""
    with changing(access, known) as change:
        change.writer = replace(change.writer, words=rule_of(words))
        segments = list(change.segments)
        for position, segment in enumerate(segments):
            entry = change.writer.write_documents(change.next_number(), segment.entry, segment)
            change.segments[position] = change.open(entry)
        new = replace(change.manifest, words=words, next_id=change.next_id(), has_next_id=True)
        return Outcome(generation=change.finish(new), count=new.live)


# -------------------------------------------------------------------------------------------- rewriting
def to_merge(rows: Sequence[int], is_tail: Sequence[bool]) -> list[int]:
    """Positions of segments to merge so that few remain; none while there are at most ``MAX_SEGMENTS``.

    The smallest are taken, and then each next one that is not more than twice as large as all taken so far: a row
    is rewritten about log₂(rows) times in its life (a log-structured merge).
    """
    if len(rows) <= MAX_SEGMENTS:
        return []
    order = sorted(range(len(rows)), key=lambda position: (not is_tail[position], rows[position]))
    chosen = order[:2]
    total = sum(rows[position] for position in chosen)
    for position in order[2:]:
        if rows[position] > 2 * total and len(rows) - len(chosen) + 1 <= MAX_SEGMENTS // 2:
            break
        if rows[position] > 2 * total and rows[position] > 10_000:
            break
        chosen.append(position)
        total += rows[position]
    return sorted(chosen)


def _merge_small(change: Change) -> None:
    """Keep the number of segments small: merge the smallest ones where there are too many."""
    entries = [segment.entry for segment in change.segments]
    chosen = to_merge([entry.rows for entry in entries], [entry.is_tail for entry in entries])
    if not chosen:
        return
    sources = [(change.segments[i], change.live.get(i, change.segments[i].live)) for i in chosen]
    rows = sum(segment.rows if mask is None else int(mask.sum()) for segment, mask in sources)
    is_tail = rows <= TAIL_ROWS and all(segment.entry.is_tail for segment, _ in sources)
    merged = _rewritten(change, sources, is_tail=is_tail)
    kept = [position for position in range(len(entries)) if position not in chosen]
    change.live = {new: change.live[old] for new, old in enumerate(kept) if old in change.live}
    change.segments = [change.segments[position] for position in kept] + merged


def _rewritten(
    change: Change, sources: Sequence[tuple[Segment, Mask | None]], *, is_tail: bool = False, can_copy: bool = True,
    first_id: int | None = None,
) -> list[Segment]:
    """One new segment with the live rows of several (none, where no row is live).

    Args:
        can_copy: the segments were made from this index's trained template, so their codes mean the same.
        first_id: number documents anew from here on.
    """
    chosen = [
        (segment, np.arange(segment.rows) if mask is None else np.flatnonzero(mask)) for segment, mask in sources
    ]
    total = sum(len(rows) for _, rows in chosen)
    if not total:
        return []
    manifest = change.manifest
    index = empty_tail(manifest) if is_tail else empty_index(change.access.folder, manifest, total)
    is_rescored = manifest.rescored and not is_tail

    def rewritten() -> Iterator[Block]:
        for segment, rows in chosen:  # asked for one after the other, so codes and vectors come in the rows' order
            is_indexed = can_copy and index.take_codes(segment.vectors, rows)
            yield from stored_blocks(
                segment, rows, with_vectors=is_rescored or not is_indexed, is_indexed=is_indexed
            )

    blocks = rewritten()
    if first_id is not None:
        blocks = _numbered(blocks, first_id)
    entry = change.writer.write(change.next_number(), blocks, index, is_tail=is_tail, is_rescored=is_rescored)
    cut = sum(segment.entry.cut for segment, _ in chosen)
    return [change.open(replace(entry, cut=min(cut, entry.rows)))]


def _numbered(blocks: Iterable[Block], first_id: int) -> Iterator[Block]:
    for block in blocks:
        rows = [(first_id + i, text, metadata) for i, (_, text, metadata) in enumerate(block.rows)]
        first_id += len(rows)
        yield replace(block, rows=rows)
