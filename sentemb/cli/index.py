"""``sentemb index build|add|upsert|sync|delete|compact|merge|tune|upgrade|stats|verify``; ``index DATA`` is build."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sentemb.cli.documents import array_of, changed_at, documents_of
from sentemb.cli.options import DEFAULT_MODEL, Data, Json, Model, Precision, Ray, Split, settings_of, with_default
from sentemb.cli.output import print_json
from sentemb.stopping import NOT_BEGUN, stoppable

if TYPE_CHECKING:
    from sentemb.search import SearchIndex

app = typer.Typer(add_completion=False, cls=with_default("build"), no_args_is_help=True, help=__doc__)

Folder = Annotated[Path, typer.Argument(metavar="INDEX", help="folder of the index")]
TextField = Annotated[str | None, typer.Option(help="column with the text; default text, sentence, document, passage")]
IdField = Annotated[str | None, typer.Option(help="column with the id; default id or _id, else documents are numbered")]
SkipFaulty = Annotated[bool, typer.Option("--skip-faulty", help="leave out and count documents that cannot be indexed")]
Files = Annotated[bool, typer.Option(
    "--files", help="every file of DATA is one document: text, Markdown, HTML, PDF, docx")]
VectorFile = Annotated[Path | None, typer.Option(help="the documents' vectors, a .npy array; no model is needed then")]
Wait = Annotated[float, typer.Option(min=0, help="seconds to wait for another process that writes to this index")]
WordRule = Annotated[str, typer.Option(help="word index for --hybrid: english, unicode, stem-german …, trigram, none")]

SETTINGS = {"memory_gib": float, "segment_rows": int, "target_recall": float, "seed": int, "dim": int,
            "query_prompt": str, "document_prompt": str, "fields": dict[str, float]}


@app.command()
@stoppable(NOT_BEGUN)
def build(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for the index")],
    data: Annotated[list[str] | None, typer.Argument(
        metavar="DATA…", help='files, data sets, "FILE.db: SELECT …", - for standard input')] = None,
    model: Model = DEFAULT_MODEL,
    vectors: VectorFile = None,
    kind: Annotated[str, typer.Option(help="auto, a kind (sentemb list kinds) such as hnsw or hnsw:m=16, or a FAISS "
                                          "factory string")] = "auto",
    metric: Annotated[str, typer.Option(help="cosine, dot or l2")] = "cosine",
    rescore: Annotated[bool | None, typer.Option(
        "--rescore/--no-rescore", help="compare the best in half precision; default where codes are coarse")] = None,
    field: Annotated[list[str] | None, typer.Option(help="metadata field to index for fast filters; repeat")] = None,
    words: WordRule = "english",
    chunk_tokens: Annotated[int | None, typer.Option(
        min=1, help="cut documents into passages of at most so many tokens; without it the ends of long ones are "
        "left out")] = None,
    overlap: Annotated[int, typer.Option(min=0, help="tokens that two passages share at most")] = 0,
    files: Files = False,
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
    from sentemb.search import BuildOptions, Passages, SearchIndex

    if overlap and (chunk_tokens is None or overlap > chunk_tokens // 2):
        raise SearchError(f"--overlap {overlap} is for --chunk-tokens of at least {2 * overlap}")
    options: dict[str, Any] = {
        "kind": kind, "metric": metric, "rescore": rescore, "words": words, "indexed_fields": tuple(field or ()),
        **settings_of(set_ or (), SETTINGS),
    }
    if chunk_tokens is not None:
        options["passages"] = Passages(tokens=chunk_tokens, overlap=overlap)
    if "memory_gib" in options:
        options["memory_bytes"] = int(options.pop("memory_gib") * (1 << 30))
    BuildOptions(**options).check()
    encoder: Any = None
    if vectors is None:
        from sentemb.encoder import Encoder

        encoder = Encoder.load(model, precision=precision)
        if ray:
            from sentemb.cluster import Cluster

            cluster = context.with_resource(Cluster(ray))
            encoder, options["spread"] = cluster.encoder(encoder), cluster.spread
    reading = documents_of(data, split, text_field, id_field, skip_faulty, files)
    with _writing(out, builds=True), reading as (documents, skipped):
        index = SearchIndex.build(
            out, documents, encoder=encoder, vectors=array_of(vectors), resume=resume, overwrite=overwrite,
            skipped=skipped, wait_s=wait, name=", ".join(data or [str(vectors)]), **options,
        )
        _report(index, json)


@app.command("add", help="Add documents with new ids: all of them, or none.")
@app.command("upsert", help="Add documents, replacing those of the same id: all of them, or none.")
def put(
    context: typer.Context, index: Folder, data: Data, vectors: VectorFile = None, text_field: TextField = None,
    id_field: IdField = None, split: Split = None, precision: Precision = "auto", skip_faulty: SkipFaulty = False,
    files: Files = False, wait: Wait = 0,
) -> None:
    with (
        _changing(index, wait, precision) as opened,
        documents_of(data, split, text_field, id_field, skip_faulty, files) as (documents, skipped),
    ):
        change, said = (opened.add, "added") if context.info_name == "add" else (opened.upsert, "wrote")
        count = change(documents, vectors=array_of(vectors), skipped=skipped)
        typer.echo(f"{index}: {said} {count:,} documents; {len(opened):,} now")


@app.command()
def sync(
    data: Annotated[list[str], typer.Argument(metavar="DATA… INDEX", help="all the documents there are to be, then the "
                                              "folder of the index")],
    text_field: TextField = None, id_field: IdField = None, split: Split = None, precision: Precision = "auto",
    skip_faulty: SkipFaulty = False, files: Files = False,
    watch: Annotated[float | None, typer.Option(
        min=0.1, metavar="SECONDS", help="look again every so many seconds, until Ctrl-C")] = None,
    wait: Wait = 0,
) -> None:
    """Make INDEX hold the documents of DATA and no others.

    What is new or changed is encoded, what vanished is deleted, the rest stays as it is.
    """
    from dataclasses import asdict
    from time import sleep

    from sentemb.errors import SearchError

    *sources, index = data
    if not sources:
        raise SearchError("sync needs DATA and INDEX; give the documents first and the index last")
    with _changing(Path(index), wait, precision) as opened:
        before = None
        while True:
            now = changed_at(sources) if watch is not None else None
            if watch is None or now != before:
                with documents_of(sources, split, text_field, id_field, skip_faulty, files) as (documents, skipped):
                    done = asdict(opened.sync(documents, skipped=skipped))
                typer.echo(f"{index}: " + ", ".join(f"{count:,} {what}" for what, count in done.items()))
            if watch is None:
                return
            before = now
            sleep(watch)
            opened.refresh()


@app.command()
def delete(
    index: Folder, ids: Annotated[list[str], typer.Argument(metavar="ID…", help="ids of documents")], wait: Wait = 0
) -> None:
    """Delete documents by id."""
    with _changing(index, wait) as opened:
        typer.echo(f"{index}: deleted {opened.delete(ids):,} documents; {len(opened):,} left")


@app.command()
def compact(index: Folder, wait: Wait = 0) -> None:
    """Rewrite the index as one segment without deleted rows."""
    with _changing(index, wait) as opened:
        opened.compact()
        _report(opened)


@app.command()
def merge(
    index: Folder,
    others: Annotated[list[Path], typer.Argument(metavar="OTHER…", help="indexes of the same model, e.g. shards")],
    renumber: Annotated[bool, typer.Option("--renumber", help="number the documents of OTHER anew")] = False,
    wait: Wait = 0,
) -> None:
    """Append the documents of other indexes to INDEX."""
    with _changing(index, wait) as opened:
        count = opened.merge([_open(other) for other in others], renumber=renumber)
        typer.echo(f"{index}: took over {count:,} documents; {len(opened):,} now")


@app.command()
def tune(
    index: Folder,
    queries: Annotated[str, typer.Argument(metavar="QUERIES", help="file with real queries, one a row")],
    target_recall: Annotated[float, typer.Option(help="share of the ten nearest that a search must find")] = 0.95,
    text_field: TextField = None,
    wait: Wait = 0,
) -> None:
    """Tune the search effort to a target recall on real queries, and store it."""
    from sentemb.data import iter_texts

    with _changing(index, wait) as opened:
        opened.tune(list(iter_texts(queries, text_field)), target_recall=target_recall)
        _report(opened)


@app.command()
def upgrade(index: Folder, words: WordRule = "english", wait: Wait = 0) -> None:
    """Write an index of an earlier sentemb in today's format, with a word index; vectors stay as they are."""
    with _changing(index, wait) as opened:
        opened.upgrade(words=words)
        typer.echo(f"{index}: today's format, words {words}, {len(opened):,} documents")


