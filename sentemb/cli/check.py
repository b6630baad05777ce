"""``sentemb check RECIPE``."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

app = typer.Typer(add_completion=False)


@app.command()
def check(
    recipe: Annotated[str, typer.Argument(help="a recipe file or a shipped recipe's name")],
    set_: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads it
        typer.Option("--set", metavar="KEY=VALUE", help="override a value; repeatable"),
    ] = None,
) -> None:
    """Every fault of a recipe at once: names, values, needs, data, checkpoint, dev set. No model is loaded."""
    from sentemb.recipe import check as run

    report = run(recipe, set_ or ())
    for line in report.verified:
        typer.echo(f"ok    {line}")
    for line in report.unverified:
        typer.echo(f"open  {line}")
    typer.echo(f"train it: sentemb train {recipe}{''.join(f' --set {value}' for value in set_ or ())}")
