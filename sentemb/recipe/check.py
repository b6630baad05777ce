"""``check``: what can go wrong with a recipe, found before any model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from sentemb.data.data_source import DataSource
from sentemb.data.table import Table
from sentemb.data.templates import Template
from sentemb.edits import Given, Mined
from sentemb.encoder.backbone import read_config, refused
from sentemb.encoder.layout import Layout, read_layout
from sentemb.encoder.source import PACKAGE, locate
from sentemb.encoder.static import load_static_tokeniser, refuse_other_pooling
from sentemb.encoder.tokeniser import Tokeniser, load_tokeniser
from sentemb.errors import ModelError, RecipeError, SentembError, needs_extra
from sentemb.evaluate.evaluation import check_dev
from sentemb.machine.precision import find_device
from sentemb.machine.rates import bfloat16_slowness
from sentemb.recipe.needs import check_data, class_faults, parts_of, told_apart_by_dropout, views_of
from sentemb.recipe.recipe import Recipe
from sentemb.training.device import resolve_precision
from sentemb.training.memory import BackboneShape, WeightsInMemory, forecast, free_memory, read_shape, read_static_shape
from sentemb.types import Component, Footprint

ROWS = 1000  # of the data that are looked at
_SLOW = 1.5  # bfloat16 is told from here on


@dataclass(frozen=True, kw_only=True)
class Report:
    """A checked recipe: what was verified, and what could not be."""

    recipe: Recipe
    verified: list[str] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)
    peak_bytes: float | None = None  # memory of a step, where the checkpoint's files are at hand


def check(recipe: str | Path | Recipe) -> Report:
    """Look at a recipe (or its file or name), its data's first rows, its checkpoints' files and its dev sets.

    Raises:
        RecipeError: every fault found, in one message.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    report = Report(recipe=recipe, verified=[f"{len(recipe.parts())} parts: names, values and needs"])
    faults: list[str] = []

    @contextmanager
    def noted() -> Iterator[None]:
        try:
            yield
        except SentembError as error:
            lines = error.faults if isinstance(error, RecipeError) else [str(error)]
            faults.extend(line.removeprefix(f"{recipe.name}: ") for line in lines)

    shape: BackboneShape | None = None
    tables: dict[str, Table] = {}
    with noted():
        for tracker in recipe.train.trackers:
            needs_extra(tracker, "trackers")
        _precision(report)
    with noted():
        shape = _encoder(report)
    for i, companion in enumerate(recipe.companions):
        for source in companion.checkpoints:
            with noted():
                _folder(report, f"companions[{i}] ({companion.name})", source)
    for where, part in parts_of(vars(recipe)).items():
        if not isinstance(part, Component):
            continue
        report.unverified.extend(f"{where} ({part.name}): {note}" for note in part.notes())
        for file in part.files:
            with noted():
                if not Path(file).expanduser().is_file():
                    raise RecipeError(f"{where} ({part.name}): there is no file {file}")
                report.verified.append(f"file {file}")
    for name, data in recipe.data.sources.items():
        with noted():
            _data(report, name, data, tables)
    with noted():
        wrong = check_dev(recipe.dev, seed=recipe.train.seed)
        if wrong:
            raise RecipeError([f"dev: {fault}" for fault in wrong])
        report.verified.extend(f"dev task {task.label}" for task in recipe.dev)
    if shape is not None:
        report = _memory(report, shape, tables)
    if faults:
        raise RecipeError([f"{recipe.name}: {fault}" for fault in dict.fromkeys(faults)])
    return report


def _precision(report: Report) -> None:
    """Whether this machine has the formats that the recipe computes in, and is fast in them."""
    recipe = report.recipe
    resolve_precision(recipe.train.precision)
    if recipe.encoder.weights == "nf4":
        needs_extra("bitsandbytes", "nf4")
    formats = {"train.precision": recipe.train.precision, "encoder.weights": recipe.encoder.weights}
    in_bfloat16 = [f'{name} = "{value}"' for name, value in formats.items() if value in ("bf16", "nf4")]
    if in_bfloat16 and find_device(None).type == "cpu" and bfloat16_slowness() > _SLOW:
        report.unverified.append(
            f"{' and '.join(in_bfloat16)}: this processor takes {bfloat16_slowness():.0f} times as long for products "
            "in bfloat16 as in float32; train on another one, or leave it out"
        )


