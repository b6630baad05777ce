"""``sentemb train RECIPE``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sentemb.cli.options import Json, RecipeName, Resume, Set
from sentemb.cli.output import print_json

app = typer.Typer(add_completion=False)


@app.command()
def train(
    recipe: RecipeName,
    set_: Set = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="run folder; default runs/NAME")] = None,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Train an encoder with a recipe; the model comes to lie in OUTPUT/model.

    Interrupting (Ctrl-C, SIGTERM) saves a checkpoint; the same command with --resume continues.
    """
    from sentemb.recipe.recipe import Recipe
    from sentemb.recipe.train import train as run

    result = run(Recipe.load(recipe, set_ or ()), output=output, resume=resume)
    if os.environ.get("RANK", "0") != "0":  # torchrun's other processes
        return
    if json:
        fields = ("steps", "seconds", "examples_per_second", "best_score", "best_step", "skipped_steps")
        print_json({"model": str(result.model_dir), **{name: getattr(result, name) for name in fields}})
        return
    best = "" if result.best_score is None else f"; best dev {result.best_score:.2f} at step {result.best_step}"
    typer.echo(
        f"{result.steps} steps in {result.seconds:.0f} s ({result.examples_per_second:.1f} examples/s){best}\n"
        f"model    {result.model_dir}\nmetrics  {result.run_dir / 'metrics.jsonl'}, {result.run_dir / 'loss.svg'}\n"
        f"next     sentemb eval {result.model_dir}"
    )
