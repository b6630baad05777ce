"""``sentemb report SOURCE…``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sentemb.cli.options import Seed

app = typer.Typer(add_completion=False)


@app.command()
def report(
    sources: Annotated[list[Path], typer.Argument(
        metavar="SOURCE…", help="results file of `sentemb eval`, folder of them (seeds of a recipe), or a run's folder",
    )],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="the HTML file")] = Path("report.html"),
    title: Annotated[str | None, typer.Option(help="title of the page; default what it shows")] = None,
    resamples: Annotated[int, typer.Option(min=100, help="of the paired tests between models")] = 10_000,
    seed: Seed = 0,
) -> None:
    """Scores and training runs as one HTML file that loads nothing from elsewhere.

    Several models stand side by side, and each is tested against the first one. Of a run: losses, dev scores, recipe.
    """
    from sentemb.reporting import report as write

    typer.echo(write(*sources, output=output, title=title, resamples=resamples, seed=seed))
