"""How the parts of a recipe must fit together, and what they need of the data; decided here alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sentemb.companions.companion import Companion
from sentemb.companions.prototypes import Prototypes
from sentemb.data.grouped import Grouped
from sentemb.data.table import Table
from sentemb.data.templates import class_words, require_one_mask
from sentemb.errors import DataError, RecipeError
from sentemb.parts import Part, room
from sentemb.terms import LabelWords
from sentemb.types import UNKNOWN, Component, Examples
from sentemb.views import BySource, Prompted, ViewMaker

if TYPE_CHECKING:
    from sentemb.recipe.recipe import Recipe

Fault = tuple[str, str]  # (where in the recipe, what is wrong)


def parts_of(fields: Mapping[str, Any]) -> dict[str, Part]:
    """Every part by where a recipe file names it, in the order in which data flow through them.

    ``fields`` are a ``Recipe``'s by name; one that was wrong itself is missing.
    """
    places: dict[str, Any] = {}
    if "encoder" in fields:
        encoder = fields["encoder"]
        places = {"encoder.pooling": encoder.pooling, "encoder.heads": encoder.heads}
        places["encoder.adapters"] = encoder.adapters
    for name in ("data", "views", "copies", "companions", "edits", "terms", "dev"):
        places["views.copies" if name == "copies" else name] = fields.get(name)
    if "train" in fields:
        places["train.batches"], places["train.callbacks"] = fields["train"].batches, fields["train"].callbacks
    parts: dict[str, Part] = {}
    for where, entry in places.items():
        if isinstance(entry, Part):
            parts[where] = entry
        elif entry is not None:
            parts |= {f"{where}[{i}]": part for i, part in enumerate(entry)}
    return parts


def views_of(recipe: Recipe, columns: Collection[str], source: str = "") -> list[str]:
    """The views that a recipe makes of data with these columns; ``source`` is of a mixture."""
    copies = (copy for copy in recipe.copies if copy.is_for(source))
    return [*recipe.views.of(source).makes(columns), *(view for copy in copies for view in copy.makes)]


def told_apart_by_dropout(recipe: Recipe) -> str | None:
    """What to tell of views that need dropout, where the backbone has none; None of other views."""
    makers = (recipe.views.of(name) for name in recipe.data.sources)
    maker = next((maker for maker in makers if maker.needs_dropout), None)
    return None if maker is None else (
        f"views ({_use(maker)}): the backbone drops nothing out, so that a sentence's views are equal and teach "
        'nothing, unless another part, such as the edit "noise", makes them differ; take a backbone with dropout, or '
        "views of other texts (edited, columns)"
    )


def check_data(recipe: Recipe, data: Table | Examples, source: str = "") -> None:
    """Raise a ``RecipeError`` with everything that parts need and the data do not have; ``source`` is of a mixture."""
    maker, known = recipe.views.of(source), ", ".join(data.columns)
    faults = [
        f'views ({_use(maker)}) needs the column "{column}"; the data have: {known}'
        for column in sorted(maker.columns - set(data.columns))
    ]
    views = views_of(recipe, data.columns, source)
    lacks = {
        "labels": data.label is None, "levels": data.levels is None, "scores": data.score is None,
        "margins": data.margin is None, "weights": data.weight is None, "grades": not data.grades,
        "negative_scores": not data.negative_scores,
    }
    for where, part, kind, name in _needs(vars(recipe), source):
        if lacks.get(kind):
            column = {"levels": "label_2", "grades": "grade_0", "negative_scores": "score_1"}.get(kind, kind[:-1])
            faults.append(f'{where} ({_use(part)}) needs the column "{column}"; the data have: {known}')
        if kind == "view" and not set(name.split("|")) & set(views):
            either = name.replace("|", '" or "')
            faults.append(f'{where} ({_use(part)}) needs the view "{either}"; there are {", ".join(sorted(views))}')
    pooling, prefixes = recipe.encoder.pooling, recipe.data.sources[source].prefixes
    if pooling is not None and pooling.reads_mask_token and maker.prompts is None:
        faults += [f'data.prefixes has no template for "{column}", and the pooling "mask" reads the mask token of one'
                   for column in data.columns if column not in prefixes]
    if faults:
        named = f'source "{source}": ' if source else ""
        raise RecipeError([f"{recipe.name}: {named}{fault}" for fault in faults])


def class_faults(recipe: Recipe, data: Table, source: str = "") -> list[str]:
    """What parts that read classes or make groups need and these rows, of this source of a mixture, do not have."""
    label = np.full(len(data), UNKNOWN) if data.label is None else data.label
    classes, unknown = len(np.unique(label[label != UNKNOWN])), int((label == UNKNOWN).sum())
    texts, faults = len(set(data.columns["anchor"])), []
    for where, part in parts_of(vars(recipe)).items():
        if not part.is_for(source):
            continue
        place = f"{where} ({_use(part)})"
        if "labels" in part.needs and classes < 2:
            faults.append(f"{place} compares classes; there {'is one' if classes else 'are none'}")
        elif isinstance(part, Grouped) and part.by == "label":
            if part.groups > classes:
                faults.append(f"{place} groups = {part.groups}, but there are {classes} classes")
            if unknown:
                faults.append(f"{place} needs the class of all rows; {unknown} are unknown (label {UNKNOWN})")
        elif isinstance(part, Prototypes) and part.update == "average" and (part.count or 0) > texts:
            faults.append(f"{place} count = {part.count}, but there are {texts} distinct anchors")
        elif isinstance(part, LabelWords) or (isinstance(part, Prompted) and part.demonstrations):
            try:
                class_words(part.words, data, place)
            except DataError as error:
                faults.append(str(error))
    return faults


def recipe_faults(fields: Mapping[str, Any]) -> list[Fault]:
    """What is wrong with how a recipe's fields fit together; ``fields`` as for ``parts_of``."""
    own = [
        (f"{where} ({_use(part)})", fault) for where, part in parts_of(fields).items()
        if isinstance(part, (Component, ViewMaker)) for fault in part.faults(fields)
    ]
    return [
        *_faults_of_names(fields), *_faults_of_sources(fields), *_faults_of_needs(fields), *_faults_of_tables(fields),
        *own, *_faults_of_controls(fields), *_faults_of_templates(fields), *_faults_of_training(fields),
    ]


