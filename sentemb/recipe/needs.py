"""How the parts of a recipe must fit together, and what they need of the data; decided here alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sentemb.parts import Part, room
from sentemb.types import Component

if TYPE_CHECKING:
    from sentemb.recipe.recipe import Recipe

Fault = tuple[str, str]  # (where in the recipe, what is wrong)


def recipe_faults(fields: Mapping[str, Any]) -> list[Fault]:
    """What is wrong with how a recipe's fields fit together.

    Args:
        fields: a ``Recipe``'s fields by name; a missing one was wrong itself, so that nothing is said of it.
    """
    return [
        *_faults_of_names(fields),
        *_faults_of_companions(fields),
        *_faults_of_copies(fields),
        *_faults_of_tables(fields),
        *((f"{where} ({_use(part)})", fault) for where, part in _parts(fields) if isinstance(part, Component)
          for fault in part.faults(fields)),
        *_faults_of_training(fields),
    ]


def data_faults(recipe: Recipe, columns: Collection[str], *, has_labels: bool, has_scores: bool) -> list[Fault]:
    """What parts need and data with these text columns do not have."""
    known = ", ".join(columns)
    faults = [
        ("views", f'({_use(recipe.views)}) needs the column "{column}"; the data have: {known}')
        for column in sorted(recipe.views.columns - set(columns))
    ]
    views = {*recipe.views.makes(columns), *(view for copy in recipe.copies for view in copy.makes)}
    for where, part in _parts(vars(recipe)):
        for need in sorted(part.needs):
            kind, _, name = need.partition(":")
            if (kind, has_labels) == ("labels", False) or (kind, has_scores) == ("scores", False):
                faults.append((where, f'({_use(part)}) needs the column "{kind[:-1]}"; the data have: {known}'))
            if kind == "view" and views.isdisjoint(name.split("|")):
                either = name.replace("|", '" or "')
                faults.append(
                    (where, f'({_use(part)}) needs the view "{either}"; there are {", ".join(sorted(views))}')
                )
    return faults


def _parts(fields: Mapping[str, Any]) -> Iterator[tuple[str, Part]]:
    """The parts that have needs, by where they stand."""
    if "views" in fields:
        yield "views", fields["views"]
    for name in ("copies", "companions", "edits", "terms"):
        where = "views.copies" if name == "copies" else name
        yield from ((f"{where}[{i}]", part) for i, part in enumerate(fields.get(name, ())))


def _use(part: Part) -> str:
    return room(part.room).name_of(type(part))


def _faults_of_names(fields: Mapping[str, Any]) -> Iterator[Fault]:
    for where in ("companions", "terms"):
        names = Counter(part.name for part in fields.get(where, ()))
        for name in (name for name, count in names.items() if count > 1):
            yield where, f'has {names[name]} parts named "{name}"; give each a name = "…" of its own'
    if "terms" in fields and not fields["terms"]:
        yield "terms", f"is empty: a recipe has at least one; known: {', '.join(room('terms').names())}"


def _faults_of_companions(fields: Mapping[str, Any]) -> Iterator[Fault]:
    if "companions" not in fields:
        return
    names = {companion.name for companion in fields["companions"]}
    for where, part in _parts(fields):
        for need in sorted(part.needs):
            kind, _, name = need.partition(":")
            if kind == "companion" and name not in names:
                known = f"; the recipe has {', '.join(sorted(names))}" if names else ""
                yield where, f'({_use(part)}) needs the companion "{name}": add [[companions]] use = "{name}"{known}'


def _faults_of_copies(fields: Mapping[str, Any]) -> Iterator[Fault]:
    """Copies such as ``anchor.masked`` come from no data, so they can be decided now."""
    if "copies" not in fields:
        return
    copied = {view for copy in fields["copies"] for view in copy.makes}
    for where, part in _parts(fields):
        for need in sorted(part.needs):
            kind, _, name = need.partition(":")
            view, dot, copy = name.partition(".")
            if kind == "view" and dot and name not in copied:
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
        sharing = [edit.name for edit in fields["edits"] if edit.sets_shares and edit.name not in term.without]
        if term.refuses_shares and sharing:
            yield f"terms[{i}]", (
                f'({_use(term)}) cannot divide attraction over several positives as the edit "{sharing[0]}" asks; use '
                f'supervised_contrast or decoupled, or give the term without = ["{sharing[0]}"]'
            )


def _faults_of_training(fields: Mapping[str, Any]) -> Iterator[Fault]:
    train = fields.get("train")
    if train is None:
        return
    if train.eval_every and fields.get("dev") == ():
        yield "train.eval_every", "needs a [[dev]] task (use, path) to evaluate on"
    if train.nested_dims and "encoder" in fields:
        for i, head in enumerate(fields["encoder"].heads):
            if head.train_only and not head.keeps_dimensions:
                yield "train.nested_dims", (
                    f"trains leading dimensions behind the head {_use(head)}, but encoder.heads[{i}].train_only = true "
                    "keeps that head out of the exported model, whose own leading dimensions nothing then trains: set "
                    "train_only = false, or leave out the head or train.nested_dims"
                )
    if train.chunk_size:
        from sentemb.training.gradcache import cache_faults

        named = [(f"{where} ({_use(part)})", part.needs) for where, part in _parts(fields)]
        yield from (("", fault) for fault in cache_faults(named))
