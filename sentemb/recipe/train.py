"""From a validated recipe to a plan, and ``train(recipe)``, which carries it out in its folder."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from sentemb.data import Mixture
from sentemb.data.data_source import DataSource, InMemory, TableData
from sentemb.data.mixture import MixedBatches, load_examples
from sentemb.distributed import broadcast_object, join, leave, rank
from sentemb.encoder import Encoder
from sentemb.encoder.backbone import dropout_rates, freeze
from sentemb.encoder.layout import read_layout
from sentemb.encoder.source import locate
from sentemb.errors import RecipeError
from sentemb.evaluate.evaluation import dev_score
from sentemb.machine.resources import return_freed_memory
from sentemb.provenance import provenance
from sentemb.recipe.card import write_card
from sentemb.recipe.needs import check_data, told_apart_by_dropout
from sentemb.recipe.recipe import Recipe
from sentemb.training.active import WeightedTerm
from sentemb.training.callbacks import Callback
from sentemb.training.device import check_installed, resolve_precision
from sentemb.training.objective import Objective
from sentemb.training.plan import EncoderCache, Plan, TrainResult
from sentemb.training.run import run
from sentemb.types import Build, Component

_log = logging.getLogger("sentemb")
C = TypeVar("C", bound=Component)


def build(recipe: Recipe, run_dir: Path, *, callbacks: Sequence[Callback] = ()) -> Plan:
    """Load the encoder and the data of a recipe and make fresh parts: ``Run(build(recipe, folder))``.

    Raises:
        ModelError, DataError, RecipeError: with what does not fit.
    """
    resolve_precision(recipe.train.precision)  # one that this machine lacks is told before anything is loaded
    torch.manual_seed(recipe.train.seed)  # new heads and parts start the same in every run
    encoder = _encoder(recipe)
    if not any(rate for _, _, rate in dropout_rates(encoder.module)) and (note := told_apart_by_dropout(recipe)):
        _log.warning(note)
    dev = dev_score(recipe.dev, seed=recipe.train.seed) if recipe.dev else None
    maker = recipe.views.fresh()
    reads_texts = any("texts" in part.needs for part in recipe.parts().values())
    dataset = load_examples(recipe.data, encoder.tokeniser, keep_texts=reads_texts, reader_of=maker.of)
    by_source = dataset.sources or {"": dataset}
    for name, examples in by_source.items():
        check_data(recipe, examples, name)
    settings = recipe.train
    if isinstance(recipe.data, Mixture):
        settings = replace(settings, batches=MixedBatches(mixture=recipe.data, batches=settings.batches))
    encoders = EncoderCache(encoder)
    context = Build(
        backbone=encoder.source, width=encoder.module.width, vocabulary=encoder.vocabulary, encoder=encoder.module,
        load_encoder=encoders.load, seed=recipe.train.seed, trust_remote_code=recipe.encoder.trust_remote_code,
        folder_of=lambda source: read_layout(locate(source)).backbone, tokenise=encoder.tokeniser,
    )
    companions = {companion.name: _bound(companion, context) for companion in recipe.companions}
    context = dataclasses.replace(context, companions=companions)
    objective = Objective(
        encoder.module,
        terms=[WeightedTerm(name=term.name, term=_bound(term, context), weight=term.weight) for term in recipe.terms],
        edits=[(edit.name, _bound(edit, context)) for edit in recipe.edits],
        companions=companions,
        similarity=recipe.similarity,
        nested=recipe.train.nested_dims,
    )
    tokens = sum(int(column.offsets[-1]) for column in dataset.columns.values())
    longest = encoder.tokeniser.max_tokens
    limits = {name: min(source.max_tokens or longest, longest) for name, source in recipe.data.sources.items()}
    at_limit = sum(int((column.lengths >= limits[name]).sum())
                   for name, examples in by_source.items() for column in examples.columns.values())  # fmt: skip
    if at_limit:
        _log.info("%s texts fill all of their %s tokens; what a text has beyond is cut", f"{at_limit:,}",
                  "/".join(map(str, sorted(set(limits.values())))))
    facts = {
        **dataclasses.asdict(provenance()), "recipe_hash": recipe.hash, "seed": recipe.train.seed, "rows": len(dataset),
        "tokens": tokens, "texts_at_limit": at_limit, "model_digest": encoder.digest(),
    }
    return Plan(
        encoder=encoder, encoders=encoders, objective=objective, dataset=dataset, maker=maker,
        copies=recipe.copies, settings=settings, run_dir=run_dir, recipe=recipe.to_tree(), recipe_hash=recipe.hash,
        dev=dev, callbacks=callbacks,
        files={"recipe.toml": recipe.to_toml(), "run.json": json.dumps(facts, indent=2) + "\n"},
    )


def _encoder(recipe: Recipe) -> Encoder:
    """The encoder as training starts with it."""
    spec = recipe.encoder
    encoder = Encoder.load(
        spec.backbone, pooling=spec.pooling, head=[head.fresh() for head in spec.heads], max_tokens=spec.max_tokens,
        trust_remote_code=spec.trust_remote_code, prompts=dict(spec.prompts), default_prompt=spec.default_prompt,
        subtract_empty=spec.subtract_empty, revision=spec.revision, layers=spec.layers, weights=spec.weights,
    )
    for adapter in spec.adapters:
        adapter.add_to(encoder.module.backbone)
    if spec.freeze:
        freeze(encoder.module.backbone, ("",) if spec.freeze is True else spec.freeze)
    return encoder


def _bound(part: C, context: Build) -> C:
    part = part.fresh()
    part.bind(context)
    return part


def train(
    recipe: str | Path | Recipe, *, data: object = None, output: str | Path | None = None, resume: bool = False,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Train a recipe.

    Args:
        recipe: a ``Recipe``, a file, or the name of a recipe that comes with sentemb.
        data: train on these in place of the recipe's: rows that are dicts, tuples or texts, a pandas or polars data
            frame, a ``datasets.Dataset`` (see ``InMemory``), a path, or a ``DataSource``; for a mixture a dict of such
            data by the names of its sources.
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
        plan = build(recipe, run_dir, callbacks=callbacks)
        result = run(plan, resume=resume)
        if rank() == 0:
            write_card(result.model_dir, encoder=plan.encoder)
        return result
    finally:
        return_freed_memory()
        if has_joined:
            leave()


def _source(data: object, before: DataSource) -> DataSource:
    """``data`` with the limits, column names and prefixes of the source that it replaces."""
    if isinstance(data, DataSource):
        return data
    if isinstance(before, Mixture):
        if not isinstance(data, Mapping) or set(data) != set(before.sources):
            given = ", ".join(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
            wanted = ", ".join(before.sources)
            raise RecipeError(f"data: found {given}; this recipe's data are a mixture: give a dict of {wanted}")
        return before.replaced({name: _source(data[name], source) for name, source in before.sources.items()})
    if isinstance(data, (str, Path)):
        if isinstance(before, TableData):
            return dataclasses.replace(before, path=str(data))
        return TableData(path=str(data), columns=before.columns, max_tokens=before.max_tokens, prefixes=before.prefixes)
    return InMemory(
        data=data, columns=before.columns, max_rows=before.max_rows, max_tokens=before.max_tokens,
        prefixes=before.prefixes, skip_faulty=before.skip_faulty,
    )
