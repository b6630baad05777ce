"""From a validated recipe to a plan: encoder, tokenised data, parts with their modules."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch

from sentemb.edits.edit import Edit
from sentemb.encoder import Encoder
from sentemb.encoder.layout import read_layout
from sentemb.encoder.lora import add_lora
from sentemb.encoder.source import locate
from sentemb.errors import RecipeError
from sentemb.evaluate.task import Task
from sentemb.provenance import provenance
from sentemb.recipe.recipe import DevSpec, NamedPart, Recipe
from sentemb.recipe.schema import PartSpec
from sentemb.terms.term import Term
from sentemb.training.device import resolve_precision
from sentemb.training.objective import Objective, WeightedTerm
from sentemb.training.plan import Plan
from sentemb.training.services import EncoderCache
from sentemb.types import Build, Companion, Component, DevScores, Examples


def build(recipe: Recipe, run_dir: Path, *, files: Mapping[str, str] = MappingProxyType({})) -> Plan:
    """Load the encoder and the data of a recipe and make its parts.

    Raises:
        ModelError, DataError, RecipeError: with what does not fit.
    """
    resolve_precision(recipe.train.precision)  # one that this machine lacks is told before anything is loaded
    torch.manual_seed(recipe.train.seed)  # new heads and parts start the same in every run
    encoder = build_encoder(recipe)
    dev = build_dev(recipe.dev)
    dataset = build_dataset(recipe, encoder)
    encoders = EncoderCache(encoder)
    context = Build(
        backbone=encoder.source,
        width=encoder.module.width,
        vocabulary=encoder.vocabulary,
        encoder=encoder.module,
        load_encoder=encoders.load,
        seed=recipe.train.seed,
        trust_remote_code=recipe.encoder.trust_remote_code,
        folder_of=_backbone_folder,
    )
    objective = Objective(
        encoder.module,
        terms=[
            WeightedTerm(name=entry.name, term=_bound(entry.spec, context, Term), weight=entry.weight)
            for entry in recipe.terms
        ],
        edits=[(spec.use, _bound(spec, context, Edit)) for spec in recipe.edits],
        companions=_companions(recipe.companions, context),
        similarity=recipe.similarity,
        nested=recipe.train.nested_dims,
    )
    _check_columns(recipe, objective, dataset)
    return Plan(
        encoder=encoder,
        encoders=encoders,
        objective=objective,
        dataset=dataset,
        maker=recipe.maker.make(),
        copies=[spec.make() for spec in recipe.copies],
        settings=recipe.train,
        run_dir=run_dir,
        recipe=recipe.tree,
        recipe_hash=recipe.hash,
        dev=dev,
        dev_name=f"{recipe.dev.path} ({recipe.dev.protocol})" if recipe.dev else "none",
        files={**files, "run.json": json.dumps(run_facts(recipe, encoder, dataset), indent=2) + "\n"},
    )


def build_encoder(recipe: Recipe) -> Encoder:
    """The encoder as training starts with it."""
    spec = recipe.encoder
    encoder = Encoder.load(
        spec.backbone,
        pooling=spec.pooling,
        head=[head.make() for head in spec.heads],
        max_tokens=spec.max_tokens,
        trust_remote_code=spec.trust_remote_code,
        prompts=dict(spec.prompts),
        revision=spec.revision,
    )
    if spec.freeze:
        encoder.module.backbone.requires_grad_(False)
    if spec.lora is not None:
        add_lora(encoder.module.backbone, spec.lora)
    return encoder


def build_dataset(recipe: Recipe, encoder: Encoder) -> Examples:
    """The recipe's data, tokenised for the encoder."""
    from sentemb.data import tokenise

    limit = recipe.data.params.get("max_tokens")
    # of the training texts only: the model keeps its own limit
    tokeniser = encoder.tokeniser if limit is None else encoder.tokeniser.cut_to(limit)
    return tokenise(recipe.data.make().load(), tokeniser)


def build_dev(spec: DevSpec | None) -> Callable[[Encoder], DevScores] | None:
    """The dev evaluation, its data read already."""
    if spec is None:
        return None
    from sentemb.evaluate.dev import dev_score

    return dev_score([dev_task(spec)], precision=spec.precision)


def dev_task(spec: DevSpec) -> Task:
    """The task of the ``[dev]`` table."""
    from sentemb.evaluate.tasks.sts import Sts

    if Path(spec.path).suffix or Path(spec.path).exists():
        return Sts(path=spec.path)
    return Sts(protocol=cast(Any, spec.protocol), sets=(spec.path,), split="dev")


def _bound(spec: PartSpec, context: Build, kind: type[Component]) -> Any:
    part = spec.make()
    if not isinstance(part, kind):
        raise RecipeError(f"{spec.where}.use = {spec.use!r}: {spec.cls.__name__} is no {kind.__name__}")
    part.bind(context)
    return part


def _companions(entries: tuple[NamedPart, ...], context: Build) -> dict[str, Companion]:
    return {entry.name: _bound(entry.spec, context, Companion) for entry in entries}


def _check_columns(recipe: Recipe, objective: Objective, dataset: Examples) -> None:
    """The data must have the columns, labels and scores that the parts claim to need."""
    faults = []
    for column in sorted(getattr(recipe.maker.make(), "columns", ())):
        if column not in dataset.columns:
            faults.append(
                f'{recipe.path}: views ({recipe.maker.use}) needs the column "{column}", the data have: '
                f"{', '.join(dataset.columns)}"
            )
    for need, value in (("labels", dataset.label), ("scores", dataset.score)):
        if need in objective.needs and value is None:
            faults.append(f'{recipe.path}: a part needs {need}; the data have no column "{need[:-1]}"')
    if faults:
        raise RecipeError(faults)


def _token_count(dataset: Examples) -> int:
    return sum(int(column.offsets[-1]) for column in dataset.columns.values())


def run_facts(recipe: Recipe, encoder: Encoder, dataset: Examples) -> dict[str, Any]:
    """What ran, on what, with which versions: ``run.json``."""
    return {
        **asdict(provenance()),
        "recipe_hash": recipe.hash,
        "seed": recipe.train.seed,
        "rows": len(dataset),
        "tokens": _token_count(dataset),
        "model_digest": encoder.digest(),
    }


def _backbone_folder(source: str) -> Path:
    """Where the transformer of a path, hub id or ``package:…`` source lies."""
    return read_layout(locate(source)).backbone
