"""``sentemb push MODEL REPOSITORY``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def push(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="folder of a saved model, e.g. runs/mine/model")],
    repository: Annotated[str | None, typer.Argument(
        metavar="[REPOSITORY]", help="hub id, e.g. me/my-model; none: only the card is written")] = None,
    results: Annotated[list[Path] | None, typer.Option(
        "--results", metavar="FILE", help="scores of sentemb eval for the card; repeatable")] = None,
    licence: Annotated[str | None, typer.Option("--license", help="e.g. apache-2.0")] = None,
    language: Annotated[list[str] | None, typer.Option(help="e.g. en; repeatable")] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="hub id of training data; repeatable")] = None,
    private: Annotated[bool, typer.Option("--private", help="only you can see the repository")] = False,
    branch: Annotated[str | None, typer.Option(help="branch of the repository; default its main one")] = None,
) -> None:
    """Write the model card (README.md: use, recipe, data, scores, sources) and send the model to the Hugging Face hub.

    The token is that of `hf auth login`, or of the variable HF_TOKEN.
    """
    from sentemb.recipe.card import push, write_card

    facts = {name: value for name, value in
             {"license": licence, "language": language, "datasets": dataset}.items() if value}  # fmt: skip
    if repository is None:
        write_card(model, results=results or (), facts=facts)
        typer.echo(f"{model / 'README.md'}")
        return
    typer.echo(push(model, repository, results=results or (), facts=facts, is_private=private, branch=branch))
