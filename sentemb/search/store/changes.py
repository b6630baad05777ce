"""Changes to an index: add, upsert, delete, compact, merge, upgrade. Each is one new manifest, or nothing.

Each gives the new generation, and how many documents were added, deleted or taken over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import numpy as np

from sentemb.data.faults import Faults
from sentemb.errors import DataError, SearchError
from sentemb.progress import Progress
from sentemb.search.store.disk import commit, sweep, write_lock
from sentemb.search.store.documents import Id, Row
from sentemb.search.store.embedding import GivenRows, counted, encoded_blocks
from sentemb.search.store.generation import Generation, check_ids, open_generation
from sentemb.search.store.manifest import Manifest, Model, SegmentEntry
from sentemb.search.store.passages import split
from sentemb.search.store.records import Numbering, as_rows
from sentemb.search.store.searching import least_effort
from sentemb.search.store.segment import BLOCK, TAIL_ROWS, Block, Segment, SegmentWriter, empty_index, to_merge
from sentemb.search.store.words import rule_of
from sentemb.search.vectors.kind import Vectors
from sentemb.types import Embedder


@dataclass(kw_only=True)
class Change:
    """The next generation while it is being made."""

    before: Generation
    manifest: Manifest  # that of before, with the next number
    writer: SegmentWriter
    segments: list[Segment]

    def delete(self, ids: Iterable[Id]) -> int:
        """Mark documents as deleted; gives how many were live."""
        ids, deleted = list(ids), set[Id]()
        for number, segment in enumerate(self.segments):
            matches = segment.rows_of(ids)
            if matches:
                self.segments[number] = segment.without([row for _, row in matches])
                deleted.update(name for name, _ in matches)
        return len(deleted)

    def refuse_known(self, ids: Sequence[Id], advice: str) -> None:
        """Raises DataError where one of the ids is live."""
        for segment in self.segments:
            for name, _ in segment.rows_of(ids):
                raise DataError(f"id {name!r} is in the index already; {advice}")

    def open(self, entry: SegmentEntry) -> Segment:
        """A segment that was just written."""
        return Segment(self.before.folder, entry, self.manifest, is_mapped=self.before.is_mapped)

    def merge_small(self) -> None:
        """Keep the number of segments small: merge the smallest ones where there are too many."""
        chosen = [self.segments[number] for number in to_merge([segment.rows for segment in self.segments])]
        if chosen:
            is_tail = all(segment.entry.is_tail for segment in chosen)
            self.segments = [segment for segment in self.segments if segment not in chosen]
            self.segments += self.rewritten(chosen, is_tail=is_tail)

    def rewritten(
        self, sources: Sequence[Segment], *, is_tail: bool = False, can_copy: bool = True, first_id: int | None = None
    ) -> list[Segment]:
        """One new segment with the live rows of several (none, where no row is live).

        Args:
            is_tail: leave it exact, if it is small.
            can_copy: the segments were made from this index's trained template, so their codes mean the same.
            first_id: number documents anew from here on.
        """
        rows = [segment.live_rows for segment in sources]
        total = sum(map(len, rows))
        if not total:
            return []
        is_tail = is_tail and total <= TAIL_ROWS
        index = empty_index(self.before.folder, self.manifest, total, is_tail=is_tail)
        is_rescored = self.manifest.rescored and not is_tail

        def blocks() -> Iterator[Block]:
            for segment, live in zip(sources, rows, strict=True):  # codes and vectors come in the rows' order
                is_indexed = can_copy and index.take_codes(segment.vectors, live)
                yield from segment.blocks(live, with_vectors=is_rescored or not is_indexed, is_indexed=is_indexed)

        numbered = blocks() if first_id is None else _numbered(blocks(), first_id)
        return [self.open(self.writer.write(numbered, index, is_tail=is_tail, is_rescored=is_rescored))]

    def finish(self, manifest: Manifest) -> Generation:
        """Write deletions, drop empty segments, commit; gives the new generation."""
        segments: list[Segment] = []
        for segment in self.segments:
            if not len(segment.live_rows):
                continue
            if segment.live is not None and segment.rows - len(segment.live_rows) != segment.entry.deleted_rows:
                entry = self.writer.write_deletions(segment.entry, segment.live)
                segment = segment.with_entry(entry, self.before.folder)
            segments.append(segment)
        new = replace(manifest, segments=tuple(segment.entry for segment in segments))
        commit(self.before.folder, new)
        return replace(self.before, manifest=new, segments=tuple(segments))


def _numbered(blocks: Iterable[Block], first_id: int) -> Iterator[Block]:
    for block in blocks:
        yield replace(block, rows=[(number, *row[1:]) for number, row in enumerate(block.rows, start=first_id)])
        first_id += len(block.rows)


@contextmanager
def changing(known: Generation, wait_s: float) -> Iterator[Change]:
    """Lock, catch up with other writers, clean up after killed ones, and give a change to fill."""
    folder = known.folder
    with write_lock(folder, wait_s):
        before = open_generation(folder, known=known, is_mapped=known.is_mapped)
        made = replace(before.manifest, generation=before.manifest.generation + 1)
        sweep(folder)
        writer = SegmentWriter(
            folder=folder, generation=made.generation, indexed_fields=made.indexed_fields, words=rule_of(made.words)
        )
        try:
            yield Change(before=before, manifest=made, writer=writer, segments=list(before.segments))
        except BaseException:
            with suppress(OSError, SearchError):  # a full disk may refuse even this; the next writer sweeps again
                sweep(folder)
            raise


def put(
    known: Generation, records: Iterable[Any], *, vectors: Vectors | None, encoder: Callable[[], Embedder],
    replace_existing: bool, skipped: Faults | None, wait_s: float,
) -> tuple[Generation, int]:
    """Add documents (``replace_existing``: also over old ones of the same id).

    Args:
        vectors: of the documents; None: their texts are encoded.

    Raises:
        DataError: an id exists (or occurs twice) and replacing was not asked for.
    """
    with changing(known, wait_s) as change, Progress("adding", total=None, unit="documents") as bar:
        made, rule = change.manifest, change.before.rule
        numbering = Numbering(change.before.next_id, is_unique=not replace_existing or made.passages is not None)
        rows = as_rows(records, numbering, with_text=vectors is None, skipped=skipped)
        if not replace_existing:
            rows = _new_rows(rows, change)
        prompt = made.model.document_prompt if made.model else ""
        if made.passages is not None:
            if vectors is not None:
                raise SearchError(f"{known.folder}: holds passages, which come from texts; give no vectors")
            rows = split(rows, made.passages, encoder, prompt)
        if vectors is None:
            model = made.model or Model(source="", digest="", width=1)  # built of vectors: no prompt, no fields
            blocks = encoded_blocks(rows, encoder, rule, model, bar)
        else:
            given = GivenRows(np.asarray(vectors), rows, rule)
            blocks = counted(given.blocks(0, len(given)), bar)
        first = list(islice(blocks, 2))
        if not first:
            return change.before, 0
        is_tail = len(first) == 1
        index = empty_index(known.folder, made, sum(len(block.rows) for block in first), is_tail=is_tail)
        is_rescored = made.rescored and not is_tail
        added = change.open(
            change.writer.write(chain(first, blocks), index, is_tail=is_tail, is_rescored=is_rescored)
        )
        if replace_existing:
            for start in range(0, added.rows, BLOCK):
                change.delete(added.documents.names(start, start + BLOCK))
            if superseded := added.documents.superseded():
                added = added.without(superseded)
        change.segments.append(added)
        change.merge_small()
        new = replace(change.manifest, next_id=numbering.next_id, has_next_id=True)
        return change.finish(new), numbering.rows if made.passages else len(added.live_rows)


def _new_rows(rows: Iterator[Row], change: Change) -> Iterator[Row]:
    while block := list(islice(rows, BLOCK)):
        change.refuse_known([name for name, _, _ in block], "replace it with upsert")
        yield from block


def delete(known: Generation, ids: Sequence[Id], wait_s: float) -> tuple[Generation, int]:
    """Delete documents."""
    check_ids(ids)
    with changing(known, wait_s) as change:
        count = change.delete(ids)
        return change.finish(change.manifest) if count else change.before, count


def compact(known: Generation, wait_s: float) -> Generation:
    """Make one segment of all live rows, without the deleted ones."""
    with changing(known, wait_s) as change:
        is_whole = all(segment.live is None and not segment.entry.is_tail for segment in change.segments)
        if len(change.segments) <= 1 and is_whole:
            return change.before
        change.segments = change.rewritten(change.segments)
        return change.finish(change.manifest)


def merge(
    known: Generation, others: Sequence[Generation], *, renumber: bool, wait_s: float
) -> tuple[Generation, int]:
    """Append the live documents of other indexes built with the same model.

    Args:
        renumber: give them new numbers as ids, as two indexes need whose documents were numbered.

    Raises:
        SearchError: model, dimension or metric differ.
        DataError: an id is in more than one of them.
    """
    for other in others:
        _check_mergeable(known, other)
    if renumber and known.manifest.passages:
        raise SearchError(f"{known.folder}: passages keep the ids of their documents and cannot be renumbered")
    with changing(known, wait_s) as change:
        count, next_id = 0, change.before.next_id
        for other in others:
            can_copy = other.manifest.template == change.before.manifest.template
            taken = change.rewritten(other.segments, can_copy=can_copy, first_id=next_id if renumber else None)
            for segment in taken:
                for start in range(0, segment.rows, BLOCK):
                    names = segment.documents.names(start, start + BLOCK)
                    change.refuse_known(names, f"{other.folder} has it too: ids are unique; renumber gives new ones")
                largest = other.next_id - 1 if other.manifest.passages else segment.documents.largest_integer()
                next_id = max(next_id, largest + 1)
                count += segment.rows
            change.segments += taken
        if not count:
            return change.before, 0
        return change.finish(replace(change.manifest, next_id=next_id, has_next_id=True)), count


def _check_mergeable(mine: Generation, other: Generation) -> None:
    here, there = mine.manifest, other.manifest
    for name, one, two in (
        ("model", here.model and here.model.digest, there.model and there.model.digest),
        ("dimension", here.dimension, there.dimension), ("metric", here.metric, there.metric),
        ("passages", here.passages, there.passages),
    ):
        if one != two:
            raise SearchError(f"{other.folder}: its {name} is {two!r}, that of {mine.folder} is {one!r}; only indexes "
                              "of one model, dimension and metric can be merged")
    if mine.folder.resolve() == other.folder.resolve():
        raise SearchError(f"{mine.folder}: an index cannot be merged into itself")


def upgrade(known: Generation, words: str, wait_s: float) -> Generation:
    """Write the index in the newest format, with a word index."""
    with changing(known, wait_s) as change:
        writer = replace(change.writer, words=rule_of(words))
        for number, segment in enumerate(change.segments):
            change.segments[number] = change.open(writer.rewrite_documents(segment))
        return change.finish(replace(change.manifest, words=words, next_id=change.before.next_id, has_next_id=True))


def tune(known: Generation, queries: Vectors, target_recall: float, wait_s: float) -> Generation:
    """Tune the search effort to real queries and store it.

    The truth is exact search over the vectors that the index keeps (half precision where it re-scores), so a
    quantised kind without re-scoring is measured against its own codes.

    Raises:
        SearchError: no queries, an empty index, or a target outside (0, 1].
    """
    if not 0 < target_recall <= 1:
        raise SearchError(f"target_recall = {target_recall}; allowed: above 0, up to 1")
    vectors = known.rule.apply(queries, "queries")
    with changing(known, wait_s) as change:
        if len(vectors) == 0 or len(change.before) == 0:
            raise SearchError(f"{known.folder}: tuning needs queries and documents")
        tuned = least_effort(change.before, vectors, target_recall, vectors_at=change.before.vectors_at)
        return change.finish(replace(change.manifest, tuned=tuned))