def _folder(report: Report, where: str, source: str) -> Path | None:
    """The folder of a checkpoint; None where the hub would have to be asked."""
    is_local = source.startswith((PACKAGE, ".", "/", "~")) or Path(source).exists()
    if not is_local and source.count("/") <= 1:
        report.unverified.append(f"{where}: {source} would come from the hub, when training starts")
        return None
    try:
        return locate(source)
    except ModelError as error:
        raise ModelError(f"{where} = {error}") from None


def _encoder(report: Report) -> BackboneShape | None:
    """The checkpoint's files, tokenizer and width; its shape, where it is at hand."""
    recipe, encoder, dims = report.recipe, report.recipe.encoder, report.recipe.train.nested_dims
    folder = _folder(report, "encoder.backbone", encoder.backbone)
    if folder is None:
        return None
    weights = list(folder.rglob("*.safetensors"))
    pickled = ", ".join(sorted(path.name for path in folder.rglob("*.bin")))
    if not weights and pickled:
        raise ModelError(f"encoder.backbone = {folder}: no .safetensors file there, but {pickled}; pickled weights are "
                         "not opened. Convert them once: sentemb convert MODEL -o FOLDER")
    layout = read_layout(folder)
    longest = [source.max_tokens for source in recipe.data.sources.values()]
    of_data = None if None in longest else max(limit for limit in longest if limit is not None)
    limits = [limit for limit in (of_data, encoder.max_tokens, layout.max_tokens) if limit]
    with refused(folder):
        if layout.is_static:
            refuse_other_pooling(layout.backbone, encoder.pooling, encoder.layers)
            shape = read_static_shape(layout.backbone, min(limits, default=None))
            tokeniser, _ = load_static_tokeniser(layout.backbone, encoder.max_tokens)
        else:
            shape = read_shape(layout.backbone, min(limits, default=None))
            tokeniser = load_tokeniser(
                layout.backbone, max_tokens=encoder.max_tokens, stored_max=layout.max_tokens,
                limit=read_config(layout.backbone).get("max_position_embeddings"), lower_case=False,
                trust_remote_code=encoder.trust_remote_code,
            )
    if encoder.layers is not None:
        if max(encoder.layers) >= shape.layers:
            raise RecipeError(f"encoder.layers = {list(encoder.layers)}: the backbone has the layers 0 to "
                              f"{shape.layers - 1}")
        shape = replace(shape, layers=len(encoder.layers))
    _templates(recipe, tokeniser)
    if not _may_drop_out(layout) and (note := told_apart_by_dropout(recipe)):
        report.unverified.append(note)
    if weights:
        report.verified.append(f"checkpoint {folder} ({sum(file.stat().st_size for file in weights) / 2**20:.0f} MiB)")
    else:
        report.unverified.append(f"checkpoint {folder}: has no .safetensors file; its {shape.parameters / 1e6:,.0f} "
                                 "million parameters are those of its config.json, and training needs their weights")
    if not layout.heads:
        width = _width(recipe, shape)
        if dims and max(dims) >= width:
            fault = f"each must be below the embeddings' {width} dimensions"
            raise RecipeError(f"train.nested_dims = {list(dims)}: {fault}")
    return shape


def _width(recipe: Recipe, shape: BackboneShape) -> int:
    """The embeddings' dimensions behind pooling and heads, which must fit each other and the batch."""
    pooling, batch = recipe.encoder.pooling, recipe.train.batch_size
    width = shape.hidden if pooling is None else pooling.fresh().bind(shape.hidden, shape.layers)
    for i, head in enumerate(recipe.encoder.heads):
        with torch.device("meta"):
            bound = head.fresh()
            width = bound.bind(width)
        if batch < bound.least_rows:
            raise RecipeError(f"encoder.heads[{i}] reads a batch of at least {bound.least_rows} examples; "
                              f"train.batch_size = {batch}")
    return width


def _may_drop_out(layout: Layout) -> bool:
    """Whether the configuration names no rate of dropout (a default of the class counts then) or one above zero."""
    if layout.is_static:
        return False
    rates = [value for key, value in read_config(layout.backbone).items()
             if "drop" in key and "classifier" not in key and isinstance(value, (int, float))]
    return not rates or any(rates)


