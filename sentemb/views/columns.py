"""The columns of the data as they are: pairs, triplets, any number of hard negatives."""

from __future__ import annotations

from collections.abc import Collection

from sentemb.errors import DataError
from sentemb.types import Examples, View, ViewContext, Views
from sentemb.views.view import ViewMaker


class Columns(ViewMaker):
    """Anchor, positive and, where the data have them, positive_2, … and negative or negative_1, … of every example.

    Differs from ``twice`` in reading the positive from the data.

    Raises: DataError where the data have no anchor or no positive column.
    Source: Gao, Yao & Chen 2021, EMNLP, section 4 (premise, entailment, contradiction).
    Deviations: none.
    """

    columns = frozenset({"anchor", "positive"})

    def makes(self, columns: Collection[str]) -> tuple[str, ...]:
        """Anchor, positive, and the data's further positives and negatives."""
        return ("anchor", "positive", *(name for name in columns if name.startswith(("positive_", "negative"))))

    def __call__(self, examples: Examples, context: ViewContext) -> Views:
        """One view a column, in the columns' order."""
        missing = [name for name in ("anchor", "positive") if name not in examples.columns]
        if missing:
            raise DataError(
                f'[views] use = "columns": the data have no column {" and no column ".join(missing)}; '
                f'found: {", ".join(examples.columns) or "none"}; '
                'name it under [data], or use = "twice" for single sentences'
            )
        return {name: View(column=examples.columns[name], ids=examples.ids) for name in self.makes(examples.columns)}
