"""``sentemb list``."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


class Kind(str, Enum):  # noqa: UP042 - typer reads it
    """What can be listed."""

    methods = "methods"
    terms = "terms"
    edits = "edits"
    views = "views"
    companions = "companions"
    heads = "heads"
    poolings = "poolings"
    data = "data"
    recipes = "recipes"


@app.command("list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="what to list")] = Kind.recipes,
    json: Annotated[bool, typer.Option("--json", help="print as JSON")] = False,
) -> None:
    """What there is: recipes (the default), the methods they implement, and the parts of every room."""
    from sentemb.recipe.catalogue import catalogue

    entries = catalogue(kind.value)
    if json:
        from json import dumps

        typer.echo(dumps(entries, indent=2, ensure_ascii=False))
        return
    width = max((len(name) for name in entries), default=0)
    for name, line in entries.items():
        typer.echo(f"{name:<{width}}  {line}")
