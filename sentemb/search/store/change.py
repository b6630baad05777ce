"""A change of an index in the making: the lock, what is deleted, segments rewritten, the commit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import numpy as np

from sentemb.errors import DataError, SearchError
from sentemb.search.store.commit import commit, sweep, write_lock
from sentemb.search.store.documents import Id
from sentemb.search.store.generation import Access, Generation
from sentemb.search.store.manifest import Manifest, SegmentEntry
from sentemb.search.store.segment import Segment, empty_index, empty_tail
from sentemb.search.store.words import rule_of
from sentemb.search.store.writing import Block, SegmentWriter, stored_blocks
from sentemb.search.vectors.kind import Mask

TAIL_ROWS = 10_000  # an addition up to this size stays exact until it is merged
MAX_SEGMENTS = 8


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
        places = self.live_rows_of(ids)
        for position, row in places:
            segment = self.segments[position]
            if position not in self.live:
                self.live[position] = np.ones(segment.rows, bool) if segment.live is None else segment.live.copy()
            self.live[position][row] = False
        return len(places)

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
        return self.access.segment(entry, self.manifest)

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
        are_few = len(rows) - len(chosen) + 1 <= MAX_SEGMENTS // 2
        if rows[position] > 2 * total and (are_few or rows[position] > 10_000):
            break
        chosen.append(position)
        total += rows[position]
    return sorted(chosen)


def merge_small(change: Change) -> None:
    """Keep the number of segments small: merge the smallest ones where there are too many."""
    entries = [segment.entry for segment in change.segments]
    chosen = to_merge([entry.rows for entry in entries], [entry.is_tail for entry in entries])
    if not chosen:
        return
    sources = [(change.segments[i], change.live.get(i, change.segments[i].live)) for i in chosen]
    rows = sum(segment.rows if mask is None else int(mask.sum()) for segment, mask in sources)
    is_tail = rows <= TAIL_ROWS and all(segment.entry.is_tail for segment, _ in sources)
    merged = rewritten_segments(change, sources, is_tail=is_tail)
    unchanged = [position for position in range(len(entries)) if position not in chosen]
    change.live = {new: change.live[old] for new, old in enumerate(unchanged) if old in change.live}
    change.segments = [change.segments[position] for position in unchanged] + merged


def rewritten_segments(
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
        next_id = first_id
        for segment, rows in chosen:  # asked for one after the other, so codes and vectors come in the rows' order
            is_indexed = can_copy and index.take_codes(segment.vectors, rows)
            for block in stored_blocks(
                segment, rows, with_vectors=is_rescored or not is_indexed, is_indexed=is_indexed
            ):
                if next_id is not None:
                    numbered = [(number, *row[1:]) for number, row in enumerate(block.rows, start=next_id)]
                    block, next_id = replace(block, rows=numbered), next_id + len(numbered)
                yield block

    entry = change.writer.write(change.next_number(), rewritten(), index, is_tail=is_tail, is_rescored=is_rescored)
    cut = sum(segment.entry.cut for segment, _ in chosen)
    return [change.open(replace(entry, cut=min(cut, entry.rows)))]
