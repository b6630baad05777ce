"""From a validated recipe to a plan: encoder, tokenised data, parts with their modules."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch

from sentemb.data import tokenise
from sentemb.encoder import Encoder
from sentemb.encoder.layout import read_layout
from sentemb.encoder.source import locate
from sentemb.errors import RecipeError
from sentemb.evaluate.dev import dev_score
from sentemb.provenance import provenance
from sentemb.recipe.needs import data_faults
from sentemb.recipe.recipe import Recipe
from sentemb.training.callbacks import Callback
from sentemb.training.device import resolve_precision
from sentemb.training.objective import Objective, WeightedTerm
from sentemb.training.plan import Plan
from sentemb.training.services import EncoderCache
from sentemb.types import Build, Component, Examples

C = TypeVar("C", bound=Component)


def build(recipe: Recipe, run_dir: Path, *, callbacks: Sequence[Callback] = ()) -> Plan:
    """Load the encoder and the data of a recipe and make fresh parts: ``Run(build(recipe, folder))``.

    Args:
        recipe: stays as it is.
        run_dir: where the run's files will lie.
        callbacks: called while training.

    Raises:
        ModelError, DataError, RecipeError: with what does not fit.
    """
    resolve_precision(recipe.train.precision)  # one that this machine lacks is told before anything is loaded
    torch.manual_seed(recipe.train.seed)  # new heads and parts start the same in every run
    encoder = build_encoder(recipe)
    dev = dev_score(recipe.dev, seed=recipe.train.seed) if recipe.dev else None
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
        terms=[WeightedTerm(name=term.name, term=_bound(term, context), weight=term.weight) for term in recipe.terms],
        edits=[(edit.name, _bound(edit, context)) for edit in recipe.edits],
        companions={companion.name: _bound(companion, context) for companion in recipe.companions},
        similarity=recipe.similarity,
        nested=recipe.train.nested_dims,
    )
    raise_faults(recipe, dataset.columns, has_labels=dataset.label is not None, has_scores=dataset.score is not None)
    return Plan(
        encoder=encoder,
        encoders=encoders,
        objective=objective,
        dataset=dataset,
        maker=recipe.views,
        copies=recipe.copies,
        settings=recipe.train,
        run_dir=run_dir,
        recipe=recipe.to_tree(),
        recipe_hash=recipe.hash,
        dev=dev,
        dev_name=", ".join(task.label for task in recipe.dev) or "none",
        callbacks=callbacks,
        files={
            "recipe.toml": recipe.to_toml(),
            "run.json": json.dumps(run_facts(recipe, encoder, dataset), indent=2) + "\n",
        },
    )


def build_encoder(recipe: Recipe) -> Encoder:
    """The encoder as training starts with it."""
    spec = recipe.encoder
    encoder = Encoder.load(
        spec.backbone,
        pooling=spec.pooling,
        head=[head.fresh() for head in spec.heads],
        max_tokens=spec.max_tokens,
        trust_remote_code=spec.trust_remote_code,
        prompts=dict(spec.prompts),
        revision=spec.revision,
    )
    if spec.freeze:
        encoder.module.backbone.requires_grad_(False)
    for adapter in spec.adapters:
        adapter.add_to(encoder.module.backbone)
    return encoder


def build_dataset(recipe: Recipe, encoder: Encoder) -> Examples:
    """The recipe's data, tokenised for the encoder."""
    limit = recipe.data.max_tokens
    # of the training texts only: the model keeps its own limit
    tokeniser = encoder.tokeniser if limit is None else encoder.tokeniser.cut_to(limit)
    return tokenise(recipe.data.load(), tokeniser)


def _bound(part: C, context: Build) -> C:
    part = part.fresh()
    part.bind(context)
    return part


def raise_faults(recipe: Recipe, columns: Collection[str], *, has_labels: bool, has_scores: bool) -> None:
    """Raise a ``RecipeError`` with what parts need and the data do not have."""
    faults = data_faults(recipe, columns, has_labels=has_labels, has_scores=has_scores)
    if faults:
        raise RecipeError([f"{recipe.name}: {where} {what}" for where, what in faults])


def run_facts(recipe: Recipe, encoder: Encoder, dataset: Examples) -> dict[str, Any]:
    """What ran, on what, with which versions: ``run.json``."""
    return {
        **asdict(provenance()),
        "recipe_hash": recipe.hash,
        "seed": recipe.train.seed,
        "rows": len(dataset),
        "tokens": sum(int(column.offsets[-1]) for column in dataset.columns.values()),
        "model_digest": encoder.digest(),
    }


def _backbone_folder(source: str) -> Path:
    """Where the transformer of a path, hub id or ``package:…`` source lies."""
    return read_layout(locate(source)).backbone
