"""Building an index: a series of commits to a draft, of which the last one is published.

    records ─► encoded rows, committed ─► kind chosen, trained ─► segments, committed ─► effort tuned ─► published

A build that was interrupted goes on from what the draft names. Given vectors need no draft.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sentemb.data.faults import Faults
from sentemb.data.vector_codes import CodedVectors
from sentemb.errors import SearchError, SentembError
from sentemb.parts import to_table
from sentemb.progress import Progress
from sentemb.search.store.disk import commit, commit_draft, discard_draft, on_disk, sweep, write_lock
from sentemb.search.store.documents import NAME_OF_PASSAGE, Row
from sentemb.search.store.embedding import GivenRows, VectorRule, counted, encoded_blocks, model_of
from sentemb.search.store.generation import Generation
from sentemb.search.store.manifest import Draft, Manifest, Model, SegmentEntry
from sentemb.search.store.options import BuildOptions
from sentemb.search.store.passages import splitter
from sentemb.search.store.records import Numbering, as_rows
from sentemb.search.store.searching import least_effort
from sentemb.search.store.segment import BLOCK, Block, SegmentWriter, empty_index
from sentemb.search.store.words import rule_of
from sentemb.search.vectors.choice import check_fits, choose
from sentemb.search.vectors.kind import Vectors
from sentemb.types import Embedder

# ``map``, or something like it that calls the function in other processes; results come in order
Spread = Callable[[Callable[[Any], SegmentEntry], Sequence[Any]], Iterable[SegmentEntry]]
SHARE = 32  # at most this share of the work done so far is lost when a build is killed
QUERIES = 256  # documents that the search effort is tuned on


def build(
    folder: Path, records: Iterable[Any] | None, options: BuildOptions, *, encoder: Embedder | None,
    vectors: Vectors | CodedVectors | None, source_name: str, resume: bool, overwrite: bool, wait_s: float,
    skipped: Faults | None, spread: Spread,
) -> None:
    """Build the index in ``folder``; see ``SearchIndex.build``."""
    options.check()
    if vectors is None and (encoder is None or records is None):
        raise SearchError("build needs documents and an encoder, or vectors")
    if vectors is not None and options.fields:
        raise SearchError("fields are encoded, and here vectors are given; give one of the two")
    if vectors is not None and options.passages is not None:
        raise SearchError("passages are cut from texts that are encoded here; give no vectors, or no passages")
    if options.passages is not None:  # rows are found by their document
        options = replace(options, indexed_fields=(*options.indexed_fields, NAME_OF_PASSAGE))
    with write_lock(folder, wait_s):
        old = on_disk(folder)
        if old is not None and not overwrite:
            raise SearchError(f"{folder}: holds an index already; add to it, or build over it with overwrite")
        draft = sweep(folder)
        if draft is not None and not (resume or overwrite):
            raise SearchError(f"{folder}: an unfinished build lies here; resume it, or start over with overwrite")
        if draft is not None and (vectors is not None or not resume):
            discard_draft(folder)
            draft = None
        writer = SegmentWriter(
            folder=folder, generation=(old.generation if old else 0) + 1, indexed_fields=options.indexed_fields,
            words=rule_of(options.words),
        )
        try:
            if vectors is not None:
                array = vectors if isinstance(vectors, CodedVectors) else np.asarray(vectors)
                made = _from_vectors(writer, records, array, options, skipped)
            else:
                assert records is not None
                assert encoder is not None
                made = _from_texts(writer, draft, records, encoder, options, source_name, skipped, spread)
            commit(folder, made)
        except BaseException as error:
            with suppress(OSError, SearchError):  # a full disk may refuse even this; the next writer sweeps again
                _tidy(folder, error)
            raise


def _tidy(folder: Path, error: BaseException) -> None:
    """Remove what no commit names; the error then says from how many documents a build can go on."""
    draft = sweep(folder)
    if draft is None:
        return
    message = f"{draft.staged.rows:,} encoded documents are kept: the corrected command goes on with --resume"
    if isinstance(error, SentembError):
        error.args = (f"{error}; {message}",)
    elif isinstance(error, OSError):
        error.strerror = f"{error.strerror}; {message}"


def _from_vectors(
    writer: SegmentWriter, records: Iterable[Any] | None, vectors: Vectors | CodedVectors, options: BuildOptions,
    skipped: Faults | None,
) -> Manifest:
    if len(vectors) == 0:
        raise SearchError("there are no vectors to index")
    numbering = Numbering(0, is_unique=True)
    rows: Iterator[Row] = ((number, None, None) for number in range(len(vectors)))
    if records is not None:
        rows = as_rows(records, numbering, with_text=False, skipped=skipped)
    source = GivenRows(vectors, rows, VectorRule(metric=options.metric, dimension=options.dim))
    made = make_index(writer, None, source, options, width=vectors.shape[1])
    return replace(made, next_id=numbering.next_id if records is not None else len(vectors))


def _from_texts(
    writer: SegmentWriter, draft: Draft | None, records: Iterable[Any], encoder: Embedder, options: BuildOptions,
    source_name: str, skipped: Faults | None, spread: Spread,
) -> Manifest:
    model = model_of(encoder, options.query_prompt, options.document_prompt, options.fields)
    settings = {
        "data": source_name, "metric": options.metric, "dim": options.dim, "model": model.source,
        "digest": model.digest, "document prompt": model.document_prompt, "passages": str(options.passages or "none"),
        "fields": ", ".join(f"{name} {weight:g}" for name, weight in model.fields.items()),
    }
    numbering = Numbering(0, is_unique=True)
    rows = as_rows(records, numbering, with_text=True, skipped=skipped)
    if options.passages is not None:
        rows = splitter(options.passages, encoder, model.document_prompt).rows(rows)
    if draft is not None:
        for name, before in draft.begun_with.items():
            if before != settings.get(name):
                raise SearchError(
                    f"{writer.folder}: the interrupted build had {name} = {before!r}, now it is {settings[name]!r}; "
                    "resume with the same settings, or start over with overwrite"
                )
        check_fits(options.kind, draft.staged.dimension, options.metric)
        with closing(Generation.of(writer.folder, draft.staged, is_mapped=True, verify=True)) as staged:
            _pass_staged(rows, staged)
    with Progress("encoding", total=None, unit="texts", done=draft.staged.rows if draft else 0) as bar:
        rule = VectorRule(metric=options.metric, dimension=options.dim)
        blocks = encoded_blocks(rows, lambda: encoder, rule, model, bar)
        draft = _stage(writer, draft, blocks, options, settings)
    if draft is None:
        raise SearchError(f"{source_name}: there are no documents to index")
    with closing(Generation.of(writer.folder, draft.staged, is_mapped=True)) as staged:
        width = draft.staged.width or staged.dimension
        return make_index(
            writer, draft, staged, options, width=width, model=replace(model, width=width), next_id=numbering.next_id,
            spread=spread,
        )


def _pass_staged(rows: Iterator[Row], staged: Generation) -> None:
    """Read the rows that were committed before an interruption, and see that they are what was encoded."""
    before = (row for block in staged.blocks(0, len(staged), with_vectors=False) for row in block.rows)
    for number, row in enumerate(before, start=1):
        if next(rows, None) != row:
            raise SearchError(
                f"document {number} is not what was encoded before the interruption; resume with the data as it was, "
                "or start over with overwrite"
            )


def _stage(
    writer: SegmentWriter, draft: Draft | None, blocks: Iterator[Block], options: BuildOptions, settings: dict[str, Any]
) -> Draft | None:
    """Commit encoded rows, part by part; where encoding ends in an error, what came before it is committed too."""
    writer = replace(writer, indexed_fields=(), words=None)
    fault: BaseException | None = None
    while fault is None:
        part: list[Block] = []
        try:
            for block in islice(blocks, max(1, (draft.staged.rows if draft else 0) // (SHARE * BLOCK))):
                part.append(block)
        except BaseException as error:
            fault = error
        if part:
            staged = draft.staged if draft is not None else _nothing_staged(part[0], options)
            entry = writer.write(part, empty_index(writer.folder, staged, 0, is_tail=True), is_tail=True)
            draft = Draft(begun_with=settings, staged=replace(staged, segments=(*staged.segments, entry)))
            commit_draft(writer.folder, draft)
        elif fault is None:
            return draft
    raise fault


def _nothing_staged(first: Block, options: BuildOptions) -> Manifest:
    assert first.vectors is not None
    dimension = first.vectors.shape[1]
    check_fits(options.kind, dimension, options.metric)
    return Manifest(
        generation=1, dimension=dimension, metric=options.metric, kind={"use": "flat"}, description="", reason="",
        seed=0, next_id=0, width=first.width,
    )


def make_index(
    writer: SegmentWriter, draft: Draft | None, source: GivenRows | Generation, options: BuildOptions, *,
    width: int, model: Model | None = None, next_id: int = 0, spread: Spread = map,
) -> Manifest:
    """The index of all rows: kind, training, segments, tuning; the segments are committed to the draft."""
    rows = len(source)
    choice = choose(options.kind, rows=rows, dimension=source.dimension, memory_bytes=options.memory_bytes,
                    target_recall=options.target_recall, rescore=options.rescore)
    index = choice.kind
    index.create(dimension=source.dimension, metric=options.metric, rows=rows)
    begun = Manifest(
        generation=writer.generation, dimension=source.dimension, metric=options.metric, kind=to_table(index),
        description=index.description, reason=choice.reason, seed=options.seed, next_id=next_id, width=width,
        model=model, rescored=choice.is_rescored, indexed_fields=options.indexed_fields, words=options.words,
        passages=options.passages,
    )
    step = options.segment_rows or rows
    parts = [(start, min(start + step, rows)) for start in range(0, rows, step)]
    made = draft.made if draft is not None else None
    if made is None or not _goes_on(made, begun, parts):
        made = begun
        if index.needs_training:
            sample = np.random.default_rng(options.seed).choice(rows, size=index.training_rows(rows), replace=False)
            index.train(source.vectors_at(np.sort(sample)), seed=options.seed)
            made = replace(made, template=writer.write_index(index, "trained"))
    for entry in spread(partial(make_segment, writer, made, source), parts[len(made.segments) :]):
        made = replace(made, segments=(*made.segments, entry))
        if draft is not None:
            commit_draft(writer.folder, replace(draft, made=made))
    if not index.is_exact:
        generator = np.random.default_rng(options.seed + 1)  # another draw than the training sample
        own = np.sort(generator.choice(rows, size=min(QUERIES, rows), replace=False))
        with closing(Generation.of(writer.folder, made, is_mapped=True)) as opened:
            tuned = least_effort(
                opened, source.vectors_at(own), options.target_recall, vectors_at=source.vectors_at, own=own
            )
        made = replace(made, tuned=tuned)
    if draft is not None:
        commit_draft(writer.folder, replace(draft, made=made))
    return made


def make_segment(
    writer: SegmentWriter, made: Manifest, source: GivenRows | Generation, part: tuple[int, int]
) -> SegmentEntry:
    """One segment of an index in the making, in any process that sees the folder; whoever calls it commits the entry.

    Args:
        made: with its trained template, where the kind needs training.
        part: its rows (start, stop) of the source.
    """
    start, stop = part
    index = empty_index(writer.folder, made, stop - start)
    with Progress("indexing", total=stop - start, unit="vectors") as bar:
        return writer.write(counted(source.blocks(start, stop), bar), index, is_rescored=made.rescored)


def _goes_on(made: Manifest, begun: Manifest, parts: Sequence[tuple[int, int]]) -> bool:
    """Whether the segments that an interrupted build made are the first ones of this build."""
    settings = replace(made, segments=(), template=None, tuned=None, reason=begun.reason)
    rows = [entry.rows for entry in made.segments]
    return settings == begun and rows == [stop - start for start, stop in parts[: len(rows)]]
