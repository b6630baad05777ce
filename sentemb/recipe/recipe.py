"""A recipe: everything that decides what is trained, as one typed value in Python and as a TOML file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tomli_w
from annotated_types import Ge, MinLen
from pydantic import AfterValidator

from sentemb.companions.companion import Companion
from sentemb.data.data_source import DataSource
from sentemb.data.templates import Template
from sentemb.edits.edit import Edit
from sentemb.encoder.adapters import Adapter
from sentemb.encoder.heads import Head
from sentemb.encoder.poolings import Pooling
from sentemb.errors import PartError, RecipeError, did_you_mean
from sentemb.evaluate.task import Task
from sentemb.machine.precision import WeightFormat
from sentemb.parts import Fraction, Part, Whole, settings_of, to_table
from sentemb.parts.settings import check_values
from sentemb.recipe.load import DESCRIPTIVE, parse, read_tree, shipped_recipes
from sentemb.recipe.needs import parts_of, recipe_faults
from sentemb.terms.term import Term
from sentemb.training.settings import TrainSettings
from sentemb.types import Similarity
from sentemb.views.view import ViewCopy, ViewMaker

P = TypeVar("P", bound=Part)
Several = Annotated[Sequence[P], AfterValidator(tuple)]

_ARRAYS = ("companions", "edits", "terms", "dev")


@dataclass(frozen=True, kw_only=True)
class EncoderSettings(Part):
    """The encoder as training starts with it.

    Args:
        backbone: a folder, a hub id, or ``package:NAME/FOLDER``.
        pooling: from token vectors to one vector; by default what the checkpoint says, else the mean.
        heads: layers behind the pooling, in order.
        layers: the backbone's layers that are kept, from 0 on, in this order (``[0, 2, 3, 5]``); by default all. What
            training saves is an ordinary model of so many layers.
        adapters: few new weights inside the backbone; with them only they and the heads learn.
        max_tokens: longest text of the trained model; by default the checkpoint's.
        prompts: what is put in front of texts when they are encoded, or templates that they are written into
            (``{text}``, ``{mask}``), by name; saved with the model.
        default_prompt: the name of the one that is used where none is asked for; by default the checkpoint's.
        subtract_empty: how much of the template's own vector, without a text, is subtracted from every text's when it
            is encoded; by default as the checkpoint says, else 0.
        revision: branch, tag or commit of a hub id.
        trust_remote_code: run code that comes with the checkpoint.
        freeze: keep the backbone as it is, or only its modules of these names (``["embeddings", "encoder.layer.0"]``),
            with what adapters put into them.
        weights: format in which the backbone's weights stay in memory; ``bf16`` takes half of it, ``nf4`` (linear
            layers in four bits, extra ``nf4``) an eighth, for a backbone that stands still (adapters, or ``freeze =
            true``). Adapters and heads are in float32 all the same. What is saved is in bfloat16.
    """

    backbone: str
    pooling: Pooling | None = None
    heads: Several[Head] = ()
    layers: Annotated[Sequence[Whole], MinLen(1), AfterValidator(tuple)] | None = None
    adapters: Several[Adapter] = ()
    max_tokens: Annotated[int, Ge(3)] | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    subtract_empty: Fraction | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    freeze: bool | Annotated[Sequence[str], AfterValidator(tuple)] = False
    weights: WeightFormat = "fp32"

    def __post_init__(self) -> None:
        if self.weights != "fp32" and not (self.adapters or self.freeze is True):
            raise ValueError(f'weights = "{self.weights}": it loses every update that is below its rounding; '
                             'give adapters ([{ use = "lora" }]) or freeze = true, or leave it out')
        for name, prompt in self.prompts.items():
            try:
                Template.read(prompt)
            except ValueError as error:
                raise ValueError(f"prompts.{name}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Recipe(Part):
    """What is trained, how, on what; equal to another recipe that says the same.

        recipe = Recipe(
            encoder=EncoderSettings(backbone="distilroberta-base"),
            data=TextPairs(path="pairs.jsonl", max_tokens=64),
            views=Columns(),
            terms=[InfoNCE(temperature=0.05), 0.1 * Uniformity()],
        )
        Recipe.from_toml(recipe.to_toml()) == recipe

    Args:
        name: also the default run folder's, ``runs/NAME``.
        source: where the method was published.
        expected: scores that its authors publish.
        note: what a user should know.
        similarity: how embeddings are compared, ``cosine`` or ``dot``.
        encoder: backbone, pooling, heads.
        data: where the texts come from.
        views: what is encoded for one example.
        copies: further views made of those.
        companions: stateful helpers.
        edits: changes of the score table, in order.
        terms: losses; ``0.1 * term`` weighs one.
        train: optimisation.
        dev: tasks to evaluate on while training; the best model is kept.

    Raises:
        PartError: with every fault of the parts and of how they fit together.
    """

    name: str = "recipe"
    source: str = ""
    expected: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    similarity: Similarity = "cosine"
    encoder: EncoderSettings
    data: DataSource
    views: ViewMaker
    copies: Several[ViewCopy] = ()
    companions: Several[Companion] = ()
    edits: Several[Edit] = ()
    terms: Several[Term]
    train: TrainSettings = field(default_factory=TrainSettings)
    dev: Several[Task] = ()

    def __post_init__(self) -> None:
        faults = recipe_faults(vars(self))
        if faults:
            raise PartError("Recipe", faults)

    @classmethod
    def named(cls, name: str) -> Recipe:
        """A recipe that comes with sentemb (``sentemb list recipes``), or a ``RecipeError``."""
        shipped = shipped_recipes()
        if name not in shipped:
            raise RecipeError(f'"{name}" is no recipe{did_you_mean(name, shipped)}')
        return cls.load(shipped[name])

    @classmethod
    def load(cls, name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
        """A recipe file, or a recipe that comes with sentemb; ``overrides`` as the command line's ``--set``.

        Raises:
            RecipeError: with every fault found.
        """
        tree, path = read_tree(name, overrides)
        return cls.from_tree({"name": path.stem, **tree}, str(path))

    @classmethod
    def from_toml(cls, text: str) -> Recipe:
        """The recipe of a TOML text; a ``RecipeError`` has every fault found."""
        return cls.from_tree(parse(text, "recipe"), "recipe")

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], where: str) -> Recipe:
        """The recipe of a parsed TOML file; ``where`` opens the line of every fault in the ``RecipeError``."""
        single = [name for name in _ARRAYS if isinstance(tree.get(name), Mapping)]
        faults = [(name, f"must be an array of tables: [[{name}]]") for name in single]
        faults += [("copies", "belong into [views]: copies = [{ use = … }]")] if "copies" in tree else []
        values = {name: value for name, value in tree.items() if name not in single}
        views = values.get("views")
        if isinstance(views, Mapping):  # copies stand among the views in a file
            values["copies"] = views.get("copies", ())
            values["views"] = {key: value for key, value in views.items() if key != "copies"}
        known = settings_of(cls)
        optional = {name: kind for name, kind in known.items() if name in values or not kind.is_required}
        checked, wrong = check_values(values, optional)
        missing = [name for name in known if name not in {*optional, *single}]
        faults += wrong + [("", f"has no table {'[[terms]]' if name == 'terms' else f'[{name}]'}") for name in missing]
        absent = {name: kind.default for name, kind in optional.items() if name not in {*values, *single}}
        faults += recipe_faults({**absent, **checked})
        if faults:
            in_file = [(f"views.{path}" if path.startswith("copies[") else path, problem) for path, problem in faults]
            raise RecipeError(PartError("", in_file).located(f"{where}: "))
        return cls(**checked)

    def to_tree(self) -> dict[str, Any]:
        """The recipe as TOML's tables, without what is at its default."""
        tree = to_table(self)
        if "copies" in tree:
            tree["views"]["copies"] = tree.pop("copies")
        return tree

    def to_toml(self) -> str:
        """The recipe as TOML that needs no other file; rows in memory are named by number and fingerprint only."""
        return tomli_w.dumps(self.to_tree())

    @property
    def hash(self) -> str:
        """SHA-256 of all that decides what is trained: not of name, source, expected scores and note."""
        content = {key: value for key, value in self.to_tree().items() if key not in DESCRIPTIVE}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def replace(
        self,
        *,
        name: str | None = None,
        source: str | None = None,
        expected: Mapping[str, float] | None = None,
        note: str | None = None,
        similarity: Similarity | None = None,
        encoder: EncoderSettings | None = None,
        data: DataSource | None = None,
        views: ViewMaker | None = None,
        copies: Sequence[ViewCopy] | None = None,
        companions: Sequence[Companion] | None = None,
        edits: Sequence[Edit] | None = None,
        terms: Sequence[Term] | None = None,
        train: TrainSettings | None = None,
        dev: Sequence[Task] | None = None,
    ) -> Recipe:
        """The recipe with some fields replaced: ``recipe.replace(train=TrainSettings(epochs=3), edits=[])``."""
        changes = {key: value for key, value in locals().items() if key != "self" and value is not None}
        return Recipe(**{**self.settings, **changes})

    def parts(self) -> dict[str, Part]:
        """Every part by where a recipe file names it, in the order in which data flow through them."""
        return parts_of(vars(self))
