"""``sentemb show RECIPE``."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

app = typer.Typer(add_completion=False)


@app.command()
def show(
    recipe: Annotated[str, typer.Argument(help="a recipe file or a shipped recipe's name")],
    set_: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads it
        typer.Option("--set", metavar="KEY=VALUE", help="override a value; repeatable"),
    ] = None,
    toml: Annotated[bool, typer.Option("--toml", help="print the resolved recipe as TOML")] = False,
) -> None:
    """A recipe resolved: every part with formula, parameters, source, deviations and file:line."""
    from sentemb.recipe import load_recipe
    from sentemb.recipe.show import as_lines

    loaded = load_recipe(recipe, set_ or ())
    if toml:
        from sentemb.recipe.run import to_toml

        typer.echo(to_toml(loaded), nl=False)
        return
    for line in as_lines(loaded):
        typer.echo(line)