def _faults_of_controls(fields: Mapping[str, Any]) -> Iterator[Fault]:
    for i, companion in enumerate(fields.get("companions", ())):
        if companion.rolled and type(companion).observe is Companion.observe:
            fault = f"moves what is observed of examples, and {_use(companion)} observes nothing"
            yield f"companions[{i}].rolled", fault


def _use(part: Part) -> str:
    return room(part.room).name_of(type(part))


def _needs(fields: Mapping[str, Any], source: str | None = None) -> Iterator[tuple[str, Part, str, str]]:
    """Where a part stands, the part, and kind and name of one of its needs; only parts that are for the source."""
    for where, part in parts_of(fields).items():
        maker = part.of(source) if source is not None and isinstance(part, ViewMaker) else part
        for need in sorted(maker.needs if source is None or part.is_for(source) else ()):
            kind, _, name = need.partition(":")
            yield where, part, kind, name


def _faults_of_names(fields: Mapping[str, Any]) -> Iterator[Fault]:
    for where in ("companions", "terms"):
        names = Counter(part.name for part in fields.get(where, ()))
        for name in (name for name, count in names.items() if count > 1):
            yield where, f'has {names[name]} parts named "{name}"; give each a name = "…" of its own'
    if "terms" in fields and not fields["terms"]:
        yield "terms", f"is empty: a recipe has at least one; known: {', '.join(room('terms').names())}"


def _faults_of_sources(fields: Mapping[str, Any]) -> Iterator[Fault]:
    """Whether the names of a mixture's sources are those that marks and views mean."""
    if "data" not in fields:
        return
    data, parts = fields["data"], parts_of(fields)
    names = set(data.sources) - {""}
    for mark in () if names else sorted(data.given_marks):
        yield f"data.{mark}", 'is for a part of a mixture (use = "mixture")'
    known = f"its sources are {', '.join(sorted(names))}" if names else 'the data are no mixture (data.use = "mixture")'
    for where, part in parts.items():
        for name in sorted(set(part.given_marks.get("only", ())) - names):
            yield f"{where}.only", f'names "{name}", but {known}'
    if not names:
        return
    batches = fields["train"].batches if "train" in fields else None
    for i, part in enumerate(data.parts):
        size = part.given_marks.get("batch_size")
        if isinstance(batches, Grouped) and size and size < batches.groups:
            yield f"data.parts[{i}].batch_size", f"= {size} is below train.batches.groups = {batches.groups}"
    for name in sorted(names):
        if fields.get("terms") and not any(term.is_for(name) for term in fields["terms"]):
            yield "terms", f'has none for the source "{name}": its batches would train nothing'
    maker = fields.get("views")
    if isinstance(maker, BySource) and set(maker.makers) != names:
        yield "views.makers", f"names {', '.join(sorted(maker.makers))}, but {known}"
    companions = {companion.name: companion for companion in fields.get("companions", ())}
    for where, part, kind, name in _needs(fields):
        served = companions[name] if kind == "companion" and name in companions else None
        idle = sorted(source for source in names if served and part.is_for(source) and not served.is_for(source))
        if idle:
            yield where, f'({_use(part)}) needs the companion "{name}", which is not for the source {", ".join(idle)}'


