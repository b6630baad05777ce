"""``sentemb mine DATA -o OUT``."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from sentemb.cli.options import DEFAULT_MODEL, Json, Model, Precision, Resume, Seed, Split, key_values, part_of
from sentemb.cli.output import print_json
from sentemb.stopping import NOT_BEGUN, stoppable

if TYPE_CHECKING:
    from sentemb.mining.expansion import FoundByExpansion
    from sentemb.mining.run import MiningResult
    from sentemb.mining.texts import MiningColumns

app = typer.Typer(add_completion=False)


@app.command()
@stoppable(NOT_BEGUN)
def mine(
    data: Annotated[str, typer.Argument(metavar="DATA", help="file, folder or hub id of pairs, or of texts alone")],
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write: .jsonl")],
    model: Model = DEFAULT_MODEL,
    negatives: Annotated[int, typer.Option("--negatives", "-n", help="negatives for each anchor")] = 5,
    corpus: Annotated[str | None, typer.Option(help="file with further texts that may become negatives")] = None,
    column: Annotated[list[str] | None, typer.Option(
        metavar="ROLE=NAME", help="column of anchor, positive, corpus, anchor_id, positive_id or corpus_id")] = None,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="DATA are texts alone, each its own positive")]
    = False,
    source: Annotated[list[str] | None, typer.Option(
        metavar="NAME:KEY=VALUE,…", help="where candidates come from, e.g. shared_words:share=0.5; repeatable")] = None,
    rule: Annotated[list[str] | None, typer.Option(
        metavar="NAME:KEY=VALUE,…", help="which are refused, e.g. relative_margin:fraction=0.1; repeatable")] = None,
    sampling: Annotated[str, typer.Option(help="of the candidates that pass, take the top ones or random ones")]
    = "top",
    judge: Annotated[bool, typer.Option("--judge", help="also say how hard, safe and near in words the negatives are")]
    = False,
    found_by_expansion: Annotated[str | None, typer.Option(
        "--found-by-expansion", metavar="KEY=VALUE,…", help="keep only pairs whose positive is among the k first "
        "results only where first results widen the anchor, e.g. k=10,documents=5")] = None,
    split: Split = None,
    precision: Precision = "auto",
    seed: Seed = 42,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Find hard negatives for training data, and report how hard and how safe they are.

    Candidates are the corpus texts nearest to the anchor unless --source says otherwise; sentemb list mining_sources
    and sentemb list mining_rules name all. An anchor with fewer than -n negatives is left out. Unfinished work lies in
    OUTPUT.parts, from which --resume goes on.
    """
    from sentemb.encoder import Encoder
    from sentemb.mining.run import mine as mine_texts
    from sentemb.mining.sources import Nearest

    sources = [part_of("mining_sources", text) for text in source or ()] or [Nearest()]
    rules = [part_of("mining_rules", text) for text in rule or ()]
    pairs = None if found_by_expansion is None else _found_by_expansion(found_by_expansion)
    columns = _columns(data, column or [], unlabelled)
    encoder = Encoder.load(model, precision=precision)
    with stoppable("the same command with --resume goes on from the last block"):
        result = mine_texts(
            data, encoder=encoder, output=output, corpus=corpus or (), columns=columns, split=split,
            negatives=negatives, sources=sources, rules=rules, sampling=cast(Any, sampling), seed=seed, resume=resume,
            judge=judge, found_by_expansion=pairs,
        )
    with stoppable(f"{output} is complete"):
        _show(result, output, json)


def _columns(data: str, given: list[str], unlabelled: bool) -> MiningColumns:
    """Columns as ``ROLE=NAME``; unlabelled texts of a .txt file are in the column ``text``."""
    from sentemb.errors import DataError, did_you_mean
    from sentemb.mining.texts import MiningColumns

    names: dict[str, Any] = dict(entry.partition("=")[::2] for entry in given)
    roles = [field.name for field in fields(MiningColumns)]
    for role, name in names.items():
        if role not in roles or not name:
            raise DataError(f"--column {role}={name}: write ROLE=NAME{did_you_mean(role, roles)}")
    if unlabelled:
        names["positive"] = None
        if data.removesuffix(".gz").removesuffix(".zst").endswith(".txt"):
            names.setdefault("anchor", "text")
    return MiningColumns(**names)


def _found_by_expansion(text: str) -> FoundByExpansion:
    from sentemb.errors import PartError
    from sentemb.mining.expansion import FoundByExpansion

    try:
        return FoundByExpansion(**key_values(text.split(",")))
    except PartError as error:
        raise PartError("", [("", line) for line in error.located("--found-by-expansion: ")]) from None


def _show(result: MiningResult, output: Path, as_json: bool) -> None:
    report, judged, expansion = result.report, result.judgement, result.expansion
    if as_json:
        print_json({"output": str(output), **asdict(report), **result.further()})
        return
    if expansion is not None:
        typer.echo(f"{expansion.kept:,} of {expansion.pairs:,} pairs are found by expansion alone ({expansion.found:,} "
                   f"without it, {expansion.found_expanded:,} with it)")
    typer.echo(f"{output}: {report.mined:,} of {report.anchors:,} anchors with {report.negatives} negatives each")
    typer.echo(f"  mean cosine to the anchor: positives {report.positive_similarity:.4f}, negatives "
               f"{report.negative_similarity:.4f}, each anchor's hardest negative {report.hardest_similarity:.4f}")
    typer.echo(f"  as near as the positive, so perhaps positives themselves: {report.false_negatives:.2%} of the "
               f"negatives; refused by the rules: {report.refused:.2%} of the candidates")
    if judged is not None:
        typer.echo(f"  hardness {judged.hardness:.3f}, safety {judged.safety:.3f}, words of their own "
                   f"{judged.lexical:.3f}")