@app.command()
def stats(index: Folder, json: Json = False) -> None:
    """What the index holds and takes."""
    _report(_open(index), json)


@app.command()
def verify(index: Folder) -> None:
    """Check every file's SHA-256, and that ids are unique."""
    opened = _open(index)
    typer.echo(f"{index}: {opened.verify()} files are as they were written; {len(opened):,} documents")


@contextmanager
def _writing(folder: Path, *, builds: bool = False) -> Iterator[None]:
    """Work on an index; where that is stopped, say what became of it and how to go on."""
    from sentemb.search.store.disk import on_disk
    from sentemb.search.store.manifest import read_draft

    before = on_disk(folder)

    def left() -> str:
        draft = read_draft(folder) if builds else None
        if on_disk(folder) != before:
            return f"{folder} was written before that: sentemb index stats {folder} tells what it holds"
        if draft is None:
            return "nothing was changed: the same command starts again"
        return f"{draft.staged.rows:,} encoded documents are kept: the same command with --resume goes on from them"

    with stoppable(left):
        yield


@contextmanager
def _changing(folder: Path, wait_s: float, precision: str = "auto") -> Iterator[SearchIndex]:
    with _writing(folder):
        yield _open(folder, precision, wait_s)


def _open(folder: Path, precision: str = "auto", wait_s: float = 0.0) -> SearchIndex:
    from sentemb.search import SearchIndex

    return SearchIndex.open(folder, precision=None if precision == "auto" else precision, wait_s=wait_s)


