"""``sentemb search INDEX [QUERY…]``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sentemb.cli.options import Json, settings_of
from sentemb.cli.output import print_json

if TYPE_CHECKING:
    from sentemb.search import Hit, SearchIndex
    from sentemb.search.query.expansion import Feedback

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
    cover: Annotated[str | None, typer.Option(metavar="FIELD", help="examples for a prompt: the nearest of every value "
                                              "of FIELD, e.g. label, before a second of any")] = None,
    within: Annotated[float | None, typer.Option(
        help="all results at least this similar (index of distances: at most this far), instead of -k")] = None,
    more_like: Annotated[list[str] | None, typer.Option(
        metavar="ID", help="documents like the one with this id; repeatable")] = None,
    like: Annotated[list[str] | None, typer.Option(
        metavar="TEXT", help="documents like all texts so given; repeatable")] = None,
    unlike: Annotated[list[str] | None, typer.Option(
        metavar="TEXT", help="with --like: and unlike all texts so given; repeatable")] = None,
    expand: Annotated[str | None, typer.Option(metavar="prf:N,T", help="widen queries by their N first results: their "
                                               "mean, and with words T words of theirs")] = None,
    rerank: Annotated[str | None, typer.Option(metavar="MODEL", help="cross-encoder that orders the best 5·k")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="where the model of the index is now")] = None,
    precision: Annotated[str | None, typer.Option(help="number format of encoding; default the index's")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=(
        "effort=N (nprobe or efSearch), mapped=true (vectors stay on disk), verify=false (no checksums)"))] = None,
    template: Annotated[str | None, typer.Option(metavar="TEXT", help="print each result so, the best one last, e.g. "
                                                 "'{text} -> {label}'; also {id}, {score}, metadata")] = None,
    json: Json = False,
) -> None:
    """Find documents by meaning, by words, or by both."""
    from sentemb.errors import SearchError
    from sentemb.search import SearchIndex
    from sentemb.search.query.best import RERANKED
    from sentemb.search.query.expansion import Feedback

    settings = settings_of(set_ or (), {"effort": int, "mapped": bool, "verify": bool})
    effort = settings.pop("effort", None)
    _check_together(
        ways={"QUERY": bool(queries or file), "--more-like": bool(more_like), "--like": bool(like)},
        kinds={"--words": words, "--hybrid": hybrid, "--diverse": diverse is not None, "--within": within is not None,
               "--cover": cover is not None},
        further={"--set effort": effort is not None, "--rerank": rerank is not None, "--expand": expand is not None},
        is_unlike=bool(unlike),
    )
    feedback = None if expand is None else Feedback.of(expand)
    if template is not None and json:
        raise SearchError("--template and --json are two forms of output; take one")
    texts = _texts(queries or [], file)
    opened = SearchIndex.open(index, encoder=model, precision=precision, **settings)
    show = partial(_show, opened, where, json, template)
    if more_like:
        show(zip(more_like, opened.similar_to(more_like, k, where=where), strict=True))
        return
    if like:
        title = " ∩ ".join(like) + "".join(f" \\ {text}" for text in unlike or ())
        show([(title, opened.combined(like, unlike or None, k, where=where))])
        return
    find = _way_of_search(opened, where, feedback, words=words, hybrid=hybrid, cover=cover, within=within,
                          diverse=diverse, effort=effort)
    score = None
    if rerank:
        from sentemb.encoder.pretrained import load_cross_encoder

        score = load_cross_encoder(rerank)

    def answer(texts: list[str]) -> Iterable[tuple[str, list[Hit]]]:
        lists = find(texts, k if score is None else RERANKED * k)
        if score is not None:
            lists = [opened.rerank(text, hits, score, k) for text, hits in zip(texts, lists, strict=True)]
        return zip(texts, lists, strict=True)

    if texts:
        show(answer(texts))
        return
    answer(["warm up"])  # the model is loaded before the first question, not after it
    for line in _questions():
        show(answer([line]))


def _way_of_search(
    index: SearchIndex, where: str | None, feedback: Feedback | None, *, words: bool, hybrid: bool, cover: str | None,
    within: float | None, diverse: float | None, effort: int | None,
) -> Callable[[list[str], int], list[list[Hit]]]:
    """What finds the hits of each text, so many of them."""
    if words:
        return partial(index.by_words, where=where, expand=feedback)
    if hybrid:
        return partial(index.hybrid, where=where, expand=feedback)
    if cover is not None:
        return partial(index.demonstrations, cover=cover, where=where)
    if within is not None:
        return lambda texts, _: index.within(texts, within, where=where)
    if diverse is not None:
        return partial(index.diverse, weight=diverse, where=where)
    return lambda texts, k: index.search(texts, k, where=where, effort=effort, expand=feedback)


def _questions() -> Iterator[str]:
    """Lines of the input up to an empty one."""
    while True:
        if sys.stdin.isatty():
            typer.echo("query (empty: the end)> ", nl=False, err=True)
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield line


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
    if chosen and chosen[0] not in ("--words", "--hybrid") and "--expand" in extra:
        raise SearchError(f"--expand does not go with {chosen[0]}; it is for plain search, --words and --hybrid")


def filled(template: str, hit: Hit) -> str:
    """The template with ``{id}``, ``{score}``, ``{text}`` and ``{FIELD}`` of the metadata filled in.

    Raises: SearchError: the document has no such field; names it.
    """
    import re

    from sentemb.errors import SearchError, did_you_mean

    values = {**hit.metadata, "id": hit.id, "score": f"{hit.score:.4f}", "text": hit.text or ""}

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            close = did_you_mean(match[1], values)
            raise SearchError(f'--template: document {hit.id!r} has no field "{match[1]}"{close}')
        return str(values[match[1]])

    return re.sub(r"\{(\w+)\}", value, template)


def _show(
    index: SearchIndex, where: str | None, as_json: bool, template: str | None,
    results: Iterable[tuple[str, list[Hit]]],
) -> None:
    """Print results; where a filter left none because no document can satisfy it, say why instead."""
    from sentemb.errors import SearchError
    from sentemb.search.query.explanation import why_nothing

    results = list(results)
    is_empty = len(index) and not any(hits for _, hits in results)
    if is_empty and (reason := why_nothing(index.generation, where)):
        raise SearchError(f"filter {where!r}: {reason}")
    for query, hits in results:
        if as_json:
            print_json({"query": query, "hits": hits})
            continue
        if template is not None:  # what a prompt says last is remembered best, so the nearest comes last
            for hit in reversed(hits):
                typer.echo(filled(template, hit))
            continue
        typer.echo(query)
        for hit in hits:
            text = " ".join((hit.text or "").split())
            typer.echo(f"  {hit.score:8.4f}  {hit.id}  {text[:100]}{'…' if len(text) > 100 else ''}")
