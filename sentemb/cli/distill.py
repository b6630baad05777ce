"""``sentemb distill MODEL``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sentemb.cli.options import Json, Overwrite
from sentemb.cli.output import print_json, refuse_replacing

app = typer.Typer(add_completion=False)


@app.command()
def distill(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="a folder, hub id, or package:NAME/FOLDER")],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder of the model that is made")],
    width: Annotated[int, typer.Option(
        min=0, help="principal components to keep; 0 keeps the vectors as they are")] = 256,
    sif: Annotated[float, typer.Option(
        min=0, help="a of the weight a / (a + p) of a token of share p; 0 gives all tokens equal weights")] = 1e-4,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Make a static model of an encoder: a vector for each token, a text is their mean. Fast, and less able.

    No texts are needed: the encoder reads every token of its vocabulary alone. OUTPUT opens like any model in sentemb,
    and in sentence-transformers and model2vec. To train a smaller transformer instead: sentemb train distilled-4-layer.
    """
    from time import perf_counter

    from sentemb.encoder import Encoder
    from sentemb.encoder.distil import distil
    from sentemb.encoder.layout import read_layout

    refuse_replacing(output, overwrite, "a static model", lambda: read_layout(output).is_static)
    start = perf_counter()
    static = distil(Encoder.load(model), width=width or None, sif=sif or None, progress=False if json else None)
    static.save(output)
    facts = {
        "output": str(output), "tokens": static.vocabulary.size, "width": static.width, "model": static.digest(),
        "seconds": round(perf_counter() - start, 3),
    }
    if json:
        print_json(facts)
        return
    typer.echo(f"{output}: {facts['tokens']:,} tokens × {facts['width']} in {facts['seconds']:.1f} s")
