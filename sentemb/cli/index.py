"""``sentemb index build|add|upsert|delete|compact|merge|tune|upgrade|stats|verify``; ``index DATA`` is build."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sentemb.cli.options import DEFAULT_MODEL, Json, Model, Precision, Ray, Split, settings_of, with_default
from sentemb.stopping import NOT_BEGUN, stoppable

if TYPE_CHECKING:
    from sentemb.cluster import ClusterEncoder
    from sentemb.data.faults import Faults
    from sentemb.encoder import Encoder
    from sentemb.search import SearchIndex

app = typer.Typer(add_completion=False, cls=with_default("build"), no_args_is_help=True, help=__doc__)

Folder = Annotated[Path, typer.Argument(metavar="INDEX", help="folder of the index")]
Documents = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA…",
        help="txt, csv, tsv, jsonl, parquet (also .gz, .zst), a data set's folder or hub id, - for standard input",
    ),
]
TextField = Annotated[str | None, typer.Option(help="column with the text; default text, sentence, document, passage")]
IdField = Annotated[str | None, typer.Option(help="column with the id; default id or _id, else documents are numbered")]
SkipFaulty = Annotated[bool, typer.Option("--skip-faulty", help="leave out and count documents that cannot be indexed")]
VectorFile = Annotated[Path | None, typer.Option(help="the documents' vectors, a .npy array; no model is needed then")]
Wait = Annotated[float, typer.Option(min=0, help="seconds to wait for another process that writes to this index")]
WordRule = Annotated[str, typer.Option(help="word index for --hybrid: english, unicode, stem-german …, trigram, none")]
TargetRecall = Annotated[float, typer.Option(help="share of the exact ten nearest neighbours that a search must find")]

SETTINGS = {
    "memory_gib": float, "segment_rows": int, "target_recall": float, "seed": int, "dim": int, "query_prompt": str,
    "document_prompt": str,
}


@app.command()
@stoppable(NOT_BEGUN)
def build(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for the index")],
    data: Annotated[
        list[str] | None, typer.Argument(metavar="DATA…", help="files, data sets, or - for standard input")
    ] = None,
    model: Model = DEFAULT_MODEL,
    vectors: VectorFile = None,
    kind: Annotated[str, typer.Option(help="auto, a kind (sentemb list kinds) such as hnsw or hnsw:m=16, or a FAISS "
                                          "factory string")] = "auto",
    metric: Annotated[str, typer.Option(help="cosine, dot or l2")] = "cosine",
    rescore: Annotated[bool | None, typer.Option(
        "--rescore/--no-rescore", help="compare the best again in half precision; default where codes are coarse"),
    ] = None,
    field: Annotated[list[str] | None, typer.Option(help="metadata field to index for fast filters; repeat")] = None,
    words: WordRule = "english",
    set_: Annotated[list[str] | None, typer.Option(
        "--set", metavar="KEY=VALUE", help=f"one more setting: {', '.join(SETTINGS)}; repeatable")] = None,
    text_field: TextField = None,
    id_field: IdField = None,
    split: Split = None,
    precision: Precision = "auto",
    ray: Ray = None,
    skip_faulty: SkipFaulty = False,
    resume: Annotated[bool, typer.Option("--resume", help="continue an interrupted build")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an index or unfinished build there")] = False,
    wait: Wait = 0,
    json: Json = False,
) -> None:
    """Encode documents and build an index, in bounded memory."""
    from sentemb.errors import SearchError
    from sentemb.search import SearchIndex
    from sentemb.search.store.options import BuildOptions

    options: dict[str, Any] = {
        "kind": kind, "metric": metric, "rescore": rescore, "words": words, "indexed_fields": tuple(field or ()),
        **settings_of(set_ or (), SETTINGS),
    }
    if "memory_gib" in options:
        options["memory_bytes"] = int(max(0.0, min(1e9, options.pop("memory_gib"))) * (1 << 30))
    BuildOptions(**options).check()
    if not data and vectors is None:
        raise SearchError("name the documents, or --vectors")
    encoder: Encoder | ClusterEncoder | None = None
    if vectors is None:
        from sentemb.encoder import Encoder

        encoder = Encoder.load(model, precision=precision)
        if ray:
            from sentemb.cluster import Cluster

            cluster = context.with_resource(Cluster(ray))
            encoder, options["spread"] = cluster.encoder(encoder), cluster.spread
    skipped = _skipping(skip_faulty)
    with _building(out):
        index = SearchIndex.build(
            out, _documents(data, split, text_field, id_field, skipped) if data else None, encoder=encoder,
            vectors=_array(vectors), resume=resume, overwrite=overwrite, skipped=skipped, wait_s=wait,
            name=", ".join(data or [str(vectors)]), **options,
        )
        _report(index, json)
        _tell_skipped(skipped)


@app.command()
@stoppable(NOT_BEGUN)
def add(
    index: Folder, data: Documents, vectors: VectorFile = None, text_field: TextField = None, id_field: IdField = None,
    split: Split = None, precision: Precision = "auto", skip_faulty: SkipFaulty = False, wait: Wait = 0,
) -> None:
    """Add documents with new ids: all of them, or none."""
    skipped = _skipping(skip_faulty)
    with _changing(index, wait, precision) as opened:
        documents = _documents(data, split, text_field, id_field, skipped)
        count = opened.add(documents, vectors=_array(vectors), skipped=skipped)
        typer.echo(f"{index}: added {count:,} documents; {len(opened):,} now")
        _tell_skipped(skipped)


@app.command()
@stoppable(NOT_BEGUN)
def upsert(
    index: Folder, data: Documents, vectors: VectorFile = None, text_field: TextField = None, id_field: IdField = None,
    split: Split = None, precision: Precision = "auto", skip_faulty: SkipFaulty = False, wait: Wait = 0,
) -> None:
    """Add documents, replacing those of the same id: all of them, or none."""
    skipped = _skipping(skip_faulty)
    with _changing(index, wait, precision) as opened:
        documents = _documents(data, split, text_field, id_field, skipped)
        count = opened.upsert(documents, vectors=_array(vectors), skipped=skipped)
        typer.echo(f"{index}: wrote {count:,} documents; {len(opened):,} now")
        _tell_skipped(skipped)


@app.command()
@stoppable(NOT_BEGUN)
def delete(
    index: Folder, ids: Annotated[list[str], typer.Argument(metavar="ID…", help="ids of documents")], wait: Wait = 0
) -> None:
    """Delete documents by id."""
    with _changing(index, wait) as opened:
        typer.echo(f"{index}: deleted {opened.delete(ids):,} documents; {len(opened):,} left")


@app.command()
@stoppable(NOT_BEGUN)
def compact(index: Folder, wait: Wait = 0) -> None:
    """Rewrite the index as one segment without deleted rows."""
    with _changing(index, wait) as opened:
        opened.compact()
        _report(opened, False)


@app.command()
@stoppable(NOT_BEGUN)
def merge(
    index: Folder,
    others: Annotated[list[Path], typer.Argument(metavar="OTHER…", help="indexes of the same model, e.g. shards")],
    renumber: Annotated[bool, typer.Option("--renumber", help="number the documents of OTHER anew")] = False,
    wait: Wait = 0,
) -> None:
    """Append the documents of other indexes to INDEX."""
    from sentemb.search import SearchIndex

    with _changing(index, wait) as opened:
        count = opened.merge([SearchIndex.open(other) for other in others], renumber=renumber)
        typer.echo(f"{index}: took over {count:,} documents; {len(opened):,} now")


@app.command()
@stoppable(NOT_BEGUN)
def tune(
    index: Folder,
    queries: Annotated[str, typer.Argument(metavar="QUERIES", help="file with real queries, one a row")],
    target_recall: TargetRecall = 0.95,
    text_field: TextField = None,
    wait: Wait = 0,
) -> None:
    """Tune the search effort to a target recall on real queries, and store it."""
    from sentemb.data import iter_texts

    with _changing(index, wait) as opened:
        tuned = opened.tune(list(iter_texts(queries, text_field)), target_recall=target_recall)
        typer.echo(f"effort {tuned.effort}, oversample {tuned.oversample}: recall@10 {tuned.recall:.4f} on "
                   f"{tuned.queries} queries{'' if tuned.reached else ' (target not reached)'}")


@app.command()
@stoppable(NOT_BEGUN)
def upgrade(index: Folder, words: WordRule = "english", wait: Wait = 0) -> None:
    """Write an index of an earlier sentemb in today's format, with a word index; vectors stay as they are."""
    with _changing(index, wait) as opened:
        opened.upgrade(words=words)
        typer.echo(f"{index}: today's format, words {words}, {len(opened):,} documents")


