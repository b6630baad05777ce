"""``sentemb search INDEX [QUERY…]``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sentemb.cli.options import Json, settings_of

if TYPE_CHECKING:
    from sentemb.search import Hit, SearchIndex

    Answer = Callable[[list[str], int], list[list[Hit]]]

app = typer.Typer(add_completion=False)
MOST = 100_000  # results a query: all are in memory at once


@app.command()
def search(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="folder of the index")],
    queries: Annotated[list[str] | None, typer.Argument(metavar="QUERY", help="texts to search for; none: ask one "
                                                        "after the other")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=MOST, help="results of each query")] = 10,
    where: Annotated[str | None, typer.Option(help='filter, e.g. year >= 2020 and lang in ("en", "de")')] = None,
    file: Annotated[str | None, typer.Option(help="file with a query a row")] = None,
    words: Annotated[bool, typer.Option("--words", help="search by words (BM25) instead of by meaning")] = False,
    hybrid: Annotated[bool, typer.Option("--hybrid", help="search by meaning and by words, fused by ranks")] = False,
    diverse: Annotated[float | None, typer.Option(
        min=0, max=1, help="results unlike one another; 1 cares for relevance only, 0 for diversity only")] = None,
    within: Annotated[float | None, typer.Option(
        help="all results at least this similar (index of distances: at most this far), instead of -k")] = None,
    more_like: Annotated[list[str] | None, typer.Option(
        metavar="ID", help="documents like the one with this id; repeatable")] = None,
    like: Annotated[list[str] | None, typer.Option(
        metavar="TEXT", help="documents like all texts so given; repeatable")] = None,
    unlike: Annotated[list[str] | None, typer.Option(
        metavar="TEXT", help="with --like: and unlike all texts so given; repeatable")] = None,
    rerank: Annotated[str | None, typer.Option(metavar="MODEL", help="cross-encoder that orders the best 5·k")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="folder or hub id that has the index's model now")]
    = None,
    precision: Annotated[str | None, typer.Option(help="number format of encoding queries; default the index's")]
    = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=(
        "effort=N (nprobe or efSearch), mapped=true (vectors stay on disk), verify=false (no checksums)"
    ))] = None,
    json: Json = False,
) -> None:
    """Find documents by meaning, by words, or by both."""
    from sentemb.search import SearchIndex

    settings = settings_of(set_ or (), {"effort": int, "mapped": bool, "verify": bool})
    effort = settings.pop("effort", None)
    _check_together(
        ways={"QUERY": queries or file, "--more-like": more_like, "--like": like},
        kinds={"--words": words, "--hybrid": hybrid, "--diverse": diverse is not None, "--within": within is not None},
        effort=effort is not None, rerank=rerank is not None, unlike=bool(unlike),
    )
    texts = _texts(queries or [], file)
    opened = SearchIndex.open(index, encoder=model, precision=precision, **settings)
    if more_like:
        _show(opened, where, zip(more_like, opened.similar_to(more_like, k, where=where), strict=True), json)
        return
    if like:
        title = " ∩ ".join(like) + "".join(f" \\ {text}" for text in unlike or ())
        _show(opened, where, [(title, opened.combined(like, unlike or None, k, where=where))], json)
        return

    def plain(texts: list[str], count: int) -> list[list[Hit]]:
        if words:
            return opened.by_words(texts, count, where=where)
        if hybrid:
            return opened.hybrid(texts, count, where=where)
        if within is not None:
            return opened.within(texts, within, where=where)
        if diverse is not None:
            return opened.diverse(texts, count, weight=diverse, where=where)
        return opened.search(texts, count, where=where, effort=effort)

    answer = _reranked(opened, plain, rerank) if rerank else plain
    if texts:
        _show(opened, where, zip(texts, answer(texts, k), strict=True), json)
    else:
        _interact(opened, where, lambda texts: answer(texts, k), json)


def _texts(queries: list[str], file: str | None) -> list[str]:
    from sentemb.data import iter_texts
    from sentemb.errors import SearchError

    texts = [*queries, *(iter_texts(file) if file else ())]
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise SearchError(f"query {number} is empty; write a text to search for")
    if file and not texts:
        raise SearchError(f"{file}: holds no query")
    return texts


def _check_together(
    *, ways: Mapping[str, Any], kinds: Mapping[str, Any], effort: bool, rerank: bool, unlike: bool
) -> None:
    """Refuse options of which one would be ignored.

    Args:
        ways: to ask, of which there is one; none is interactive.
        kinds: of search for queries, of which there is at most one.
    """
    from sentemb.errors import SearchError

    given, chosen = ([name for name, value in options.items() if value] for options in (ways, kinds))
    if len(given) > 1:
        raise SearchError(f"{' and '.join(given)} are different questions; ask one of them")
    if unlike and given != ["--like"]:
        raise SearchError("--unlike says what results of --like should not be like; give --like as well")
    if len(chosen) > 1:
        raise SearchError(f"{' and '.join(chosen)} do not go together; take one of {', '.join(kinds)}")
    extra = [*chosen, *["--set effort"] * effort, *["--rerank"] * rerank]
    if extra and given and given != ["QUERY"]:
        raise SearchError(f"{extra[0]} is for queries; it does not go with {given[0]}")
    if effort and chosen:
        raise SearchError(f"--set effort does not go with {chosen[0]}, which looks as hard as the index was tuned to")


def _reranked(index: SearchIndex, plain: Answer, model: str) -> Answer:
    """The best of five times as many, in the order of a cross-encoder."""
    from sentemb.encoder.crossencoder import load_cross_encoder

    score = load_cross_encoder(model)

    def answer(texts: list[str], k: int) -> list[list[Hit]]:
        return [index.rerank(text, hits, score, k) for text, hits in zip(texts, plain(texts, 5 * k), strict=True)]

    return answer


def _interact(
    index: SearchIndex, where: str | None, answer: Callable[[list[str]], list[list[Hit]]], as_json: bool
) -> None:
    answer(["warm up"])  # the model is loaded before the first question, not after it
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        typer.echo(f"{len(index):,} documents; an empty line ends", err=True)
    while True:
        if is_terminal:
            typer.echo("query> ", nl=False, err=True)
        line = sys.stdin.readline().strip()
        if not line:
            return
        _show(index, where, [(line, answer([line])[0])], as_json)


def _show(index: SearchIndex, where: str | None, results: Iterable[tuple[str, list[Hit]]], as_json: bool) -> None:
    """Print results; where a filter left none because no document can satisfy it, say why instead."""
    from json import dumps

    from sentemb.errors import SearchError

    results = list(results)
    if where is not None and len(index) and not any(hits for _, hits in results):
        reason = index.why_nothing(where)
        if reason is not None:
            raise SearchError(f"filter {where!r}: {reason}")
    for query, hits in results:
        if as_json:
            rows = [{"id": h.id, "score": h.score, "text": h.text, "metadata": h.metadata} for h in hits]
            typer.echo(dumps({"query": query, "hits": rows}, ensure_ascii=False))
            continue
        typer.echo(query)
        for hit in hits:
            text = " ".join((hit.text or "").split())
            typer.echo(f"  {hit.score:8.4f}  {hit.id}  {text[:100]}{'…' if len(text) > 100 else ''}")
