"""``sentemb quantize MODEL``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sentemb.cli.options import Json, Overwrite, Split, TextColumn
from sentemb.cli.output import print_json, refuse_replacing

if TYPE_CHECKING:
    from sentemb.types import DevScores, Embedder

app = typer.Typer(add_completion=False)


@app.command()
def quantize(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="a folder, hub id, or package:NAME/FOLDER")],
    texts: Annotated[list[str], typer.Option(
        "--texts", help="a file with 100 or more texts like those that will be encoded; repeatable")],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder of the model that is made")],
    text_column: TextColumn = None,
    split: Split = None,
    sts: Annotated[str | None, typer.Option(
        help="score STS before and after: a file of pairs (sentence1, sentence2, score), or STSBenchmark")] = None,
    max_texts: Annotated[int, typer.Option(min=100, help="texts to read at most")] = 10_000,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Make the eight-bit form of a model: faster on CPUs, its vectors a little off, but reproducible.

    Half of the texts prepare the scales, the others measure how far the vectors move. All of it lies in OUTPUT, which
    opens like any model (and, in full precision, in sentence-transformers); sentemb then encodes with it in eight bits.
    """
    from itertools import chain, islice

    from sentemb.data import iter_texts
    from sentemb.encoder import Encoder

    refuse_replacing(output, overwrite, "a model that sentemb quantize made", (output / "int8.json").is_file)
    score = _scorer(sts) if sts is not None else None  # what is missing is told before anything is made
    encoder = Encoder.load(model, device="cpu")
    sample = chain.from_iterable(iter_texts(path, text_column, split=split) for path in texts)
    quantised = encoder.quantised(list(islice(sample, max_texts)))
    assert quantised.eight_bits is not None
    facts = quantised.eight_bits.facts
    if score is not None:
        facts["score"] = {"before": score(encoder).value, "after": score(quantised).value}
    quantised.save(output)
    if json:
        print_json({"output": str(output), **facts})
        return
    typer.echo(
        f"{output}: in eight bits; cosine to float32 on {facts['held_out_texts']} other texts: "
        f"{facts['mean_cosine']:.5f} on average, {facts['least_cosine']:.5f} at least"
    )
    if sts is not None:
        typer.echo(f"Spearman on {sts}: {facts['score']['before']:.2f} before, {facts['score']['after']:.2f} after")


def _scorer(sts: str) -> Callable[[Embedder], DevScores]:
    from sentemb.evaluate import Sts, dev_score

    return dev_score([Sts(path=sts) if Path(sts).suffix else Sts(sets=(sts,), protocol="mteb", split="dev")])
