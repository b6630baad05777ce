"""``check``: what can go wrong with a recipe, found before any model is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from sentemb.data.table import Table
from sentemb.edits import Given, Mined
from sentemb.encoder.backbone import read_config, refused
from sentemb.encoder.layout import Layout, read_layout
from sentemb.encoder.source import PACKAGE, locate
from sentemb.encoder.tokeniser import load_tokeniser
from sentemb.errors import ModelError, RecipeError, SentembError, needs_extra
from sentemb.evaluate.dev import check_dev
from sentemb.recipe.build import raise_faults
from sentemb.recipe.recipe import Recipe
from sentemb.training.device import resolve_precision
from sentemb.training.memory import BackboneShape, estimate, free_memory, read_shape

ROWS = 1000  # of the data that are looked at


@dataclass(frozen=True, kw_only=True)
class Report:
    """A checked recipe: what was verified, and what could not be."""

    recipe: Recipe
    verified: tuple[str, ...]
    unverified: tuple[str, ...]


def check(recipe: str | Path | Recipe) -> Report:
    """Look at a recipe, its data's first rows, its checkpoints' files and its dev sets; no model is loaded.

    Args:
        recipe: a ``Recipe``, a file, or the name of a recipe that comes with sentemb.

    Raises:
        RecipeError: every fault found, in one message.
    """
    return _Check(recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)).report()


@dataclass(kw_only=True)
class _Findings:
    verified: list[str] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class _Check:
    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.train = recipe, recipe.train
        self.findings = _Findings(verified=[f"{len(recipe.parts())} parts: names, values and needs"])
        self.layout: Layout | None = None  # of the backbone, where it is at hand
        self.shape: BackboneShape | None = None
        self.table: Table | None = None

    def report(self) -> Report:
        for look in (self.settings, self.encoder, self.companions, self.data, self.dev, self.memory):
            try:
                look()
            except SentembError as error:
                lines = error.faults if isinstance(error, RecipeError) else [str(error)]
                self.findings.faults += [line.removeprefix(f"{self.recipe.name}: ") for line in lines]
        if self.findings.faults:
            raise RecipeError([f"{self.recipe.name}: {fault}" for fault in dict.fromkeys(self.findings.faults)])
        return Report(
            recipe=self.recipe, verified=tuple(self.findings.verified), unverified=tuple(self.findings.unverified)
        )

    def settings(self) -> None:
        """Precision and trackers that this machine has."""
        for tracker in self.train.trackers:
            needs_extra(tracker, "trackers")
        resolve_precision(self.train.precision)

    def encoder(self) -> None:
        """The checkpoint's files, tokenizer and width."""
        encoder = self.recipe.encoder
        folder = self._folder("encoder.backbone", encoder.backbone)
        if folder is None:
            return
        weights = list(folder.rglob("*.safetensors"))
        if not weights:
            raise ModelError(f"encoder.backbone = {folder}: no .safetensors file there; pickled weights are not opened")
        self.layout = read_layout(folder)
        limits = [self.recipe.data.max_tokens, encoder.max_tokens, self.layout.max_tokens]
        with refused(folder):
            self.shape = read_shape(self.layout.backbone, min((limit for limit in limits if limit), default=None))
            load_tokeniser(
                self.layout.backbone, max_tokens=encoder.max_tokens, stored_max=self.layout.max_tokens,
                limit=read_config(self.layout.backbone).get("max_position_embeddings"), lower_case=False,
                trust_remote_code=encoder.trust_remote_code,
            )
        size = sum(file.stat().st_size for file in weights) / 2**20
        self.findings.verified.append(f"checkpoint {folder} ({size:.0f} MiB)")
        self._widths(self.shape.hidden)

    def _widths(self, width: int) -> None:
        assert self.layout is not None
        if self.layout.heads or not self.train.nested_dims:
            return
        for head in self.recipe.encoder.heads:
            with torch.device("meta"):
                width = head.fresh().bind(width)
        if max(self.train.nested_dims) >= width:
            dims = list(self.train.nested_dims)
            raise RecipeError(f"train.nested_dims = {dims}: each must be below the embeddings' {width} dimensions")

    def companions(self) -> None:
        """The checkpoints that companions load."""
        for i, companion in enumerate(self.recipe.companions):
            for source in companion.checkpoints:
                self._folder(f"companions[{i}] ({companion.name})", source)

    def _folder(self, where: str, source: str) -> Path | None:
        """The folder of a checkpoint; None where the hub would have to be asked."""
        is_local = source.startswith((PACKAGE, ".", "/", "~")) or Path(source).exists()
        if not is_local and source.count("/") <= 1:
            self.findings.unverified.append(f"{where}: {source} would come from the hub, when training starts")
            return None
        try:
            return locate(source)
        except ModelError as error:
            raise ModelError(f"{where} = {error}") from None

    def data(self) -> None:
        """The first rows: columns, and whether there is something to contrast."""
        data, batch = self.recipe.data, self.train.batch_size
        absence = data.absence()
        if absence is not None:
            self.findings.unverified.append(f"data: {absence}")
            return
        self.table = table = data.load(max_rows=ROWS)
        raise_faults(
            self.recipe, table.columns, has_labels=table.label is not None, has_scores=table.score is not None
        )
        if len(set(table.columns["anchor"])) == 1:
            raise RecipeError(f"data: the first {len(table)} rows have one text; a contrast needs several")
        self.findings.verified.append(f"data {data}: the first {len(table)} rows, columns {', '.join(table.columns)}")
        if len(table) < min(batch, ROWS):
            self.findings.unverified.append(
                f"train.batch_size = {batch}, but there are {len(table)} rows: every batch will have {len(table)}"
            )

    def dev(self) -> None:
        """The data of the tasks to evaluate on."""
        faults = check_dev(self.recipe.dev, seed=self.train.seed)
        if faults:
            raise RecipeError([f"dev: {fault}" for fault in faults])
        self.findings.verified += [f"dev task {task.label}" for task in self.recipe.dev]

    def memory(self) -> None:
        """The step's peak, where the checkpoint is at hand."""
        if self.shape is None:
            return
        recipe = self.recipe
        columns = self.table.columns if self.table else recipe.views.columns | recipe.data.required
        views = [*recipe.views.makes(columns), *(view for copy in recipe.copies for view in copy.makes)]
        added = [view for view in views if view.startswith("negative")] if self._has(Given) else []
        added += [view for view in views if view.startswith("mined")] if self._has(Mined) else []
        available, on_gpu = free_memory()
        needed = estimate(
            self.shape, self.train, views=len(views), candidates=1 + len(added),
            companion_bytes=sum(companion.model_bytes for companion in recipe.companions),
            frozen=recipe.encoder.freeze, available=available, on_gpu=on_gpu,
        )  # fmt: skip
        (self.findings.verified if needed.fits else self.findings.unverified).append(needed.sentence())

    def _has(self, kind: type[Given | Mined]) -> bool:
        return any(isinstance(edit, kind) for edit in self.recipe.edits)
