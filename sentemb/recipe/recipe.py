"""A validated recipe: every name known, every value of its type, every part's needs met. Nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from sentemb.encoder.adapters import Lora
from sentemb.errors import PartError, RecipeError, did_you_mean
from sentemb.recipe.load import hash_of, read_tree
from sentemb.recipe.schema import (
    ENCODER_KEYS,
    KEYS,
    Faults,
    PartSpec,
    coerce,
    read_part,
    type_fault,
)
from sentemb.training.settings import TrainSettings
from sentemb.types import Similarity


@dataclass(frozen=True)
class EncoderSpec:
    """The ``[encoder]`` table."""

    backbone: str
    pooling: str | Mapping[str, Any] | None = None  # None: what the checkpoint says, else mean
    heads: tuple[PartSpec, ...] = ()
    max_tokens: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    revision: str | None = None
    trust_remote_code: bool = False
    freeze: bool = False
    lora: Lora | None = None  # low-rank adapters: only they and the heads learn


@dataclass(frozen=True)
class DevSpec:
    """The ``[dev]`` table: what is measured while training; higher is better."""

    use: str  # "sts"
    path: str
    protocol: str = "simcse"
    precision: str = "auto"


@dataclass(frozen=True)
class NamedPart:
    """A term with its weight, or a companion with its name."""

    spec: PartSpec
    name: str
    weight: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """Everything a run needs to know."""

    name: str
    path: Path
    tree: Mapping[str, Any]  # resolved
    hash: str
    encoder: EncoderSpec
    data: PartSpec
    maker: PartSpec
    copies: tuple[PartSpec, ...]
    companions: tuple[NamedPart, ...]
    edits: tuple[PartSpec, ...]
    terms: tuple[NamedPart, ...]
    train: TrainSettings
    dev: DevSpec | None
    similarity: Similarity

    @property
    def parts(self) -> list[PartSpec]:
        """All parts, in the order of the chain."""
        return [
            self.data, self.maker, *self.copies, *(entry.spec for entry in self.companions), *self.edits,
            *(entry.spec for entry in self.terms),
        ]


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe.

    Args:
        name: a file or the name of a shipped recipe (``sentemb list recipes``).
        overrides: ``key.path=value`` each, as the command line's ``--set``.

    Raises:
        RecipeError: with every fault found.
    """
    tree, path = read_tree(name, overrides)
    return validate(tree, path)


def validate(tree: Mapping[str, Any], path: Path) -> Recipe:
    """The recipe of a resolved tree; raises ``RecipeError`` with every fault."""
    from sentemb.companions import PARTS as COMPANIONS
    from sentemb.data import PARTS as DATA
    from sentemb.edits import PARTS as EDITS
    from sentemb.terms import PARTS as TERMS
    from sentemb.views import COPIES
    from sentemb.views import PARTS as VIEWS

    faults = Faults(str(path))
    faults.unknown_keys("", tree, KEYS)
    similarity = tree.get("similarity", "cosine")
    if similarity not in get_args(Similarity):
        faults.add("similarity", f'= "{similarity}"{did_you_mean(str(similarity), get_args(Similarity))}')
    encoder = _read_encoder(faults, tree.get("encoder"))
    data = read_part(faults, "data", tree.get("data"), DATA)
    views = tree.get("views")
    maker = read_part(faults, "views", views, VIEWS, extra=("copies",))
    copies = _read_list(faults, "views.copies", views.get("copies", []) if isinstance(views, dict) else [], COPIES)
    companions = [
        NamedPart(spec, str(entry.get("name", spec.use)))
        for spec, entry in _with_entries(faults, "companions", tree, COMPANIONS, ("name",))
    ]
    edits = [spec for spec, _ in _with_entries(faults, "edits", tree, EDITS, ())]
    terms = [
        NamedPart(spec, str(entry.get("name", spec.use)), _weight(faults, spec.where, entry))
        for spec, entry in _with_entries(faults, "terms", tree, TERMS, ("name", "weight"))
    ]
    _check_names(faults, "companions", companions)
    _check_names(faults, "terms", terms)
    if not tree.get("terms"):
        faults.add("terms", f'is missing: a recipe has at least one [[terms]]; known: {", ".join(sorted(TERMS))}')
    train = _read_train(faults, tree.get("train", {}))
    dev = _read_dev(faults, tree.get("dev"))
    if train is not None and train.eval_every and dev is None and not tree.get("dev"):
        faults.add("train.eval_every", "needs a [dev] table (use, path) to evaluate on")
    if train is not None and train.nested_dims and encoder is not None:
        _check_nested(faults, encoder.heads)
    if data is not None and maker is not None:
        parts = [*copies, *(entry.spec for entry in companions), *edits, *(entry.spec for entry in terms)]
        _check_needs(faults, maker, parts, companions)
        if train is not None and (train.chunk_size or train.chunk_tokens):
            from sentemb.training.gradcache import cache_faults

            for fault in cache_faults([(f"{spec.where} ({spec.use})", spec.make().needs) for spec in parts]):
                faults.add("", fault)
    if faults.found or encoder is None or data is None or maker is None or train is None:
        raise RecipeError(faults.found)
    return Recipe(
        path.stem, path, tree, hash_of(tree), encoder, data, maker, tuple(copies), tuple(companions), tuple(edits),
        tuple(terms), train, dev, similarity,
    )


