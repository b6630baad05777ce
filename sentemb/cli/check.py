"""``sentemb check RECIPE``."""

from __future__ import annotations

import typer

from sentemb.cli.options import RecipeName, Set

app = typer.Typer(add_completion=False)


@app.command()
def check(recipe: RecipeName, set_: Set = None) -> None:
    """Every fault of a recipe at once: names, values, needs, data, checkpoints, dev sets. No model is loaded."""
    from sentemb.recipe.check import check as look
    from sentemb.recipe.recipe import Recipe

    report = look(Recipe.load(recipe, set_ or ()))
    for line in report.verified:
        typer.echo(f"ok    {line}")
    for line in report.unverified:
        typer.echo(f"open  {line}")
    typer.echo(f"train it: sentemb train {recipe}{''.join(f' --set {value}' for value in set_ or ())}")
