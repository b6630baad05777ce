"""``sentemb export MODEL``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sentemb.cli.options import Json, Overwrite
from sentemb.cli.output import print_json, refuse_replacing

app = typer.Typer(add_completion=False)


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="a folder, hub id, or package:NAME/FOLDER")],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder of the graph that is made")],
    to: Annotated[Literal["onnx", "openvino"], typer.Option(help="form of the graph: onnx or openvino")] = "onnx",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write a model as one graph, token ids to final vectors, for ONNX Runtime or OpenVINO.

    Pooling, heads and unit length are inside. The graph's vectors are compared with the model's before OUTPUT appears.
    Beside it lie a tokenizer.json that cuts and pads, and a README.md with the code that runs it. sentemb eval scores
    OUTPUT like any model.
    """
    from sentemb.encoder.export import export as exported
    from sentemb.encoder.exported import FACTS, GRAPHS

    refuse_replacing(output, overwrite, "what sentemb export wrote", lambda: (output / FACTS).is_file())
    facts = exported(model, output, to=to)
    if json:
        from dataclasses import asdict

        print_json({"output": str(output), **asdict(facts)})
        return
    typer.echo(
        f"{output / GRAPHS[facts.format]}: {facts.width} numbers a text of up to {facts.max_tokens:,} tokens; at most "
        f"{facts.largest_difference:.1e} from the model's vectors on {facts.compared_texts} texts, cosine "
        f"{facts.least_cosine:.7f} at least"
    )
