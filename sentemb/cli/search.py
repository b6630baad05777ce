"""``sentemb search INDEX [QUERY…]``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from sentemb.search import Hit, SearchIndex

app = typer.Typer(add_completion=False)


@app.command()
def search(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="folder of the index")],
    queries: Annotated[
        Optional[list[str]], typer.Argument(metavar="QUERY…", help="texts; none: ask one after the other")  # noqa: UP045
    ] = None,
    k: Annotated[int, typer.Option("-k", help="results a query")] = 10,
    where: Annotated[Optional[str], typer.Option(help='filter, e.g. year >= 2020 and lang in ("en", "de")')] = None,  # noqa: UP045
    file: Annotated[Optional[str], typer.Option(help="file with queries, one a row")] = None,  # noqa: UP045
    hybrid: Annotated[bool, typer.Option("--hybrid", help="fuse with BM25 by reciprocal ranks")] = False,
    mmr: Annotated[Optional[float], typer.Option(help="diverse results: weight of relevance, 0 to 1")] = None,  # noqa: UP045
    within: Annotated[Optional[float], typer.Option(  # noqa: UP045
        help="everything at least this similar (l2: at most this far), instead of k")] = None,
    more_like: Annotated[Optional[list[str]], typer.Option(help="documents like the one with this id; repeat")] = None,  # noqa: UP045
    like: Annotated[Optional[list[str]], typer.Option(help="set query: like all of these; repeat")] = None,  # noqa: UP045
    unlike: Annotated[Optional[list[str]], typer.Option(help="set query: and unlike these; repeat")] = None,  # noqa: UP045
    rerank: Annotated[Optional[str], typer.Option(help="cross-encoder that orders the best 5·k")] = None,  # noqa: UP045
    effort: Annotated[Optional[int], typer.Option(help="nprobe or efSearch; default as tuned")] = None,  # noqa: UP045
    model: Annotated[Optional[str], typer.Option("--model", "-m", help="where the index's model lies now")] = None,  # noqa: UP045
    mapped: Annotated[bool, typer.Option("--mapped", help="map vectors instead of loading them")] = False,
    device: Annotated[str, typer.Option(help="cpu, or cuda: exact kinds only")] = "cpu",
    trust: Annotated[bool, typer.Option("--trust", help="skip checksums, which take time on large indexes")] = False,
    json: Annotated[bool, typer.Option("--json", help="a line of JSON a query")] = False,
) -> None:
    """Find documents by meaning.

    Questions are QUERY… or --file, --more-like, or --like; --unlike goes with --like. --hybrid, --mmr, --within (one of
    them), --effort (with none of them) and --rerank are for queries.
    """
    from sentemb.search import SearchIndex

    _check_together(
        ways={"QUERY": queries or file, "--more-like": more_like, "--like": like},
        kinds={"--hybrid": hybrid, "--mmr": mmr is not None, "--within": within is not None},
        plain={"--effort": effort is not None}, queried={"--rerank": rerank}, unlike=unlike,
    )
    opened = SearchIndex.open(index, encoder=model, mapped=mapped, device=device, verify=not trust)
    asked = Request(opened, k, where, hybrid, mmr, within, rerank, effort)
    if more_like:
        asked.show(zip(more_like, opened.similar_to(more_like, k, where=where), strict=True), json)
    elif like:
        hits = opened.combined(like, unlike or None, k, where=where)
        title = " ∩ ".join(like) + "".join(f" \\ {text}" for text in unlike or ())
        asked.show([(title, hits)], json)
    elif queries or file:
        texts = list(queries or ())
        if file:
            from sentemb.data import iter_texts

            texts += iter_texts(file)
        asked.show(zip(texts, asked.answer(texts), strict=True), json)
    else:
        _interact(asked, json)


def _check_together(
    *, ways: Mapping[str, Any], kinds: Mapping[str, Any], plain: Mapping[str, Any], queried: Mapping[str, Any],
    unlike: list[str] | None,
) -> None:
    """Refuse options of which one would be ignored.

    Args:
        ways: to ask, of which there is one; none is interactive.
        kinds: of search for queries, of which there is at most one.
        plain: options of the search that is none of them.
        queried: further options that need queries.
    """
    from sentemb.errors import SearchError

    asked, chosen = ([name for name, value in some.items() if value] for some in (ways, kinds))
    if len(asked) > 1:
        raise SearchError(f"{' and '.join(asked)} are different questions; ask one of them")
    if unlike and asked != ["--like"]:
        raise SearchError("--unlike says what results of --like should not be like; give --like as well")
    if len(chosen) > 1:
        raise SearchError(f"{' and '.join(chosen)} do not go together; take one of {', '.join(kinds)}")
    extra = [*chosen, *(name for name, value in {**plain, **queried}.items() if value)]
    if extra and asked and asked != ["QUERY"]:
        raise SearchError(f"{extra[0]} is for queries; it does not go with {asked[0]}")
    for name, value in plain.items():
        if value and chosen:
            raise SearchError(f"{name} does not go with {chosen[0]}, which looks as hard as the index was tuned to")


class Request:
    """How to answer queries."""

    def __init__(
        self, index: SearchIndex, k: int, where: str | None, hybrid: bool, mmr: float | None, within: float | None,
        rerank: str | None, effort: int | None,
    ) -> None:
        self.index, self.k, self.where = index, k, where
        self.hybrid, self.mmr, self.within, self.effort = hybrid, mmr, within, effort
        self._score = _cross_encoder(rerank) if rerank else None

    def answer(self, texts: list[str]) -> list[list[Hit]]:
        """Hits of every query."""
        count = self.k * 5 if self._score is not None else self.k
        found = self._find(texts, count)
        if self._score is None:
            return found
        return [self.index.rerank(text, hits, self._score, self.k) for text, hits in zip(texts, found, strict=True)]

    def show(self, results: Iterable[tuple[str, list[Hit]]], as_json: bool) -> None:
        """Print results; where a filter left none because of a field that does not exist, say so instead."""
        from sentemb.errors import SearchError

        found = list(results)
        if self.where is not None and len(self.index) and not any(hits for _, hits in found):
            told = self.index.absent_fields(self.where)
            if told is not None:
                raise SearchError(f"filter {self.where!r}: {told}")
        _print(found, as_json)

    def _find(self, texts: list[str], count: int) -> list[list[Hit]]:
        if self.hybrid:
            return self.index.hybrid(texts, count, where=self.where)
        if self.within is not None:
            return self.index.within(texts, self.within, where=self.where)
        if self.mmr is not None:
            return self.index.diverse(texts, count, weight=self.mmr, where=self.where)
        return self.index.search(texts, count, where=self.where, effort=self.effort)


def _interact(asked: Request, as_json: bool) -> None:
    asked.answer(["warm up"])  # the model is loaded before the first question, not after it
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        typer.echo(f"{len(asked.index):,} documents; an empty line ends", err=True)
    while True:
        if is_terminal:
            typer.echo("query> ", nl=False, err=True)
        line = sys.stdin.readline().strip()
        if not line:
            return
        asked.show([(line, asked.answer([line])[0])], as_json)


def _print(results: Iterable[tuple[str, list[Hit]]], as_json: bool) -> None:
    from json import dumps

    for query, hits in results:
        if as_json:
            rows = [{"id": h.id, "score": h.score, "text": h.text, "metadata": h.metadata} for h in hits]
            typer.echo(dumps({"query": query, "hits": rows}, ensure_ascii=False))
            continue
        typer.echo(query)
        for hit in hits:
            text = " ".join((hit.text or "").split())
            typer.echo(f"  {hit.score:8.4f}  {hit.id}  {text[:100]}{'…' if len(text) > 100 else ''}")


def _cross_encoder(name: str) -> Any:
    """``predict`` of a sentence-transformers cross-encoder."""
    from sentemb.encoder.crossencoder import load_cross_encoder

    return load_cross_encoder(name)