def _with_entries(
    faults: Faults, room: str, tree: Mapping[str, Any], parts: Mapping[str, type], extra: tuple[str, ...]
) -> list[tuple[PartSpec, Mapping[str, Any]]]:
    entries = tree.get(room, [])
    if not isinstance(entries, list):
        faults.add(room, f"must be an array of tables: [[{room}]]")
        return []
    read = [(read_part(faults, f"{room}[{i}]", entry, parts, extra=extra), entry) for i, entry in enumerate(entries)]
    return [(spec, entry) for spec, entry in read if spec is not None]


def _read_list(faults: Faults, where: str, entries: Any, parts: Mapping[str, type]) -> list[PartSpec]:
    if not isinstance(entries, list):
        faults.add(where, "must be an array")
        return []
    read = [read_part(faults, f"{where}[{i}]", entry, parts) for i, entry in enumerate(entries)]
    return [spec for spec in read if spec is not None]


def _read_encoder(faults: Faults, table: Any) -> EncoderSpec | None:
    from sentemb.encoder.heads import PARTS as HEADS
    from sentemb.encoder.poolings import make_pooling

    if not isinstance(table, dict) or not isinstance(table.get("backbone"), str):
        faults.add("encoder.backbone", "is missing: a folder, a hub id, or package:NAME/FOLDER")
        return None
    before = len(faults.found)
    faults.unknown_keys("encoder", table, ENCODER_KEYS)
    pooling = table.get("pooling")
    if pooling is not None:
        try:
            make_pooling(pooling)
        except PartError as error:
            for setting, fault in error.entries:
                faults.add("encoder.pooling", fault if setting in ("", "use") else f"{setting} {fault}")
    entries = list(table.get("heads", [])) + ([table["head"]] if "head" in table else [])
    heads = [read_part(faults, f"encoder.heads[{i}]", entry, HEADS) for i, entry in enumerate(entries)]
    kinds: dict[str, Any] = {
        "max_tokens": int | None, "prompts": dict[str, str], "revision": str | None, "trust_remote_code": bool,
        "freeze": bool,
    }
    given = {key: table[key] for key in kinds if key in table}
    for key, value in given.items():
        problem = type_fault(value, kinds[key])
        if problem:
            faults.add(f"encoder.{key}", f"= {value!r}: {problem}")
    lora = _read_lora(faults, table["lora"]) if "lora" in table else None
    if len(faults.found) > before:
        return None
    given = {**coerce(given, {key: (kind, False) for key, kind in kinds.items()}), "lora": lora}
    return EncoderSpec(table["backbone"], pooling, tuple(head for head in heads if head is not None), **given)


