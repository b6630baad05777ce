"""``train(recipe)``: validate, prepare the run folder, build, run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sentemb.distributed import broadcast_object, join, leave
from sentemb.errors import RecipeError
from sentemb.recipe.build import build
from sentemb.recipe.recipe import Recipe, load_recipe
from sentemb.training.plan import TrainResult
from sentemb.training.run import run


def train(
    recipe: str | Path | Recipe,
    *,
    overrides: Sequence[str] = (),
    output: str | Path | None = None,
    resume: bool = False,
) -> TrainResult:
    """Train a recipe.

    Args:
        recipe: a file, a shipped recipe's name, or a loaded recipe.
        overrides: ``key.path=value`` each.
        output: run folder; default ``runs/NAME``. The model comes to lie in its ``model``.
        resume: continue the run in ``output`` where there is one.

    Raises:
        SentembError: one of its kinds, with one message a user can act on.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, overrides)
    elif overrides:
        raise RecipeError("overrides go with a recipe's file or name; this one is loaded already")
    run_dir = Path(output) if output is not None else Path("runs") / recipe.name
    has_joined = join(recipe.train.device_timeout_s)
    try:
        return _train(recipe, run_dir, resume=resume)
    finally:
        if has_joined:
            leave()


def _train(recipe: Recipe, run_dir: Path, *, resume: bool) -> TrainResult:
    # the first device looks before it writes there itself; a run that failed before it saved anything is no run
    has_run = any((run_dir / "checkpoints").glob("step-*")) or (run_dir / "model").exists()
    if broadcast_object(has_run) and not resume:
        raise RecipeError(
            f"{run_dir} already holds a run; continue it with --resume, or choose another folder with --output"
        )
    return run(build(recipe, run_dir, files={"recipe.toml": to_toml(recipe)}), resume=resume)


def to_toml(recipe: Recipe) -> str:
    """The resolved recipe as TOML: trains the same without the recipe it extended and without ``--set``."""
    import tomli_w

    return f"# resolved from {recipe.path}; hash {recipe.hash}\n{tomli_w.dumps(dict(recipe.tree))}"