def _report(index: SearchIndex, as_json: bool = False) -> None:
    stats, tuned = index.stats(), index.manifest.tuned
    if as_json:
        print_json(stats)
        return
    what = "documents" if stats.passages is None else f"passages of at most {stats.passages.tokens} tokens"
    typer.echo(f"{index.folder}: {stats.documents:,} {what} ({stats.deleted:,} deleted rows), "
               f"segments {stats.segments}, generation {stats.generation}\n"
               f"  {stats.kind} ({stats.description}), {stats.metric}, {stats.dimension} dimensions, "
               f"words {stats.words}, {stats.bytes:,} bytes, {stats.bytes_per_vector:.0f} a vector\n"
               f"  why: {stats.reason}\n"
               f"  model: {stats.model or 'none (vectors were given)'} {(stats.digest or '')[:12]}")
    if stats.cut:
        typer.echo(f"  {stats.cut:,} documents are longer than the model reads; no search sees their end")
    if tuned is not None:
        what = "real queries" if tuned.measured_on == "queries" else (
            "documents as queries; real ones find less, see sentemb index tune")
        reached = "" if tuned.reached else ", not reached"
        typer.echo(f"  recall@10 {tuned.recall:.4f} on {what} (target {tuned.target_recall:g}{reached}), "
                   f"effort {tuned.effort or 'all'}, oversample {tuned.oversample}")
