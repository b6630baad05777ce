"""Views whose vectors are weighted means of several columns'."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.data.roles import is_role, kind_of
from sentemb.data.tokens import text_hashes
from sentemb.parts import Positive
from sentemb.types import Examples, TokenColumn, View, ViewContext, Views
from sentemb.views.columns import Columns

_NO_TEXT = text_hashes([""])[0]
_ODD = np.uint64(0x9E3779B97F4A7C15)
_OF_ONE_TEXT = frozenset({"tokens", "hidden", "attentions", "inner", "texts"})  # needs of parts that read a view's text


class Fields(Columns):
    """The columns of the data, of which several are the fields of one view:

        v = Σ over its fields f  weight(f) · h(f)  /  Σ weight(f)

        [views]
        use = "fields"
        weights = { positive = { positive = 0.3, positive_2 = 0.7 } }

    Here an example's positive has two texts, a title in the column ``positive`` and a body in ``positive_2``; both are
    encoded by themselves. Columns that are no field of another one are views of their own, as with ``columns``. h are
    the rows behind the pooling, at unit length where the model's own vectors have it; a single field is the plain view.
    A field that a row lacks has no weight there; one of a view's fields must be there.

    The mean is that of an index with the same weights: ``index build --set 'fields={title=0.3,text=0.7}'``.

    Args:
        weights: view -> column -> weight. A view has the name of one of its columns: ``anchor``, ``positive``,
            ``negative_1`` …; a column is a field of one view.
    Returns: a view's ids are its example's; its content hash is made of its fields'.
    Raises: DataError where the data lack one of the columns, or a row lacks all fields of a view.
    Source: Marqo's generalised contrastive learning (GCL): a side's vector is the weighted mean of its fields' vectors.
    Deviations: GCL's training code is not published. The mean stands before the heads, and that of an index behind
        them, so a recipe with heads is refused; a checkpoint's own heads are not looked for. What reads tokens, hidden
        states or texts of a view is refused, and so are companions.
    """

    def __init__(self, *, weights: Mapping[str, Mapping[str, Positive]]) -> None:
        self.weights = {view: dict(fields) for view, fields in weights.items()}
        fields = [field for of_view in self.weights.values() for field in of_view]
        twice = next((field for field in fields if fields.count(field) > 1), None)
        if not fields:
            raise ValueError("weights names no fields; say view -> column -> weight, or use = \"columns\"")
        wrong = next((field for field in fields if not (is_role(field) and kind_of(field) == "text")), None)
        if wrong is not None:
            raise ValueError(f'weights: "{wrong}" is no text of an example; they are anchor, anchor_2 …, positive, '
                             "positive_2 …, negative_1 …, and data.columns says which columns of the file they are")
        if twice is not None:
            raise ValueError(f'weights: the column "{twice}" is a field of two views; a column belongs to one')
        for view, of_view in self.weights.items():
            if view not in of_view:
                named = ", ".join(of_view) or "none"
                raise ValueError(f'weights: the view "{view}" has the name of none of its columns ({named})')
        self.columns = frozenset({"anchor", "positive", *fields})
        self.together = tuple(frozenset(of_view) for of_view in self.weights.values() if len(of_view) > 1)

    def makes(self, columns: Collection[str]) -> tuple[str, ...]:
        """The columns without those that are a field of another one."""
        further = {field for view, of_view in self.weights.items() for field in of_view if field != view}
        return tuple(name for name in super().makes(columns) if name not in further)

    def texts(self, columns: Collection[str]) -> int:
        """One for each field."""
        return len(self.makes(columns)) + sum(len(of_view) - 1 for of_view in self.weights.values())

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """Heads, and parts that read one text of a view."""
        faults = []
        if "encoder" in recipe and recipe["encoder"].heads:
            faults.append("takes the mean of a view's fields before encoder.heads; leave the heads out")
        readers = [part.name for part in (*recipe.get("edits", ()), *recipe.get("terms", ()))
                   if part.needs & _OF_ONE_TEXT or part.encodes]
        readers += [f"companion {companion.name}" for companion in recipe.get("companions", ())]
        readers += [f"copy {copy.makes[0]}" for copy in recipe.get("copies", ()) if copy.makes]
        if readers:
            faults.append(f"makes views of several texts, and {readers[0]} reads a view's one text; leave it out")
        return faults

    def __call__(self, examples: Examples, context: ViewContext) -> Views:
        """One view a column, or for the columns that are its fields."""
        views = dict(super().__call__(examples, context))
        for name, of_view in self.weights.items():
            fields = tuple(examples.columns[field] for field in of_view)
            if len(fields) > 1:
                own, hashes = examples.columns[name], np.stack([column.text for column in fields])
                column = TokenColumn(flat=own.flat, offsets=own.offsets, text=_joined_hashes(hashes))
                weights = np.array([*of_view.values()], dtype=np.float32)[:, None] * (hashes != _NO_TEXT)
                views[name] = View(column=column, ids=examples.ids, fields=fields, shares=weights / weights.sum(axis=0))
        return views


def _joined_hashes(hashes: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    """A hash (rows,) of the texts of several columns, in their order."""
    joined = np.zeros((), dtype=np.uint64)
    for one in hashes:
        joined = (joined ^ one.astype(np.uint64)) * _ODD
    return joined.astype(np.int64) & np.int64(2**63 - 1)
