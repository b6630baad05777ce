"""Changes to an index: add, upsert, delete, compact, merge, upgrade. Each is one new manifest, or nothing.

Each gives the new generation, and how many documents were added, deleted or taken over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from sentemb.data.faults import Faults
from sentemb.errors import SearchError
from sentemb.progress import Progress
from sentemb.search.store.change import TAIL_ROWS, changing, merge_small, rewritten_segments
from sentemb.search.store.documents import Id
from sentemb.search.store.embedding import TextBlocks
from sentemb.search.store.generation import Access, Generation, check_ids
from sentemb.search.store.records import Numbering, as_rows
from sentemb.search.store.segment import empty_index, empty_tail
from sentemb.search.store.sources import GivenRows
from sentemb.search.store.words import rule_of
from sentemb.search.store.writing import BLOCK, Block
from sentemb.search.vectors.kind import Vectors
from sentemb.types import Embedder


def put(
    access: Access, known: Generation, records: Iterable[Any], *, vectors: Vectors | None,
    encoder: Callable[[], Embedder], replace_existing: bool, skipped: Faults | None = None,
) -> tuple[Generation, int]:
    """Add documents (``replace_existing``: also over old ones of the same id).

    Args:
        vectors: of the documents; None: their texts are encoded.

    Raises:
        DataError: an id exists (or occurs twice) and replacing was not asked for.
    """
    with changing(access, known) as change, Progress("adding", total=None, unit="documents") as bar:
        def refuse(ids: Sequence[Id]) -> None:
            change.refuse_known(ids, "replace it with upsert")

        is_unique, rule = not replace_existing, change.before.rule
        numbering = Numbering(change.next_id(), is_unique=is_unique, refuse=refuse if is_unique else None)
        if vectors is None:
            rows = as_rows(iter(records), numbering, with_text=True, skipped=skipped)
            model = change.manifest.model
            prompt = model.document_prompt if model else ""
            texts = TextBlocks(encoder, rule, prompt)
            blocks: Iterator[Block] = (texts.encoded(block, bar) for block in rows)
        else:
            source = GivenRows(np.asarray(vectors), records, rule, skipped, numbering)
            blocks = source.blocks(0, source.rows, bar)
        first = list(_up_to(blocks, TAIL_ROWS))
        count = sum(len(block.rows) for block in first)
        if not count:
            return change.before, 0
        index = empty_index(access.folder, change.manifest, count)
        is_tail = count <= TAIL_ROWS and not index.is_exact
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
        merge_small(change)
        new = replace(change.manifest, next_id=numbering.next_id, has_next_id=True)
        return change.finish(new), int(live.sum())


def _up_to(blocks: Iterator[Block], rows: int) -> Iterator[Block]:
    """Blocks until they hold more than ``rows``."""
    count = 0
    for block in blocks:
        yield block
        count += len(block.rows)
        if count > rows:
            return


def delete(access: Access, known: Generation, ids: Sequence[Id]) -> tuple[Generation, int]:
    """Delete documents."""
    check_ids(ids)
    with changing(access, known) as change:
        count = change.delete(ids)
        generation = change.finish(change.manifest) if count else change.before
        return generation, count


def compact(access: Access, known: Generation) -> tuple[Generation, int]:
    """Make one segment of all live rows, without the deleted ones."""
    with changing(access, known) as change:
        is_whole = all(segment.live is None and not segment.entry.is_tail for segment in change.segments)
        if len(change.segments) <= 1 and is_whole:
            return change.before, 0
        change.segments = rewritten_segments(change, [(segment, segment.live) for segment in change.segments])
        return change.finish(change.manifest), 0


def merge(
    access: Access, known: Generation, others: Sequence[Generation], *, renumber: bool = False
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
    with changing(access, known) as change:
        count, next_id = 0, change.next_id()
        for other in others:
            sources = [(segment, segment.live) for segment in other.segments if segment.live_rows]
            is_same = other.manifest.template == change.before.manifest.template
            first_id = next_id if renumber else None
            taken = rewritten_segments(change, sources, can_copy=is_same, first_id=first_id)
            for segment in taken:
                for start in range(0, segment.rows, BLOCK):
                    names = segment.documents.ids(start, start + BLOCK)
                    change.refuse_known(names, f"{other.folder} has it too: ids are unique; renumber gives new ones")
                next_id = max(next_id, segment.documents.largest_integer() + 1)
                count += segment.rows
            change.segments += taken
        if not count:
            return change.before, 0
        new = replace(change.manifest, next_id=next_id, has_next_id=True)
        return change.finish(new), count


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


def upgrade(access: Access, known: Generation, words: str) -> tuple[Generation, int]:
    """Write the index in the newest format, with a word index."""
    with changing(access, known) as change:
        change.writer = replace(change.writer, words=rule_of(words))
        segments = list(change.segments)
        for position, segment in enumerate(segments):
            entry = change.writer.write_documents(change.next_number(), segment.entry, segment)
            change.segments[position] = change.open(entry)
        new = replace(change.manifest, words=words, next_id=change.next_id(), has_next_id=True)
        return change.finish(new), new.live
