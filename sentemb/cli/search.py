"""``sentemb search INDEX [QUERY…]``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sentemb.cli.options import Json, settings_of

if TYPE_CHECKING:
    from sentemb.search import Hit, SearchIndex

app = typer.Typer(add_completion=False)


@app.command()
def search(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="folder of the index")],
    queries: Annotated[list[str] | None, typer.Argument(metavar="QUERY", help="texts to search for; none: ask one "
                                                        "after the other")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="results of each query")] = 10,
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
    model: Annotated[str | None, typer.Option("--model", "-m", help="where the model of the index is now")] = None,
    precision: Annotated[str | None, typer.Option(help="number format of encoding; default the index's")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=(
        "effort=N (nprobe or efSearch), mapped=true (vectors stay on disk), verify=false (no checksums)"))] = None,
    json: Json = False,
) -> None:
    """Find documents by meaning, by words, or by both."""
    from sentemb.search import SearchIndex

    settings = settings_of(set_ or (), {"effort": int, "mapped": bool, "verify": bool})
    effort = settings.pop("effort", None)
    _check_together(
        ways={"QUERY": bool(queries or file), "--more-like": bool(more_like), "--like": bool(like)},
        kinds={"--words": words, "--hybrid": hybrid, "--diverse": diverse is not None, "--within": within is not None},
        further={"--set effort": effort is not None, "--rerank": rerank is not None}, is_unlike=bool(unlike),
    )
    texts = _texts(queries or [], file)
    opened = SearchIndex.open(index, encoder=model, precision=precision, **settings)
    show = partial(_show, opened, where, json)
    if more_like:
        show(zip(more_like, opened.similar_to(more_like, k, where=where), strict=True))
        return
    if like:
        title = " ∩ ".join(like) + "".join(f" \\ {text}" for text in unlike or ())
        show([(title, opened.combined(like, unlike or None, k, where=where))])
        return
    score = None
    if rerank:
        from sentemb.encoder.pretrained import load_cross_encoder

        score = load_cross_encoder(rerank)

    def answer(texts: list[str]) -> Iterable[tuple[str, list[Hit]]]:
        count = k if score is None else 5 * k
        if words:
            lists = opened.by_words(texts, count, where=where)
        elif hybrid:
            lists = opened.hybrid(texts, count, where=where)
        elif within is not None:
            lists = opened.within(texts, within, where=where)
        elif diverse is not None:
            lists = opened.diverse(texts, count, weight=diverse, where=where)
        else:
            lists = opened.search(texts, count, where=where, effort=effort)
        if score is not None:
            lists = [opened.rerank(text, hits, score, k) for text, hits in zip(texts, lists, strict=True)]
        return zip(texts, lists, strict=True)

    if texts:
        show(answer(texts))
        return
    answer(["warm up"])  # the model is loaded before the first question, not after it
    while True:
        if sys.stdin.isatty():
            typer.echo("query (empty: the end)> ", nl=False, err=True)
        line = sys.stdin.readline().strip()
        if not line:
            return
        show(answer([line]))


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
    *, ways: Mapping[str, bool], kinds: Mapping[str, bool], further: Mapping[str, bool], is_unlike: bool
) -> None:
    """Refuse options of which one would be ignored, such as two ways to ask or two kinds of search."""
    from sentemb.errors import SearchError

    asked, chosen, extra = ([name for name, is_given in all_.items() if is_given] for all_ in (ways, kinds, further))
    if len(asked) > 1:
        raise SearchError(f"{' and '.join(asked)} are different questions; ask one of them")
    if is_unlike and asked != ["--like"]:
        raise SearchError("--unlike says what results of --like should not be like; give --like as well")
    if len(chosen) > 1:
        raise SearchError(f"{' and '.join(chosen)} do not go together; take one of {', '.join(kinds)}")
    if asked and asked != ["QUERY"] and chosen + extra:
        raise SearchError(f"{(chosen + extra)[0]} is for queries; it does not go with {asked[0]}")
    if chosen and "--set effort" in extra:
        raise SearchError(f"--set effort does not go with {chosen[0]}, which looks as hard as the index was tuned to")


def _show(index: SearchIndex, where: str | None, as_json: bool, results: Iterable[tuple[str, list[Hit]]]) -> None:
    """Print results; where a filter left none because no document can satisfy it, say why instead."""
    from pydantic_core import to_json

    from sentemb.errors import SearchError

    results = list(results)
    is_empty = len(index) and not any(hits for _, hits in results)
    if is_empty and (reason := index.why_nothing(where)):
        raise SearchError(f"filter {where!r}: {reason}")
    for query, hits in results:
        if as_json:
            typer.echo(to_json({"query": query, "hits": hits}))
            continue
        typer.echo(query)
        for hit in hits:
            text = " ".join((hit.text or "").split())
            typer.echo(f"  {hit.score:8.4f}  {hit.id}  {text[:100]}{'…' if len(text) > 100 else ''}")
