"""``sentemb convert MODEL``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sentemb.cli.options import Json, Overwrite
from sentemb.cli.output import print_json, refuse_replacing

app = typer.Typer(add_completion=False)


@app.command()
def convert(
    model: Annotated[str, typer.Argument(
        metavar="MODEL", help="a folder with pytorch_model.bin, or a hub id, whose .bin files are then fetched")],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder of the copy with safetensors")],
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit of a hub repository")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Copy a model and write its pickled weights (pytorch_model.bin) as safetensors, which sentemb reads.

    A pickle can run any code when it is read. Here torch's reader for weights alone reads it, which refuses everything
    but tensors, in a process of its own. All tensors are compared; further pickles are left out and named.
    """
    from sentemb.encoder.convert import convert as converted

    refuse_replacing(output, overwrite, "a model",
                     lambda: any((output / name).is_file() for name in ("config.json", "modules.json")))
    done = converted(model, output, revision=revision)
    if json:
        from dataclasses import asdict

        print_json({"output": str(output), **asdict(done)})
        return
    typer.echo(f"{output}: {done.tensors:,} tensors of {', '.join(done.files)} as safetensors, bit for bit; the other "
               "files copied")
    if done.left_out:
        typer.echo(f"left out, because they are pickles that no model needs: {', '.join(done.left_out)}")