def _templates(recipe: Recipe, tokeniser: Tokeniser) -> None:
    """Whether templates leave room for a text, and whether the tokenizer has their mask token."""
    places = {f"encoder.prompts.{name}": (prompt, tokeniser) for name, prompt in recipe.encoder.prompts.items()}
    for name, source in recipe.data.sources.items():
        where, cut = f'source "{name}": ' if name else "", tokeniser.cut_to(source.max_tokens or tokeniser.max_tokens)
        places |= {f"{where}data.prefixes.{role}": (prompt, cut) for role, prompt in source.prefixes.items()}
        written = recipe.views.of(name).prompts or ()
        places |= {f"{where}views.templates[{i}]": (prompt, cut) for i, prompt in enumerate(written)}
    faults = []
    for where, (prompt, limited) in places.items():
        try:
            limited.frame(Template.read(prompt))
        except ModelError as error:
            faults.append(f"{where}: {error}")
    if faults:
        raise RecipeError(faults)


def _data(report: Report, name: str, data: DataSource, tables: dict[str, Table]) -> None:
    """The first rows of one source: columns, and whether there is something to contrast."""
    recipe, where = report.recipe, f'source "{name}": ' if name else ""
    batch = int(data.given_marks.get("batch_size", recipe.train.batch_size))
    absence = data.absence()
    if absence is not None:
        report.unverified.append(f"{where}data: {absence}")
        return
    table = tables[name] = data.load(max_rows=ROWS, together=recipe.views.of(name).together)
    check_data(recipe, table, name)
    if len(set(table.columns["anchor"])) == 1:
        raise RecipeError(f"{where}data: the first {len(table)} rows have one text; a contrast needs several")
    faults = [where + fault for fault in class_faults(recipe, table, name)]
    if faults and len(table) < ROWS:
        raise RecipeError(faults)
    report.unverified.extend(f"{fault} among the first {ROWS} rows" for fault in faults)
    report.verified.append(f"{where}data {data}: the first {len(table)} rows, columns {', '.join(table.columns)}")
    if len(table) < min(batch, ROWS):
        setting = "batch_size" if name else "train.batch_size"
        report.unverified.append(
            f"{where}{setting} = {batch}, but there are {len(table)} rows: every batch will have {len(table)}"
        )


def _memory(report: Report, shape: BackboneShape, tables: Mapping[str, Table]) -> Report:
    """The peak of a step, of the source whose batches have most texts."""
    recipe = report.recipe
    reads_given, reads_mined = (any(isinstance(edit, kind) for edit in recipe.edits) for kind in (Given, Mined))
    steps: list[tuple[int, int, int]] = []  # batch size, texts of an example, columns of the score table for an example
    for name, source in recipe.data.sources.items():
        columns = tables[name].columns if name in tables else recipe.views.of(name).columns | source.required
        views = views_of(recipe, columns, name)
        added = [view for view in views if view.startswith("negative") and reads_given]
        added += [view for view in views if view.startswith("mined") and reads_mined]
        batch = int(source.given_marks.get("batch_size", recipe.train.batch_size))
        maker = recipe.views.of(name)
        texts = len(views) - len(maker.makes(columns)) + maker.texts(columns)
        steps.append((batch, texts, 1 + len(added)))
    batch, texts_each, candidates = max(steps, key=lambda step: step[0] * step[1])
    parts = [
        part.footprint(hidden=shape.hidden, vocabulary=shape.vocabulary, texts=batch, tokens=shape.longest)
        for part in parts_of(vars(recipe)).values() if isinstance(part, Component)
    ]
    large = Footprint(parameters=sum(part.parameters for part in parts),
                      activation_bytes=sum(part.activation_bytes for part in parts))
    encoder = recipe.encoder
    weights = WeightsInMemory.of(
        shape, encoder.adapters, bytes=shape.weight_bytes(encoder.weights),
        is_still=encoder.freeze is True or bool(encoder.adapters),
        copies=sum(companion.model_bytes for companion in recipe.companions),
    )
    step = forecast(shape, replace(recipe.train, batch_size=batch), views=texts_each, candidates=candidates,
                    weights=weights, parts=large)
    fits, sentence = step.advice(free_memory())
    (report.verified if fits else report.unverified).append(sentence)
    return replace(report, peak_bytes=step.peak())