@app.command()
@stoppable("nothing was changed")
def stats(index: Folder, json: Json = False) -> None:
    """What the index holds and takes."""
    _report(_open(index), json)


@app.command()
@stoppable("nothing was changed")
def verify(index: Folder) -> None:
    """Check every file's SHA-256, the document stores and ids."""
    opened = _open(index)
    typer.echo(f"{index}: {opened.verify()} files are as they were written; {len(opened):,} documents")


@contextmanager
def _building(out: Path) -> Iterator[None]:
    """An index in the making; where that is stopped, say how to go on, or that it is complete."""
    from sentemb.search.store.disk import on_disk
    from sentemb.search.store.manifest import read_draft

    before = on_disk(out)

    def left() -> str:
        draft = read_draft(out)
        if on_disk(out) != before:
            return f"{out} is complete: sentemb index stats {out} tells what it holds"
        if draft is None:
            return "nothing of it was kept: the same command starts again"
        return f"{draft.staged.rows:,} encoded documents are kept: the same command with --resume goes on from them"

    with stoppable(left):
        yield


@contextmanager
def _changing(folder: Path, wait_s: float, precision: str = "auto") -> Iterator[SearchIndex]:
    """An index to change; where that is stopped, say what became of it."""
    from sentemb.search.store.manifest import read

    before = read(folder).generation

    def left() -> str:
        if read(folder).generation == before:
            return f"{folder} is as it was. The same command starts again"
        return f"{folder} has changed before that: sentemb index stats {folder} tells what it holds"

    with stoppable(left):
        yield _open(folder, precision, wait_s)


