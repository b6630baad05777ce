"""``check``: what can go wrong with a recipe, found before any model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sentemb.errors import DataError, EvaluationError, ModelError, RecipeError
from sentemb.recipe.recipe import Recipe, load_recipe

ROWS_LOOKED_AT = 1000


@dataclass(frozen=True)
class Report:
    """A checked recipe: what was verified, and what could not be."""

    recipe: Recipe
    verified: tuple[str, ...]
    unverified: tuple[str, ...]


def check(recipe: str | Path, overrides: Sequence[str] = ()) -> Report:
    """Validate a recipe, its data's first rows, its checkpoint's files and its dev set; nothing is loaded.

    Raises:
        RecipeError: every fault found, in one message.
    """
    loaded = load_recipe(recipe, overrides)
    verified = [f"{len(loaded.parts)} parts: names, values and needs"]
    unverified: list[str] = []
    faults: list[str] = []
    for look in (_look_at_precision, _look_at_encoder, _look_at_data, _look_at_dev, _look_at_memory):
        try:
            look(loaded, verified, unverified)
        except (ModelError, DataError, EvaluationError, RecipeError) as error:
            faults.extend(getattr(error, "faults", None) or [f"{loaded.path}: {error}"])
    if faults:
        raise RecipeError(list(dict.fromkeys(faults)))
    return Report(loaded, tuple(verified), tuple(unverified))


def _look_at_precision(recipe: Recipe, verified: list[str], unverified: list[str]) -> None:
    from sentemb.training.device import resolve_precision

    resolve_precision(recipe.train.precision)


def _look_at_encoder(recipe: Recipe, verified: list[str], unverified: list[str]) -> None:
    from sentemb.encoder.source import PACKAGE, locate

    source = recipe.encoder.backbone
    is_local = source.startswith((PACKAGE, ".", "/", "~")) or Path(source).exists()
    if not is_local and source.count("/") <= 1:
        unverified.append(f"encoder.backbone: {source} would come from the hub; it is looked at when training starts")
        return
    folder = locate(source)
    weights = list(folder.rglob("*.safetensors"))
    if not weights:
        raise ModelError(f"encoder.backbone = {source}: no .safetensors file there; pickled weights are not opened")
    verified.append(f"checkpoint {folder} ({sum(file.stat().st_size for file in weights) / 2**20:.0f} MiB)")


def _look_at_data(recipe: Recipe, verified: list[str], unverified: list[str]) -> None:
    data = recipe.data.make()
    path = str(data.path)
    if path == "-":
        unverified.append("data.path: standard input is read when training starts")
        return
    if not Path(path).exists():
        if path.count("/") == 1 and "." not in path.rsplit("/", 1)[-1]:
            unverified.append(f"data.path: {path} would come from the hub; it is looked at when training starts")
            return
        raise DataError(f"data.path = {path}: no such file; give yours with --set data.path=FILE")
    table = replace(data, max_rows=min(data.max_rows or ROWS_LOOKED_AT, ROWS_LOOKED_AT)).load()
    faults = _missing_columns(recipe, table)
    if faults:
        raise RecipeError(faults)
    verified.append(f"data {path}: the first {len(table)} rows, columns {', '.join(table.columns)}")


def _missing_columns(recipe: Recipe, table: Any) -> list[str]:
    have = set(table.columns)
    faults = [
        f'{recipe.path}: views ({recipe.maker.use}) needs the column "{column}"; {recipe.data.params["path"]} has '
        f"{', '.join(table.columns)}"
        for column in sorted(getattr(recipe.maker.make(), "columns", ()))
        if column not in have
    ]
    needs = {need: spec for spec in recipe.parts for need in getattr(spec.make(), "needs", ())}
    for need, values in (("labels", table.label), ("scores", table.score)):
        if need in needs and values is None:
            spec = needs[need]
            faults.append(f'{recipe.path}: {spec.where} ({spec.use}) needs the column "{need[:-1]}" in the data')
    return faults


def _look_at_dev(recipe: Recipe, verified: list[str], unverified: list[str]) -> None:
    if recipe.dev is None:
        return
    from sentemb.evaluate.dev import dev_score
    from sentemb.recipe.build import dev_task

    dev_score([dev_task(recipe.dev)])
    verified.append(f"dev set {recipe.dev.path} ({recipe.dev.protocol})")


def _look_at_memory(recipe: Recipe, verified: list[str], unverified: list[str]) -> None:
    """The step's peak, where the checkpoint is at hand."""
    from sentemb.encoder.layout import read_layout
    from sentemb.encoder.source import locate
    from sentemb.training.device import resolve_precision
    from sentemb.training.memory import estimate, free_memory, read_shape

    if any(line.startswith("encoder.backbone:") for line in unverified):
        return
    try:
        layout = read_layout(locate(recipe.encoder.backbone))
    except ModelError:
        return  # _look_at_encoder has said why
    limits = [recipe.data.params.get("max_tokens"), recipe.encoder.max_tokens, layout.max_tokens]
    shape = read_shape(layout.backbone, min((limit for limit in limits if limit), default=None))
    negatives = sum(spec.use == "given" for spec in recipe.edits)
    copies = sum(len(getattr(spec.make(), "makes", ())) for spec in recipe.copies)
    train = recipe.train
    available, on_gpu = free_memory()
    found = estimate(
        shape, batch_size=train.batch_size, views=2 + negatives + copies, candidates=1 + negatives,
        precision=resolve_precision(train.precision), companions=[entry.spec.use for entry in recipe.companions],
        chunk_size=train.chunk_size, chunk_tokens=train.chunk_tokens, kept_graphs_mib=train.kept_graphs_mib,
        recompute=train.gradient_checkpointing, frozen=recipe.encoder.freeze, available=available, on_gpu=on_gpu,
    )
    (verified if found.fits else unverified).append(found.sentence())
