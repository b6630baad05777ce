"""Building an index: a series of commits to a draft, of which the last one is published.

    records ─► encoded rows, committed ─► kind chosen, trained ─► segments, committed ─► effort tuned ─► published

A build that was interrupted goes on from what the draft names. Given vectors need no first half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sentemb.data.faults import Faults
from sentemb.errors import DataError, NumericError, SearchError
from sentemb.maths.neighbours import Metric, top_of_blocks, without_own
from sentemb.parts import to_table
from sentemb.progress import Progress
from sentemb.search.store.commit import commit, commit_draft, discard_draft, on_disk, sweep, write_lock
from sentemb.search.store.disk import Disk
from sentemb.search.store.documents import Row
from sentemb.search.store.embedding import TextBlocks, VectorRule, model_of, prompts_of
from sentemb.search.store.maintenance import K, sample_rows, tune
from sentemb.search.store.manifest import Draft, Manifest, SegmentEntry, Tuned
from sentemb.search.store.options import BuildOptions
from sentemb.search.store.records import Numbering, as_rows
from sentemb.search.store.segment import Segment, empty_index
from sentemb.search.store.sources import GivenRows, StagedRows
from sentemb.search.store.words import rule_of
from sentemb.search.store.writing import BLOCK, Block, SegmentWriter
from sentemb.search.vectors.choice import check_fits, choose
from sentemb.search.vectors.kind import Vectors
from sentemb.types import Embedder

# ``map``, or something like it that calls the function in other processes; results come in order
Spread = Callable[[Callable[[Any], SegmentEntry], Sequence[Any]], Iterable[SegmentEntry]]
SHARE = 32  # at most this share of the work done so far is lost when a build is killed


def build(
    folder: Path, records: Iterable[Any] | None, options: BuildOptions, *, encoder: Embedder | None,
    vectors: Vectors | None, source_name: str, disk: Disk, resume: bool = False,
    overwrite: bool = False, wait_s: float = 0.0, skipped: Faults | None = None,
    spread: Spread = map,
) -> None:
    """Build the index in ``folder``; see ``SearchIndex.build``.

    Args:
        spread: calls a function for every segment that is left to make; of texts, elsewhere too (``Cluster.spread``).
    """
    options.check()
    if vectors is None and (encoder is None or records is None):
        raise SearchError("build needs documents and an encoder, or vectors")
    with write_lock(folder, wait_s):
        old = on_disk(folder)
        if old is not None and not overwrite:
            raise SearchError(f"{folder}: holds an index already; add to it, or build over it with overwrite")
        unfinished = sweep(folder, disk)
        if unfinished is not None and unfinished.count and not (resume or overwrite):
            raise SearchError(
                f"{folder}: an unfinished build lies here; continue it with resume, or start over with overwrite"
            )
        writer = SegmentWriter(
            folder=folder, disk=disk, generation=(old.generation if old else 0) + 1, prefix="d",
            indexed_fields=options.indexed_fields, words=rule_of(options.words),
        )
        try:
            if vectors is not None:
                made = _from_vectors(writer, records, np.asarray(vectors), options, source_name, skipped)
            else:
                assert records is not None
                assert encoder is not None
                begun = unfinished if resume else None
                made = _from_texts(
                    writer, begun, records, encoder, options, source_name, skipped, spread
                )
            commit(folder, disk, made, old)
        except BaseException as error:
            with suppress(OSError, SearchError):  # a full disk may refuse even this; the next writer sweeps again
                _tidy(folder, disk, error)
            raise
        with suppress(OSError):  # the index holds; the next writer sweeps again
            sweep(folder, disk)


def _tidy(folder: Path, disk: Disk, error: BaseException) -> None:
    """Remove what no commit names; the error then says from how many documents a build can go on."""
    draft = sweep(folder, disk)
    if draft is None:
        return
    if not draft.count:
        discard_draft(folder, disk)
        return
    message = f"{draft.count:,} encoded documents are kept"
    if isinstance(error, (SearchError, DataError, NumericError)):
        error.args = (f"{error}; {message}: the corrected command goes on with --resume",)
    elif isinstance(error, OSError):
        error.strerror = f"{error.strerror}; {message}: when that is mended, the same command goes on with --resume"


# ------------------------------------------------------------------------------------------------ first half
def _from_vectors(
    writer: SegmentWriter, records: Iterable[Any] | None, vectors: Vectors, options: BuildOptions, source_name: str,
    skipped: Faults | None,
) -> Manifest:
    if len(vectors) == 0:
        raise SearchError("there are no vectors to index")
    rule = VectorRule(metric=options.metric, dimension=options.dim)
    source = GivenRows(vectors, records, rule, skipped)
    check_fits(options.kind, source.dimension, options.metric)
    draft = Draft(source=source_name, metric=options.metric, dim=options.dim, model=None)
    commit_draft(writer.folder, writer.disk, draft)
    sweep(writer.folder, writer.disk)  # a build that is written over
    return make_index(writer, draft, source, options, width=vectors.shape[1])


def _from_texts(
    writer: SegmentWriter, unfinished: Draft | None, records: Iterable[Any], encoder: Embedder, options: BuildOptions,
    source_name: str, skipped: Faults | None, spread: Spread,
) -> Manifest:
    prompts = prompts_of(encoder, options.query_prompt, options.document_prompt)
    model = model_of(encoder, 1, query_prompt=prompts[0], document_prompt=prompts[1])
    draft = Draft(source=source_name, metric=options.metric, dim=options.dim, model=model)
    if unfinished is not None and unfinished.count and unfinished.model is not None:
        _check_same(unfinished, draft, writer.folder)
        draft = replace(unfinished, model=replace(model, width=unfinished.model.width))
    else:
        commit_draft(writer.folder, writer.disk, draft)
        sweep(writer.folder, writer.disk)  # the build that was written over
    with closing(StagedRows(writer.folder, draft)) as staged:
        if draft.count:
            check_fits(options.kind, staged.dimension, options.metric)
        numbering = Numbering(0, is_unique=True)
        rows = _not_staged(as_rows(iter(records), numbering, with_text=True, skipped=skipped), staged)
        texts = TextBlocks(lambda: encoder, VectorRule(metric=options.metric, dimension=options.dim), prompts[1])
        with Progress("encoding", total=None, unit="texts", done=staged.rows) as bar:
            draft = _stage(writer, draft, (texts.encoded(block, bar) for block in rows), texts, options)
    if not draft.count or draft.model is None:
        raise SearchError(f"{source_name}: there are no documents to index")
    with closing(StagedRows(writer.folder, draft)) as staged:
        return make_index(writer, draft, staged, options, width=draft.model.width, spread=spread)


def _check_same(draft: Draft, now: Draft, folder: Path) -> None:
    """Refuse to go on with another model, or other documents, than a build began with."""
    mine, its = now.model, draft.model
    pairs = [
        ("source", draft.source, now.source), ("metric", draft.metric, now.metric), ("dim", draft.dim, now.dim),
        ("model", its and its.source, mine and mine.source), ("digest", its and its.digest, mine and mine.digest),
        ("document prompt", its and its.document_prompt, mine and mine.document_prompt),
    ]
    for name, before, value in pairs:
        if before != value:
            raise SearchError(
                f"{folder}: the interrupted build had {name} = {before!r}, now it is {value!r}; resume with the same "
                "settings, or start over with overwrite"
            )


def _not_staged(blocks: Iterator[list[Row]], staged: StagedRows) -> Iterator[list[Row]]:
    """The rows behind those that were committed before an interruption, if those still are what was encoded."""
    before = staged.all_rows()
    count = 0
    for rows in blocks:
        for number, row in enumerate(rows):
            if count == staged.rows:
                yield rows[number:]
                break
            count += 1
            if next(before) != row:
                raise SearchError(
                    f"document {count} is not what was encoded before the interruption; resume with the data as it "
                    "was, or start over with overwrite"
                )
    if count < staged.rows:
        raise SearchError(
            f"{count} documents, but {staged.rows} were encoded before the interruption; it is not the same input: "
            "start over with overwrite"
        )


def _stage(
    writer: SegmentWriter, draft: Draft, blocks: Iterator[Block], texts: TextBlocks, options: BuildOptions
) -> Draft:
    """Commit encoded rows, part by part; where encoding ends in an error, what came before it is committed too."""
    writer = replace(writer, prefix="s", indexed_fields=(), words=None)
    number = 1 + max((int(entry.index.name[10:].split(".")[0]) for entry in draft.rows), default=-1)
    for first in blocks:
        assert first.vectors is not None
        if draft.model is not None and not draft.count and texts.width is not None:
            check_fits(options.kind, first.vectors.shape[1], options.metric)
            draft = replace(draft, model=replace(draft.model, width=texts.width))
        faults: list[BaseException] = []
        part = _portion(first, blocks, max(BLOCK, draft.count // SHARE), faults)
        entry = writer.write(number, part, None)
        draft = replace(draft, rows=(*draft.rows, entry))
        commit_draft(writer.folder, writer.disk, draft)
        number += 1
        if faults:
            raise faults[0]
    return draft


def _portion(first: Block, blocks: Iterator[Block], rows: int, faults: list[BaseException]) -> Iterator[Block]:
    yield first
    count = len(first.rows)
    while count < rows:
        try:
            block = next(blocks, None)
        except BaseException as error:
            faults.append(error)
            return
        if block is None:
            return
        yield block
        count += len(block.rows)


# ----------------------------------------------------------------------------------------------- second half
def make_index(
    writer: SegmentWriter, draft: Draft, source: GivenRows | StagedRows, options: BuildOptions, *,
    width: int, spread: Spread = map,
) -> Manifest:
    """The index of all rows: kind, training, segments, tuning; each of them committed to the draft."""
    choice = choose(options.kind, rows=source.rows, dimension=source.dimension, memory_bytes=options.memory_bytes,
                    target_recall=options.target_recall, rescore=options.rescore)
    index = choice.kind
    index.create(dimension=source.dimension, metric=options.metric, rows=source.rows)
    begun = Manifest(
        generation=writer.generation, dimension=source.dimension, metric=options.metric, kind=to_table(index),
        description=index.description, reason=choice.reason, seed=options.seed, next_id=0, width=width,
        model=draft.model, rescored=choice.is_rescored, indexed_fields=options.indexed_fields, words=options.words,
    )
    step = options.segment_rows or source.rows
    parts = [(start, min(start + step, source.rows)) for start in range(0, source.rows, step)]
    made = draft.made if _goes_on(draft.made, begun, parts) else None
    if made is None and draft.made is not None:  # of another kind, or over another generation
        draft = replace(draft, made=None)
        commit_draft(writer.folder, writer.disk, draft)
        sweep(writer.folder, writer.disk)
    if made is None:
        made = begun
        if index.needs_training:
            count = index.training_rows(source.rows)
            sample = np.random.default_rng(options.seed).choice(source.rows, size=count, replace=False)
            index.train(source.take(np.sort(sample)), seed=options.seed)
            made = replace(made, template=writer.write_index(len(parts), index, "trained"))
    fill = partial(make_segment, writer, made, source)
    for entry in spread(fill, list(enumerate(parts))[len(made.segments) :]):
        made = replace(made, segments=(*made.segments, entry))
        commit_draft(writer.folder, writer.disk, replace(draft, made=made))
    made = replace(made, next_id=source.next_id)
    if not index.is_exact:
        made = replace(made, tuned=_tuned(writer.folder, made, source, options))
    commit_draft(writer.folder, writer.disk, replace(draft, made=made))
    return made


def make_segment(
    writer: SegmentWriter, made: Manifest, source: GivenRows | StagedRows, part: tuple[int, tuple[int, int]]
) -> SegmentEntry:
    """One segment of an index in the making, in any process that sees the folder; whoever calls it commits the entry.

    Args:
        made: with its trained template, where the kind needs training.
        part: number of the segment, and its rows (start, stop) of the source.
    """
    number, (start, stop) = part
    index = empty_index(writer.folder, made, stop - start)
    with Progress("indexing", total=stop - start, unit="vectors") as bar:

        def counted() -> Iterator[Block]:
            for block in source.blocks(start, stop):
                yield block
                bar.advance(len(block.rows))

        return writer.write(number, counted(), index, is_rescored=made.rescored)


def _goes_on(made: Manifest | None, begun: Manifest, parts: list[tuple[int, int]]) -> bool:
    """Whether the segments that an interrupted build made are the first ones of this build."""
    if made is None:
        return False
    settings = replace(made, segments=(), template=None, tuned=None, reason=begun.reason, next_id=0)
    rows = [entry.rows for entry in made.segments]
    return settings == begun and rows == [stop - start for start, stop in parts[: len(rows)]]


def _tuned(folder: Path, made: Manifest, source: GivenRows | StagedRows, options: BuildOptions) -> Tuned:
    """Tune the search effort against exact search, on some of the documents themselves."""
    own = sample_rows(source.rows, options.seed)
    queries = source.take(own)
    vectors = (source.vectors(start, start + BLOCK) for start in range(0, source.rows, BLOCK))
    metric: Metric = "l2" if made.metric == "l2" else "dot"  # an index of cosines keeps unit vectors
    truth = without_own(top_of_blocks(queries, vectors, K + 1, metric=metric, device="cpu"), own).ids
    segments = [Segment(folder, entry, made, is_mapped=True, verify=False) for entry in made.segments]
    try:
        return tune(segments, queries, truth, own, metric=made.metric, target=options.target_recall)
    finally:
        for segment in segments:
            segment.close()