def _read_lora(faults: Faults, table: Any) -> Lora | None:
    if not isinstance(table, dict):
        faults.add("encoder.lora", "must be a table: { rank = 8, alpha = 16 }")
        return None
    try:
        return Lora(**table)
    except PartError as error:
        for setting, problem in error.entries:
            faults.add(f"encoder.lora.{setting}" if setting else "encoder.lora", problem)
        return None


def _read_train(faults: Faults, table: Any) -> TrainSettings | None:
    if not isinstance(table, dict):
        faults.add("train", "must be a table")
        return None
    try:
        return TrainSettings(**table)
    except ValidationError as error:
        for entry in error.errors():
            key = ".".join(map(str, entry["loc"]))
            if entry["type"] == "extra_forbidden":
                faults.add(f"train.{key}", f"is not a known key{did_you_mean(key, TrainSettings.model_fields)}")
            else:
                value = f"= {entry['input']!r}: " if entry["loc"] else ": "
                faults.add(f"train{'.' if key else ''}{key}", f"{value}{entry['msg'].removeprefix('Value error, ')}")
        return None


def _read_dev(faults: Faults, table: Any) -> DevSpec | None:
    if table is None:
        return None
    known = {"use": ("sts",), "protocol": ("simcse", "mteb"), "precision": ("auto", "fp32", "bf16")}
    if not isinstance(table, dict) or not isinstance(table.get("path"), str):
        faults.add("dev", 'needs path = "…": a file of pairs (sentence1, sentence2, score) or a name: STSBenchmark')
        return None
    before = len(faults.found)
    faults.unknown_keys("dev", table, ("path", *known))
    for key, allowed in known.items():
        if key in table and table[key] not in allowed:
            faults.add(f"dev.{key}", f'= "{table[key]}"{did_you_mean(str(table[key]), allowed)}')
    if len(faults.found) > before:
        return None
    return DevSpec(**{"use": "sts", **table})


def _weight(faults: Faults, where: str, entry: Mapping[str, Any]) -> float:
    weight = entry.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        faults.add(f"{where}.weight", f"= {weight!r}: expected a number")
        return 1.0
    return float(weight)


def _check_names(faults: Faults, room: str, entries: Sequence[NamedPart]) -> None:
    names = [entry.name for entry in entries]
    for name in {name for name in names if names.count(name) > 1}:
        faults.add(room, f'has two parts named "{name}"; give one of them another name = "…"')


def _check_nested(faults: Faults, heads: Sequence[PartSpec]) -> None:
    """Nested widths are trained behind the heads; behind one that is left out later they are not the exported ones."""
    for spec in heads:
        head = spec.make()
        if head.train_only and not head.keeps_dimensions:
            faults.add(
                "train.nested_dims",
                f"trains leading dimensions of what the head {spec.use} makes, but {spec.where}.train_only = true "
                "keeps that head out of the model, whose own leading dimensions nothing then trains: set train_only = "
                "false, or leave out the head or train.nested_dims",
            )


def _check_needs(
    faults: Faults, maker: PartSpec, parts: Sequence[PartSpec], companions: Sequence[NamedPart]
) -> None:
    """Claims on views and companions that can be decided without data."""
    have_companions = {entry.name for entry in companions}
    copies = [spec.make() for spec in parts if spec.where.startswith("views.copies")]
    made = {name for copy in copies for name in getattr(copy, "makes", ())}
    for spec in [maker, *parts]:
        for need in sorted(getattr(spec.make(), "needs", ())):
            kind, _, name = need.partition(":")
            if kind == "companion" and name not in have_companions:
                faults.add(spec.where, f'({spec.use}) needs the companion "{name}": add [[companions]] use = "{name}"')
            if kind == "view" and "." in name and name not in made:
                copy = name.partition(".")[2]
                entry = f'{{ use = "{copy}", of = ["{name.partition(".")[0]}"] }}'
                faults.add(spec.where, f'({spec.use}) needs the view "{name}": add {entry} to views.copies')
