"""``sentemb list KIND``."""

from __future__ import annotations

from typing import Annotated

import typer

from sentemb.cli.options import Json
from sentemb.cli.output import print_json

app = typer.Typer(add_completion=False)


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Argument(help="recipes, or a kind of part")] = None,
    json: Json = False,
) -> None:
    """What there is to choose from: recipes, and the parts of every kind; without KIND, the kinds."""
    from sentemb.recipe.catalogue import KINDS, catalogue

    entries = KINDS if kind is None else catalogue(kind)
    if json:
        print_json(entries, indent=2)
        return
    width = max((len(name) for name in entries), default=0)
    for name, line in entries.items():
        typer.echo(f"{name:<{width}}  {line}")