def _open(folder: Path, precision: str = "auto", wait_s: float = 0.0) -> SearchIndex:
    from sentemb.search import SearchIndex

    return SearchIndex.open(folder, precision=None if precision == "auto" else precision, wait_s=wait_s)


def _documents(
    data: list[str], split: str | None, text_field: str | None, id_field: str | None, skipped: Faults | None
) -> Iterable[Any]:
    from sentemb.data import iter_records
    from sentemb.search.store.records import read_documents

    records = chain.from_iterable(iter_records(path, split=split, skipped=skipped) for path in data)
    return read_documents(records, text_field=text_field, id_field=id_field, skipped=skipped)


def _array(path: Path | None) -> Any:
    """A memory-mapped array of a file."""
    if path is None:
        return None
    import numpy as np

    from sentemb.errors import SearchError

    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SearchError(f"{path}: not an array in numpy's .npy format ({error})") from None


def _skipping(is_asked: bool) -> Faults | None:
    from sentemb.data.faults import Faults

    return Faults() if is_asked else None


def _tell_skipped(skipped: Faults | None) -> None:
    if skipped is not None and skipped.count:
        typer.echo(f"left out {skipped.count:,} faulty documents", err=True)


def _report(index: SearchIndex, as_json: bool) -> None:
    from dataclasses import asdict
    from json import dumps

    stats = index.stats()
    if as_json:
        typer.echo(dumps(asdict(stats)))
        return
    typer.echo(f"{index.folder}: {stats.documents:,} documents ({stats.deleted:,} deleted rows), "
               f"segments {stats.segments}, generation {stats.generation}")
    typer.echo(f"  {stats.kind} ({stats.description}), {stats.metric}, {stats.dimension} dimensions, "
               f"words {stats.words}, {stats.bytes:,} bytes, {stats.bytes_per_vector:.0f} a vector")
    typer.echo(f"  why: {stats.reason}")
    typer.echo(f"  model: {stats.model or 'none (vectors were given)'} {(stats.digest or '')[:12]}")
    if stats.cut:
        typer.echo(f"  {stats.cut:,} documents are longer than the model reads; no search sees their end")
    if stats.tuned is not None:
        what = "real queries" if stats.tuned.measured_on == "queries" else (
            "documents as queries; real ones find less, see sentemb index tune")
        typer.echo(f"  recall@10 {stats.tuned.recall:.4f} on {what} (target {stats.tuned.target_recall:g}"
                   f"{'' if stats.tuned.reached else ', not reached'}), effort {stats.tuned.effort}, "
                   f"oversample {stats.tuned.oversample}")
