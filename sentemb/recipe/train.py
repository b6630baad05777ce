"""``train(recipe)``: build it and run it in its folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from sentemb.data.data_source import DataSource, InMemory, TableData
from sentemb.distributed import broadcast_object, join, leave
from sentemb.errors import RecipeError
from sentemb.recipe.build import build
from sentemb.recipe.recipe import Recipe
from sentemb.training.callbacks import Callback
from sentemb.training.device import check_installed
from sentemb.training.plan import TrainResult
from sentemb.training.run import run


def train(
    recipe: str | Path | Recipe, *, data: object = None, output: str | Path | None = None, resume: bool = False,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Train a recipe.

    Args:
        recipe: a ``Recipe``, a file, or the name of a recipe that comes with sentemb.
        data: train on these in place of the recipe's: rows that are dicts, tuples or texts, a pandas or polars data
            frame, a ``datasets.Dataset`` (see ``InMemory``), a path, or a ``DataSource``.
        output: run folder; default ``runs/NAME``. The model comes to lie in its ``model``.
        resume: continue the run in ``output`` where there is one.
        callbacks: called after steps, evaluations and checkpoints, and at the end.

    Raises:
        SentembError: one of its kinds, with one message a user can act on.
    """
    if not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe)
    if data is not None:
        recipe = recipe.replace(data=_source(data, recipe.data))
    check_installed(recipe.train)
    run_dir = Path(output) if output is not None else Path("runs") / recipe.name
    has_joined = join(recipe.train.device_timeout_s)
    try:
        # the first device looks before it writes there itself; a run that failed before it saved anything is no run
        has_run = any((run_dir / "checkpoints").glob("step-*")) or (run_dir / "model").exists()
        if broadcast_object(has_run) and not resume:
            raise RecipeError(
                f"{run_dir} already holds a run; continue it with --resume, or choose another folder with --output"
            )
        return run(build(recipe, run_dir, callbacks=callbacks), resume=resume)
    finally:
        if has_joined:
            leave()


def _source(data: object, before: DataSource) -> DataSource:
    """``data`` with the limits, column names and prefixes of the source that it replaces."""
    if isinstance(data, DataSource):
        return data
    if isinstance(data, (str, Path)):
        if isinstance(before, TableData):
            return dataclasses.replace(before, path=str(data))
        return TableData(path=str(data), columns=before.columns, max_tokens=before.max_tokens, prefixes=before.prefixes)
    return InMemory(
        data=data, columns=before.columns, max_rows=before.max_rows, max_tokens=before.max_tokens,
        prefixes=before.prefixes, skip_faulty=before.skip_faulty,
    )