def _faults_of_needs(fields: Mapping[str, Any]) -> Iterator[Fault]:
    companions = {companion.name for companion in fields.get("companions", ())}
    copies = {view for copy in fields.get("copies", ()) for view in copy.makes}
    for where, part, kind, name in _needs(fields):
        if kind == "companion" and "companions" in fields and name not in companions:
            known = f"; the recipe has {', '.join(sorted(companions))}" if companions else ""
            yield where, f'({_use(part)}) needs the companion "{name}": add [[companions]] use = "{name}"{known}'
        similarity = fields.get("similarity", "cosine")
        if kind == "cosine" and similarity != "cosine":
            yield where, f'({_use(part)}) works on the unit sphere; similarity = "{similarity}", allowed: cosine'
        view, dot, copy = name.partition(".")  # copies such as anchor.masked come from no data
        if kind == "view" and dot and "copies" in fields and name not in copies:
            entry = f'{{ use = "{copy}", of = ["{view}"] }}'
            yield where, f'({_use(part)}) needs the view "{name}": add {entry} to views.copies'


def _faults_of_tables(fields: Mapping[str, Any]) -> Iterator[Fault]:
    """Whether every term can read the table that its edits make."""
    if "edits" not in fields:
        return
    names = {edit.name for edit in fields["edits"]}
    for i, term in enumerate(fields.get("terms", ())):
        for name in sorted(set(term.without) - names):
            known = f"; its edits are {', '.join(sorted(names))}" if names else ": it has no edits"
            yield f"terms[{i}].without", f'names "{name}", which is no edit of the recipe{known}'
        sharing = [
            edit.name for edit in fields["edits"]
            if edit.sets_shares and edit.name not in term.without and _meet(edit, term, fields)
        ]
        if term.refuses_shares and sharing:
            yield f"terms[{i}]", (
                f'({_use(term)}) cannot divide attraction over several positives as the edit "{sharing[0]}" asks; use '
                f'supervised_contrast or decoupled, or give the term without = ["{sharing[0]}"]'
            )


def _meet(edit: Part, term: Part, fields: Mapping[str, Any]) -> bool:
    """Whether there is a source that both are for."""
    sources = fields["data"].sources if "data" in fields else [""]
    return any(edit.is_for(source) and term.is_for(source) for source in sources)


def _faults_of_templates(fields: Mapping[str, Any]) -> Iterator[Fault]:
    """Whether every text has the one mask token that a pooling reads, in training and in encoding."""
    encoder, views, data = (fields.get(name) for name in ("encoder", "views", "data"))
    if encoder is None or encoder.pooling is None or not encoder.pooling.reads_mask_token:
        return
    given = {"encoder.default_prompt": encoder.prompts.get(encoder.default_prompt)}
    if encoder.default_prompt is not None and encoder.default_prompt not in encoder.prompts:
        given = {}  # the checkpoint's: looked at when it is loaded
    for name, source in data.sources.items() if data is not None else ():
        if views is None or (isinstance(views, BySource) and name not in views.makers):
            continue
        where, written = f'source "{name}": ' if name else "", views.of(name).prompts
        if written is not None:
            given |= {f"{where}views.templates[{i}]": prompt for i, prompt in enumerate(written)}
        else:
            prefixes = source.prefixes or {"anchor": None}
            given |= {f"{where}data.prefixes.{role}": prompt for role, prompt in prefixes.items()}
    for where, prompt in given.items():
        try:
            require_one_mask(prompt)
        except ValueError as error:
            yield where, str(error)


def _faults_of_training(fields: Mapping[str, Any]) -> Iterator[Fault]:
    train = fields.get("train")
    if train is None:
        return
    if train.eval_every and fields.get("dev") == ():
        yield "train.eval_every", "needs a [[dev]] task (use, path) to evaluate on"
    if train.shard and "encoder" in fields and fields["encoder"].weights != "fp32":
        fault = (f'deals weights of one format; those of encoder.weights = "{fields["encoder"].weights}" have adapters '
                 "in float32 beside them")
        yield "train.shard", f"{fault}: leave one of the two out"
    if train.nested_dims and "encoder" in fields:
        for i, head in enumerate(fields["encoder"].heads):
            if head.train_only and not head.keeps_dimensions:
                yield "train.nested_dims", (
                    f"trains leading dimensions behind the head {_use(head)}, but encoder.heads[{i}].train_only = true "
                    "keeps that head out of the exported model, whose own leading dimensions nothing then trains: set "
                    "train_only = false, or leave out the head or train.nested_dims"
                )
    for where, part in parts_of(fields).items() if train.chunk_size else ():
        read = sorted(part.needs & {"hidden", "attentions"})
        if read:
            yield "", (
                f"train.chunk_size: {where} ({_use(part)}) reads {' and '.join(read)}, whose gradients do not pass "
                "through the cached embeddings; leave one of them out (train.gradient_checkpointing saves memory with "
                "every part)"
            )
