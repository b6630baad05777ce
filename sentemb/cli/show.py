"""``sentemb show NAME``."""

from __future__ import annotations

from typing import Annotated

import typer

from sentemb.cli.options import Set
from sentemb.cli.output import print_json

app = typer.Typer(add_completion=False)


@app.command()
def show(
    name: Annotated[
        str | None,
        typer.Argument(help="a recipe's file or name; a part: info_nce, terms/info_nce, package.module:Class"),
    ] = None,
    set_: Set = None,
    toml: Annotated[bool, typer.Option("--toml", help="print the resolved recipe as TOML")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="print the JSON schema of recipes, for editors")] = False,
) -> None:
    """A part or a recipe: formula, settings, source, deviations, and file:line of the code."""
    from sentemb.errors import RecipeError

    if schema:
        from sentemb.recipe.catalogue import recipe_schema

        print_json(recipe_schema(), indent=2)
        return
    if name is None:
        raise RecipeError("name a recipe or a part (sentemb list), or give --schema")
    from pathlib import Path

    from sentemb.recipe.catalogue import find_parts, part_lines, recipe_lines
    from sentemb.recipe.load import shipped_recipes
    from sentemb.recipe.recipe import Recipe

    is_recipe = Path(name).is_file() or name in shipped_recipes() or name.endswith(".toml")
    matches = [] if is_recipe or set_ or toml else find_parts(name)
    if len(matches) > 1:
        choices = ", ".join(f"{room}/{name}" for room, _ in matches)
        raise RecipeError(f'"{name}" is the name of several parts: {choices}')
    if matches:
        lines = part_lines(*matches[0])
    else:
        recipe = Recipe.load(name, set_ or ())
        lines = iter([recipe.to_toml().rstrip("\n")]) if toml else recipe_lines(recipe)
    for line in lines:
        typer.echo(line)
